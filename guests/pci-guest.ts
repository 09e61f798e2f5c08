import type { Assembler } from "./assembler.ts";
import { at, mem8, mem32 } from "./assembler-encoding.ts";

/*
 * Pieces of tiny multiboot guests that drive a PCI function. They use EAX, ECX and EDX; EBX holds the address of BAR 0.
 */

const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;
const DEBUG_EXIT = 0xf4;
export const LOCAL_APIC = 0xfee0_0000;
/**
 * Where {@link enableInterrupts} lets interrupts arrive; further handlers of {@link tables} have the vectors behind it.
 */
export const MSI_VECTOR = 0x40;
const STACK = 0x30_0000;

/** Reads a dword of configuration space into EAX. */
export function readConfig(a: Assembler, slot: number, offset: number): Assembler {
  a.mov("eax", 0x8000_0000 + slot * 0x800 + offset)
    .mov("edx", CONFIG_ADDRESS)
    .out("dx", "eax");
  return a.mov("edx", CONFIG_DATA).in("eax", "dx");
}

/** Writes a dword of configuration space. */
export function writeConfig(a: Assembler, slot: number, offset: number, value: number): Assembler {
  a.mov("eax", 0x8000_0000 + slot * 0x800 + offset)
    .mov("edx", CONFIG_ADDRESS)
    .out("dx", "eax");
  return a.mov("eax", value).mov("edx", CONFIG_DATA).out("dx", "eax");
}

/** Ends the machine with status 2 * code + 1. */
export function exit(a: Assembler, code: number): Assembler {
  return a.mov("al", code).out(DEBUG_EXIT, "al").hlt();
}

/** Ends the machine with `code` unless EAX has a value. */
export function expect(a: Assembler, value: number, code: number): Assembler {
  const label = `expected${code}`;
  return exit(a.cmp("eax", value).j("e", label), code).label(label);
}

/** A stack, segments of our own, and BAR 0's address in EBX, with memory decode and bus mastering on. */
export function openFunction(a: Assembler, slot: number): Assembler {
  a.cld()
    .mov("esp", STACK)
    .lgdt(mem32(at("gdtr")))
    .jmpFar(0x08, at("flat"))
    .label("flat");
  a.mov("eax", 0x10);
  for (const segment of ["ds", "es", "ss"] as const) a.movToSegment(segment, "ax");
  writeConfig(a, slot, 0x04, 0x6);
  return readConfig(a, slot, 0x10).and("eax", -16).mov("ebx", "eax");
}

/**
 * Local APIC on, and vectors from {@link MSI_VECTOR} on to the handlers of {@link tables}. Interrupts stay off until an
 * STI.
 */
export function enableInterrupts(a: Assembler): Assembler {
  return a.lidt(mem32(at("idtr"))).mov(mem32(LOCAL_APIC + 0xf0), 0x1ff);
}

/** Sleeps until the handler has set the byte at `flag`. */
export function awaitFlag(a: Assembler, flag: string): Assembler {
  a.label(`${flag}Again`)
    .cli()
    .cmp(mem8(at(flag)), 0)
    .j("ne", `${flag}Set`);
  return a.sti().hlt().jmp(`${flag}Again`).label(`${flag}Set`).cli();
}

/** The interrupt handler: sets the byte at `flag` after what `acknowledge` does, which may use EAX. */
export function handler(a: Assembler, flag: string, acknowledge: (a: Assembler) => void): Assembler {
  a.label("handler").push("eax");
  acknowledge(a);
  a.mov(mem8(at(flag)), 1).mov(mem32(LOCAL_APIC + 0xb0), 0);
  return a.pop("eax").iret();
}

/** Tables that the code above needs, with labels of interrupt handlers; the guest's code lies below 0x110000. */
export function tables(a: Assembler, handlers: readonly string[] = ["handler"]): Assembler {
  a.align(8).label("gdt").dq(0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn);
  a.label("gdtr").dw(0x17).dd(at("gdt"));
  a.align(8)
    .label("idt")
    .space(8 * MSI_VECTOR);
  for (const handler of handlers) a.dw(at(handler), 0x08, 0x8e00, 0x0010);
  return a
    .label("idtr")
    .dw(8 * (MSI_VECTOR + handlers.length) - 1)
    .dd(at("idt"));
}
