import type { Assembler, Condition } from "./assembler.ts";
import { mem8 } from "./assembler-encoding.ts";
import { multibootImage } from "./multiboot-image.ts";

/*
 * What the benchmark's guests share. They are multiboot kernels of a few hundred bytes, so that every VMM boots the
 * same file. They report on COM1: a line of eight hexadecimal digits for each number, in an order the host knows.
 */

const COM1 = 0x3f8;
/** QEMU's isa-debug-exit and our `--debug-exit`. */
export const DEBUG_EXIT = 0xf4;
/** Top of the stack; RAM from there to {@link SCRATCH} is free. */
const STACK = 0x20_0000;
/** Variables of the guests, zero at the start. */
export const SCRATCH = 0x30_0000;

/** Assembles a guest; it has a stack, and ends where `write` ends. */
export function guestImage(write: (assembler: Assembler) => void): Uint8Array {
  return multibootImage((a) => {
    a.cli().cld().mov("esp", STACK);
    write(a);
    exit(a);
    writeSubroutines(a);
  }).bytes;
}

/** Ends the machine. */
export function exit(a: Assembler, status = 0): void {
  const end = fresh("end");
  a.mov("al", status).out(DEBUG_EXIT, "al").label(end).hlt().jmp(end);
}

/** Sends EAX as a line; EAX, EBX, ECX and EDX are lost. */
export const reportEax = (a: Assembler): Assembler => a.call("report");

/** Sends a character as a line, to tell the host where the guest is; EAX and EDX are lost. */
export function mark(a: Assembler, character: string): void {
  a.mov("edx", COM1).mov("al", character.charCodeAt(0)).out("dx", "al").mov("al", 10).out("dx", "al");
}

/** Sends a text and ends the machine with a failure. */
export function fail(a: Assembler, text: string): void {
  const label = fresh("text");
  a.mov("esi", { label, addend: 0 }).mov("ecx", text.length).mov("edx", COM1).rep().outs(8);
  exit(a, 1);
  a.label(label).ascii(text);
}

/** Sends the time stamp counter as two lines, high half first; EAX, EBX, ECX and EDX are lost. */
export function reportTime(a: Assembler): void {
  a.rdtsc().push("eax").mov("eax", "edx").call("report").pop("eax").call("report");
}

/** Runs `body` so often; ECX counts. */
export function repeat(a: Assembler, count: number, body: () => void): void {
  const label = fresh("again");
  a.mov("ecx", count).label(label);
  body();
  a.dec("ecx").j("ne", label);
}

/** Runs `body` when the condition of the last comparison holds. */
export function when(a: Assembler, condition: Condition, body: () => void): void {
  const [yes, no] = [fresh("yes"), fresh("no")];
  a.j(condition, yes).jmp(no).label(yes);
  body();
  a.label(no);
}

let labels = 0;
/** A label name that is not in use. */
export const fresh = (name: string): string => `${name}.${labels++}`;

function writeSubroutines(a: Assembler): void {
  a.label("report").mov("ecx", 8).mov("edx", COM1).label("report.digit");
  a.mov("ebx", "eax").shr("ebx", 28).shl("eax", 4).add("ebx", { label: "report.digits", addend: 0 });
  a.push("eax").mov("al", mem8("ebx")).out("dx", "al").pop("eax");
  a.dec("ecx").j("ne", "report.digit").mov("al", 10).out("dx", "al").ret();
  a.label("report.digits").ascii("0123456789abcdef");
}
