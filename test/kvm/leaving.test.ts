import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { blockGuest, VIRTIO_BLK_T_OUT } from "../../guests/block.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { missingKvm } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.setTimeout(200_000); // half a minute where nothing else runs
const folder = mkdtempSync(join(tmpdir(), "tsvmm-leaving-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
const kernel = join(folder, "spins.elf");
writeFileSync(kernel, multibootImage((a) => void a.label("end").jmp("end"), 0x4000).bytes);
const program = fileURLToPath(new URL("../support/leaving-program.js", import.meta.url));

/** Threads are made and load their code within so many milliseconds of a start. */
const STARTING_MS = 120;

const DISK_BYTES = 1 << 20;
const disk = join(folder, "disk.img");
writeFileSync(disk, new Uint8Array(DISK_BYTES));

/**
 * How a process ended that leaves machines; its signal is `SIGABRT` where Node ended a thread in the midst of loading
 * native code.
 */
function leave(how: "exit" | "flush" | "stop", milliseconds: number, image = kernel): unknown {
  const { status, signal, stderr } = spawnSync(process.execPath, [program, image, how, String(milliseconds), disk], {
    encoding: "utf8",
    timeout: 60_000,
  });
  return { status, signal, stderr };
}

t.test("Machine.stop() takes a machine apart at every moment of its start", { skip }, (t) => {
  t.same(leave("stop", STARTING_MS), { status: 0, signal: null, stderr: "" });
  t.end();
});

t.test("process.exit() ends a process at every moment of a machine's start", { skip }, (t) => {
  for (let delay = 0; delay < STARTING_MS; delay += 6) {
    t.same(leave("exit", delay), { status: 7, signal: null, stderr: "" }, `after ${delay} ms`);
  }
  t.end();
});

t.test("process.exit() ends a process while its machine's disk flushes", { skip }, (t) => {
  const flushing = join(folder, "flushing.elf");
  const writes = { type: VIRTIO_BLK_T_OUT, sizeBytes: 4096, depth: 1, count: 100_000 } as const;
  writeFileSync(flushing, blockGuest([{ ...writes, isRandom: false, waits: false, flushes: true }], DISK_BYTES));
  for (let delay = 0; delay < STARTING_MS; delay += 4) {
    t.same(leave("flush", delay, flushing), { status: 7, signal: null, stderr: "" }, `after ${delay} ms`);
  }
  t.end();
});
