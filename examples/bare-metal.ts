/**
 * Boots a bare-metal image and checks what it prints: the test of a teaching kernel, say.
 *
 *     node dist/examples/bare-metal.js kernel.elf "expected text"
 *
 * The image is recognised by its content: a multiboot-1 ELF file here, but a vmlinux or a bzImage would do. It ends the
 * machine by writing to the debug exit port 0xf4; the exit status is then `(value << 1) | 1`, as QEMU's isa-debug-exit
 * has it.
 */
import { Machine } from "../src/index.ts"; // outside this repository: from "tsvmm"

const [kernel, expected] = process.argv.slice(2);
if (kernel === undefined || expected === undefined) {
  console.error("usage: bare-metal KERNEL TEXT");
  process.exit(2);
}

const machine = await Machine.start({ kernel, memory: { sizeBytes: 64 << 20 }, debugExitPort: 0xf4 });
await machine.serial.waitFor(expected, { timeoutMs: 30_000 });
const { status, text } = await machine.exited;
console.log(`found "${expected}"; ${text}`);
process.exitCode = status === 1 ? 0 : 1; // the guest wrote 0: it is content
