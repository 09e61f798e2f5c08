import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t, { type Test } from "tap";
import { largeReadsGuest } from "../../guests/large-reads.ts";
import { missingKvm } from "../support/kvm-guest.ts";
import { missingFuse, StalledFile } from "../support/stalled-file.ts";
import type { LateReport, StalledReport } from "../support/stalled-program.ts";

/*
 * A machine whose device thread is in a read of the kernel that does not return. The thread cannot be ended, so
 * whatever it may write to must stay its own.
 */

const skip = missingKvm() || missingFuse();
t.setTimeout(100_000);
const folder = mkdtempSync(join(tmpdir(), "tsvmm-stalled-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
const kernel = join(folder, "reads.elf");
writeFileSync(kernel, largeReadsGuest({ count: 1, buffers: 1, bufferBytes: 1 << 20 }));
const program = fileURLToPath(new URL("../support/stalled-program.js", import.meta.url));

/** Starts the program and goes on when its machine's device thread hangs. */
async function stall(t: Test, how: "stop" | "exit"): Promise<{ child: ChildProcess; disk: StalledFile }> {
  const disk = new StalledFile(join(folder, how), 1 << 20);
  const child = fork(program, [how, kernel, disk.path], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  t.teardown(async () => {
    child.kill("SIGKILL");
    await disk.close();
  });
  await once(child, "message");
  await disk.stalled;
  child.send("stalled");
  return { child, disk };
}

t.test(
  "Machine keeps RAM while a read hangs, says so, and gives it back when the read is over",
  { skip },
  async (t) => {
    const { child, disk } = await stall(t, "stop");
    // Cast: the program's first message after "asked".
    const [{ exit, logged }] = (await once(child, "message")) as [StalledReport];
    t.equal(exit.reason, "failed");
    t.equal(
      exit.text,
      "Cannot end the device thread: guest RAM (64 MiB) and the machine's open files stay in use until it ends " +
        "(it is in a call of the kernel: look for a disk or a file system that does not answer)",
    );
    t.same(logged, [exit.text]);
    const closed = once(child, "close");
    disk.release();
    // Cast: and its second.
    const [late] = (await once(child, "message")) as [LateReport];
    t.same(late, {
      text: "the device thread has ended: guest RAM (64 MiB) and the machine's open files are given back",
      foreignBytes: 0,
      ramMappings: 1,
      otherStatus: 0,
    });
    t.same(await closed, [0, null]);
  },
);

t.test("process.exit() ends a process whose machine hangs in a read", { skip }, async (t) => {
  const { child } = await stall(t, "exit");
  t.same(await once(child, "close"), [7, null]);
});
