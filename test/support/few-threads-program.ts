import { readdirSync } from "node:fs";
import { Machine } from "../../src/vmm/machine.ts";

/*
 * A program for a host with few threads left: `few-threads-program.js KERNEL`. It starts a machine of two processors,
 * waits for its end, and does it again. Then it says how the second one ended and how many descriptors that has left.
 * It does not call `process.exit()`.
 */

const [kernel = ""] = process.argv.slice(2);

async function run(): Promise<string> {
  try {
    const cpus = { count: 2 };
    const machine = await Machine.start({ kernel, memory: { sizeBytes: 16 << 20 }, cpus, debugExitPort: 0xf4 });
    return (await machine.exited).text;
  } catch (error) {
    return String(error);
  }
}

/** Node closes descriptors of a thread's event loop some turns after the thread's end. */
async function descriptors(): Promise<number> {
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
  return readdirSync("/proc/self/fd").length;
}

await run();
const before = await descriptors();
const text = await run();
console.log(`${text}\n${(await descriptors()) - before} descriptors more`);
