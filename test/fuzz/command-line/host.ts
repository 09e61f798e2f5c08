import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { styleFor } from "../../../src/cli/output.ts";
import type { Surroundings } from "../../../src/cli/surroundings.ts";
import { libc } from "../../../src/host/libc.ts";
import { UnixListener } from "../../../src/host/unix-socket.ts";
import { PciNames } from "../../../src/host-pci/names.ts";
import { fakeSysfs } from "../../support/fake-sysfs.ts";

/**
 * A home folder with the files that command lines name, and a pretended host with PCI functions. Nothing of the real
 * one is changed.
 */
export class FuzzedHost {
  readonly home: string = mkdtempSync(join(tmpdir(), "tsvmm-fuzz-command-line-"));
  readonly surroundings: Surroundings;
  #printed = "";

  constructor() {
    for (const file of ["vmlinux", "initramfs", "a.raw", "b.raw", "rom"])
      writeFileSync(join(this.home, file), "content");
    libc.close(UnixListener.listen(join(this.home, "socket"), 1).fd);
    const directory = join(this.home, "host");
    const root = fakeSysfs(directory, [
      { bdf: "0000:01:00.0", driver: "nvme", group: 1, class: "0x010802", files: { config: "" } },
      { bdf: "0000:01:00.1", group: 1, files: { config: "" } },
      { bdf: "0000:02:00.0", driver: "vfio-pci", files: { config: "" } },
    ]);
    const print = (text: string): void => {
      this.#printed += text;
    };
    this.surroundings = {
      ...{ print, remark: print },
      style: styleFor({}, {}),
      columns: 80,
      root: { ...root, run: join(directory, "run") },
      names: () => new PciNames("8086  Intel Corporation\n"),
    };
  }

  /** What a command has printed since the last call. */
  takePrinted(): string {
    const printed = this.#printed;
    this.#printed = "";
    return printed;
  }

  close(): void {
    rmSync(this.home, { recursive: true, force: true });
  }
}
