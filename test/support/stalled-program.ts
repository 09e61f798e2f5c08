import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { LARGE_READS_BUFFER } from "../../guests/large-reads.ts";
import { Machine } from "../../src/vmm/machine.ts";

/*
 * A program whose machine has a disk that does not answer: `stalled-program.js stop|exit KERNEL DISK`, run with an IPC
 * channel. It says "asked" when the guest has notified its disk. It goes on at the parent's next message, when the
 * device thread is in the read.
 *
 * - exit: leaves by `process.exit(7)`.
 * - stop: stops the machine, starts another one with as much RAM, and says how the first ended. When the first one's
 *   thread has ended after all, it says how many bytes of the disk are in the other machine's RAM.
 */

const [how, kernel = "", disk = ""] = process.argv.slice(2);
const DISK_BYTE = 0x5a;

/** What a stopped machine with a stalled disk says, and the one beside it. */
export interface StalledReport {
  readonly exit: { readonly reason: string; readonly text: string };
  /** Lines of level `error`. */
  readonly logged: readonly string[];
}

export interface LateReport {
  readonly text: string;
  readonly foreignBytes: number;
  /** Mappings of guest RAM in the process. */
  readonly ramMappings: number;
  readonly otherStatus: number;
}

const say = (message: "asked" | StalledReport | LateReport): void => void process.send?.(message);
const told = (): Promise<unknown> => new Promise((resolve) => process.once("message", resolve));

const ramAddresses = (): readonly number[] =>
  readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .filter((line) => line.includes("memfd:tsvmm-ram"))
    .map((line) => Number.parseInt(line, 16));

/** Bytes of the disk within the first 64 KiB of where the first machine's guest wanted them. */
function foreignBytes(address: number): number {
  const memory = openSync("/proc/self/mem", "r");
  const bytes = Buffer.alloc(64 * 1024);
  readSync(memory, bytes, 0, bytes.length, address + LARGE_READS_BUFFER);
  closeSync(memory);
  return bytes.filter((byte) => byte === DISK_BYTE).length;
}

const memory = { sizeBytes: 64 << 20 };
const input = { kernel, memory, disks: [{ path: disk, isReadOnly: true }] };
const machine = await Machine.start(input, { endTimeoutMs: 500 });
const logged: string[] = [];
const ended = new Promise<string>((resolve) => {
  machine.on("log", (level, text) => {
    if (level === "error") logged.push(text);
    if (text.includes("has ended")) resolve(text);
  });
});
await machine.serial.waitFor("-");
say("asked");
await told();
if (how === "exit") process.exit(7);

const before = ramAddresses();
const { reason, text } = await machine.stop();
const other = await Machine.start({ kernel, memory, console: { kind: "off" } });
say({ exit: { reason, text }, logged });
const late = await ended;
const address = ramAddresses().find((one) => !before.includes(one)) ?? before[0] ?? 0;
const found = foreignBytes(address);
const ramMappings = ramAddresses().length;
const { status } = await other.stop();
say({ text: late, foreignBytes: found, ramMappings, otherStatus: status });
process.disconnect();
