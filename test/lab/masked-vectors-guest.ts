import type { Assembler } from "../../guests/assembler.ts";
import { at, mem32 } from "../../guests/assembler-encoding.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import {
  enableInterrupts,
  LOCAL_APIC,
  MSI_VECTOR,
  openFunction,
  readConfig,
  tables,
  writeConfig,
} from "../../guests/pci-guest.ts";

/*
 * A bare-metal driver of QEMU's e1000e (8086:10d3; registers as in the 82574L datasheet). It makes the card raise two
 * MSI-X vectors by its cause register. It masks them, one by one and all together. It writes 0 to the debug exit port
 * when all is well, else the number of the step that failed.
 */

const DEBUG_EXIT = 0xf4;

/** Offset of the MSI-X capability, and what BAR 3 holds: the table and the pending bits. */
const CAPABILITY = 0xa0;
const PENDING = 0x2000;
const VECTOR_CONTROL = 12;
const ENTRY_BYTES = 16;
const ENABLE = 0x8000_0000;
const FUNCTION_MASK = 0x4000_0000;

/* The card's registers, and causes in them. */
const CAUSE_SET = 0xc8;
const MASK_SET = 0xd0;
const AUTO_CLEAR = 0xdc;
const VECTOR_ALLOCATION = 0xe4;
const RECEIVE = 1 << 20;
const TRANSMIT = 1 << 22;

/** Looks at memory until a condition holds: some seconds where an emulated processor runs the guest. */
const LOOKS = 20_000_000;

/** @param slot Guest slot of the card on bus 0. */
export function maskedVectorsGuest(slot: number): Uint8Array {
  return multibootImage((a) => {
    /** Leaves with `step` unless EAX holds `value`. */
    const expect = (step: number, value: number): void => {
      a.mov("ebp", step).cmp("eax", value).j("ne", "failed");
    };
    /** Takes interrupts until a dword has a value; leaves with `step` when it never has. */
    const until = (step: number, load: (to: Assembler) => void, value: number): void => {
      a.mov("ebp", step).mov("ecx", LOOKS).sti().label(`look${step}`);
      load(a);
      a.cmp("eax", value).j("e", `seen${step}`).pause().loop(`look${step}`).jmp("failed");
      a.label(`seen${step}`).cli();
    };
    const received = (): Assembler => a.mov("eax", mem32(at("received")));
    const transmitted = (): Assembler => a.mov("eax", mem32(at("transmitted")));
    const pending = (): Assembler => a.mov("eax", mem32("esi", PENDING));
    // Sent causes are cleared and no longer enabled, as the driver wants it that enables them again behind its work.
    const raise = (causes: number): Assembler =>
      a.mov(mem32("ebx", MASK_SET), causes).mov(mem32("ebx", CAUSE_SET), causes);
    const maskEntry = (entry: number, isMasked: boolean): Assembler =>
      a.mov(mem32("esi", ENTRY_BYTES * entry + VECTOR_CONTROL), isMasked ? 1 : 0);

    openFunction(a, slot);
    readConfig(a, slot, 0x1c).and("eax", -16).mov("esi", "eax");
    readConfig(a, slot, 0);
    expect(1, 0x10d3_8086);
    readConfig(a, slot, CAPABILITY).and("eax", 0xff);
    expect(2, 0x11);

    enableInterrupts(a);
    for (const entry of [0, 1]) {
      a.mov(mem32("esi", ENTRY_BYTES * entry), LOCAL_APIC).mov(mem32("esi", ENTRY_BYTES * entry + 4), 0);
      a.mov(mem32("esi", ENTRY_BYTES * entry + 8), MSI_VECTOR + entry);
      maskEntry(entry, false);
    }
    writeConfig(a, slot, CAPABILITY, ENABLE);
    // Receive queue 0 to the first vector, transmit queue 0 to the second.
    a.mov(mem32("ebx", VECTOR_ALLOCATION), 0x0908).mov(mem32("ebx", AUTO_CLEAR), RECEIVE | TRANSMIT);

    raise(RECEIVE);
    until(3, received, 1);

    // One entry masked: its interrupt waits in the pending bits, the other's still comes.
    maskEntry(1, true);
    raise(TRANSMIT);
    until(4, pending, 0b10);
    raise(RECEIVE);
    until(5, received, 2);
    transmitted();
    expect(6, 0);
    maskEntry(1, false);
    until(7, transmitted, 1);
    pending();
    expect(8, 0);

    // The whole function masked: both wait.
    writeConfig(a, slot, CAPABILITY, ENABLE | FUNCTION_MASK);
    raise(RECEIVE | TRANSMIT);
    until(9, pending, 0b11);
    received();
    expect(10, 2);
    transmitted();
    expect(11, 1);
    writeConfig(a, slot, CAPABILITY, ENABLE);
    until(12, received, 3);
    until(13, transmitted, 2);

    // Once each: what else was on its way has come before this one.
    raise(RECEIVE);
    until(14, received, 4);
    raise(TRANSMIT);
    until(15, transmitted, 3);

    a.mov("ebp", 0);
    a.label("failed").mov("eax", "ebp").out(DEBUG_EXIT, "al").label("end").hlt().jmp("end");

    for (const count of ["received", "transmitted"]) {
      a.label(`${count}Handler`).inc(mem32(at(count)));
      a.mov(mem32(LOCAL_APIC + 0xb0), 0).iret();
    }
    tables(a, ["receivedHandler", "transmittedHandler"]);
    a.align(4).label("received").dd(0).label("transmitted").dd(0);
  }).bytes;
}
