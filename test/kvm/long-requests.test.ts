import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { largeReadsGuest } from "../../guests/large-reads.ts";
import { Machine } from "../../src/vmm/machine.ts";
import { missingKvm } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.setTimeout(60_000);
const folder = mkdtempSync(join(tmpdir(), "tsvmm-long-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

/** A disk of 4 GiB that takes no space. */
function sparseDisk(): string {
  const path = join(folder, "disk.img");
  const file = openSync(path, "w");
  ftruncateSync(file, 4 * 2 ** 30);
  closeSync(file);
  return path;
}

t.test("Machine answers and stops in order while a guest reads a terabyte from its disk", { skip }, async (t) => {
  const kernel = join(folder, "reads.elf");
  // 256 requests of 3.97 GiB each, into the same 32 MiB of RAM.
  writeFileSync(kernel, largeReadsGuest({ count: 256, buffers: 127, bufferBytes: 32 << 20 }));
  const machine = await Machine.start({ kernel, memory: { sizeBytes: 64 << 20 }, disks: [{ path: sparseDisk() }] });
  await machine.serial.waitFor("-");
  // Twice: the guest's notification comes after the mark, and the first answer may be before it.
  for (let answer = 0; answer < 2; answer++) t.ok((await machine.statistics()).accesses["COM1"]);
  t.same(await machine.stop(), { status: 0, reason: "stopped", text: "stopped by the host" });
});
