import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { type DiskStep, diskScript } from "../../guests/disk-script.ts";
import { openDiskImage } from "../../src/host/disk/disk-image.ts";
import { libc } from "../../src/host/libc.ts";
import { Machine } from "../../src/vmm/machine.ts";
import type { MachineInput } from "../../src/vmm/spec/spec-check.ts";
import { missingKvm } from "../support/kvm-guest.ts";

const skip = missingKvm();
const DISK_BYTES = 1 << 20;
const folder = mkdtempSync(join(tmpdir(), "tsvmm-disks-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;

/** A disk image with a text in its first sector. */
function image(text = ""): string {
  const path = join(folder, `disk${files++}.img`);
  const bytes = Buffer.alloc(DISK_BYTES);
  bytes.write(text);
  writeFileSync(path, bytes);
  return path;
}

function guest(disk: string, ...runs: readonly (readonly DiskStep[])[]): MachineInput {
  const kernel = join(folder, `guest${files++}.elf`);
  writeFileSync(kernel, diskScript(...runs));
  return { kernel, memory: { sizeBytes: 16 << 20 }, debugExitPort: 0xf4, disks: [{ path: disk }] };
}

/** What another machine would meet that wants this image; "" when it gets it. */
function tryToOpen(t: Test, path: string): string {
  try {
    libc.close(openDiskImage({ path, isReadOnly: false, isDirect: false, report: (_, text) => t.comment(text) }).fd);
    return "";
  } catch (error) {
    return String(error);
  }
}

t.test("Machine keeps its disks locked while the guest resets", { skip }, async (t) => {
  const disk = image();
  const machine = await Machine.start(guest(disk, [{ kind: "flush" }, { kind: "reset" }], [{ kind: "flush" }]));
  const seen: string[] = [];
  machine.on("reset", () => seen.push(tryToOpen(t, disk)));
  t.equal((await machine.exited).status, 1);
  t.match(seen, [/Cannot lock disk image .*: it is in use/]);
  t.equal(tryToOpen(t, disk), "", "the end of the machine unlocks it");
});

t.test(
  "Machine's guest finds the same disk after its reset, although the path leads to another file",
  { skip },
  async (t) => {
    const disk = image("old");
    const other = image("new");
    const read: DiskStep = { kind: "read", sector: 0, show: 3 };
    const machine = await Machine.start(guest(disk, [read, { kind: "reset" }], [read]));
    machine.on("reset", () => renameSync(other, disk));
    await machine.exited;
    t.equal(machine.serial.text, "0old0old");
  },
);
