import { execFileSync } from "node:child_process";
import { constants, mkdtempSync, openSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { type Fd, fd, gpa } from "../../../src/base/units.ts";
import { EventFd } from "../../../src/host/eventfd.ts";
import { libc } from "../../../src/host/libc.ts";
import { GuestRam } from "../../../src/host/memory/guest-ram.ts";
import { NvmeStore } from "../../../src/vfio-user/devices/nvme-store.ts";
import type { FileKind } from "./client-operations.ts";

export const RAM_BYTES: number = 2 ** 21;
const IMAGE_BYTES = 2 ** 20;

/** Descriptors of this process. */
export const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

/**
 * The same, once threads that close descriptors in the background have done so: `wanted`, or what is left after a
 * while.
 */
export async function settledDescriptors(wanted: number): Promise<number> {
  for (let look = 0; look < 500 && openDescriptors() > wanted; look++) await setTimeout(1);
  return openDescriptors();
}

/**
 * What the sides of a connection hand each other, made once for all runs: guest RAM, a disk, and files of other kinds.
 */
export class SharedFiles {
  readonly ram: GuestRam = GuestRam.create({ regions: [{ gpa: gpa(0), sizeBytes: RAM_BYTES, fileOffset: 0 }] });
  readonly event: EventFd = EventFd.create();
  readonly store: NvmeStore;
  readonly #folder = mkdtempSync(join(tmpdir(), "tsvmm-fuzz-vfio-user-"));
  readonly #files: ReadonlyMap<FileKind, Fd>;

  constructor() {
    const image = join(this.#folder, "disk");
    writeFileSync(image, new Uint8Array(IMAGE_BYTES));
    this.store = new NvmeStore(image, false, () => undefined);
    const short = fd(libc.memfdCreate("short", 1)); // without seals: its owner may cut it
    libc.ftruncate(short, 4096);
    const fifo = join(this.#folder, "fifo");
    execFileSync("mkfifo", [fifo]);
    this.#files = new Map<FileKind, Fd>([
      ["ram", this.ram.fd],
      ["event", this.event.fd],
      ["short", short],
      ["pipe", fd(openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK))],
      ["null", fd(openSync("/dev/null", "r"))],
      ["folder", fd(openSync(this.#folder, "r"))],
    ]);
  }

  get(kind: FileKind): Fd {
    return this.#files.get(kind) ?? fd(-1);
  }

  /** Whether the disk has the size it had. */
  get isImageWhole(): boolean {
    return statSync(join(this.#folder, "disk")).size === IMAGE_BYTES;
  }

  close(): void {
    for (const [kind, file] of this.#files) if (kind !== "ram" && kind !== "event") libc.close(file);
    this.event.close();
    this.ram.close();
    this.store.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
