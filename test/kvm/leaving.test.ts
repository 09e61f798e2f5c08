import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { missingKvm } from "../support/kvm-guest.ts";
import { multibootImage } from "../support/multiboot-image.ts";

const skip = missingKvm();
t.setTimeout(90_000);
const folder = mkdtempSync(join(tmpdir(), "tsvmm-leaving-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
const kernel = join(folder, "spins.elf");
writeFileSync(kernel, multibootImage((a) => void a.label("end").jmp("end"), 0x4000).bytes);
const program = fileURLToPath(new URL("../support/leaving-program.js", import.meta.url));

/** Threads are made and load their code within so many milliseconds of a start. */
const STARTING_MS = 120;

/** How a process ended that leaves machines; its signal is `SIGABRT` where Node ended a thread in the midst of loading native code. */
function leave(how: "exit" | "stop", milliseconds: number): unknown {
  const { status, signal, stderr } = spawnSync(process.execPath, [program, kernel, how, String(milliseconds)], {
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
