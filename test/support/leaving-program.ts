import { Machine } from "../../src/vmm/machine.ts";

/*
 * A program that starts machines and leaves them at awkward moments:
 * `leaving-program.js KERNEL exit|flush|stop MILLISECONDS DISK`. The threads of vCPUs and disk are then being made,
 * load their code, or run; `flush` counts from the guest's first byte, after which it writes and flushes its disk all
 * the time. Says how it left by its status: 7 from `process.exit()`, 0 after every stop.
 */

const [kernel = "", how, milliseconds, disk = ""] = process.argv.slice(2);
const input = { kernel, memory: { sizeBytes: 64 << 20 }, cpus: { count: 4 }, disks: [{ path: disk }] };

if (how === "exit") {
  setTimeout(() => process.exit(7), Number(milliseconds));
  await Machine.start(input);
} else if (how === "flush") {
  const machine = await Machine.start({ ...input, cpus: { count: 1 } });
  await machine.serial.waitFor(/-/, { timeoutMs: 10_000 });
  setTimeout(() => process.exit(7), Number(milliseconds));
} else {
  for (let delay = 0; delay < Number(milliseconds); delay += 5) {
    const machine = await Machine.start(input);
    await new Promise((resolve) => setTimeout(resolve, delay));
    await machine.stop();
  }
}
