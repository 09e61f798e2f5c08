/**
 * Boots Linux to a shell, runs a command in it and powers it off: an integration test that needs a real kernel.
 *
 *     node dist/examples/linux-guest.js vmlinux initramfs.cpio
 *
 * The initramfs is expected to give a shell on ttyS0, as the one that `npm run images` makes does.
 */
import { Machine } from "../src/index.ts"; // outside this repository: from "tsvmm"

const [kernel, initramfs] = process.argv.slice(2);
if (kernel === undefined || initramfs === undefined) {
  console.error("usage: linux-guest KERNEL INITRAMFS");
  process.exit(2);
}

// `await using` would do as well in a test: the machine is stopped and everything released when the block is left.
const machine = await Machine.start({ kernel, initramfs, cmdline: "console=ttyS0 quiet", cpus: { count: 2 } });
machine.on("exit", ({ text }) => console.log(`the machine has ended: ${text}`));

const patience = { timeoutMs: 240_000 };
// Not /[#$] $/: a shell may ask its terminal for the cursor's place at once, and the prompt is then not the last that
// came.
await machine.serial.waitFor(/[#$] /, patience);
machine.serial.write("echo cpus=$(nproc)\n");
const [, cpus] = await machine.serial.waitFor(/cpus=(\d+)\r?\n/, patience);
console.log(`the guest sees ${cpus} CPUs`);

machine.serial.write("poweroff -f\n");
const { status } = await machine.exited;
const { exits } = await machine.statistics();
console.log(
  `exits to this process: ${exits.portRead + exits.portWrite} port, ${exits.mmioRead + exits.mmioWrite} MMIO`,
);
process.exitCode = cpus === "2" ? status : 1;
