import { mem32 } from "./assembler-encoding.ts";
import { multibootImage } from "./multiboot-image.ts";

/*
 * A bare-metal driver of QEMU's "edu" device (1234:11e8, docs/specs/edu.txt), in flat 32-bit protected mode. It finds
 * the BAR and checks identity, liveness and factorial. Then it copies through the device's DMA engine, and takes an
 * MSI. It writes 0 to the debug exit port when all is well, else the number of the step that failed.
 */

const DEBUG_EXIT = 0xf4;
const LOCAL_APIC = 0xfee0_0000;
const VECTOR = 0x40;

const SOURCE = 0x20_0000;
const TARGET = 0x20_1000;
const DMA_BUFFER = 0x4_0000; // inside the device
const DMA_WORDS = 256;

/** @param slot Guest slot of the device on bus 0. @param number Its function there. */
export function eduGuest(slot: number, number = 0): Uint8Array {
  const config = (offset: number): number => (0x8000_0000 | (slot << 11) | (number << 8) | offset) >>> 0;
  return multibootImage((a) => {
    /** Puts the dword at a configuration offset into EAX. */
    const readConfig = (offset: number): void => {
      a.mov("eax", config(offset)).mov("edx", 0xcf8).out("dx", "eax").mov("edx", 0xcfc).in("eax", "dx");
    };
    const writeConfig = (offset: number, value: number): void => {
      a.mov("eax", config(offset)).mov("edx", 0xcf8).out("dx", "eax");
      a.mov("eax", value).mov("edx", 0xcfc).out("dx", "eax");
    };
    /** Leaves with `step` unless EAX holds `value`. */
    const expect = (step: number, value: number): void => {
      a.mov("ebp", step).cmp("eax", value).j("ne", "failed");
    };

    readConfig(0);
    expect(1, 0x11e8_1234);
    // Memory decode and bus mastering on; the BAR's address in EBX.
    writeConfig(0x04, 0x6);
    readConfig(0x10);
    a.and("eax", 0xffff_fff0).mov("ebx", "eax");

    a.mov("eax", mem32("ebx", 0x00));
    expect(2, 0x0100_00ed);
    a.mov(mem32("ebx", 0x04), 0x1234_5678).mov("eax", mem32("ebx", 0x04));
    expect(3, 0xedcb_a987); // the inverse

    a.mov(mem32("ebx", 0x08), 5);
    a.label("computing").mov("eax", mem32("ebx", 0x20)).test("eax", 1).j("ne", "computing");
    a.mov("eax", mem32("ebx", 0x08));
    expect(4, 120);

    // DMA: RAM to device, device to RAM, compare.
    a.mov("ecx", DMA_WORDS).mov("edi", SOURCE);
    a.label("fill")
      .mov("eax", "ecx")
      .shl("eax", 16)
      .or("eax", "edi")
      .mov(mem32("edi"), "eax")
      .add("edi", 4)
      .loop("fill");
    for (const [name, from, to, command] of [
      ["out", SOURCE, DMA_BUFFER, 1],
      ["back", DMA_BUFFER, TARGET, 3],
    ] as const) {
      a.mov(mem32("ebx", 0x80), from)
        .mov(mem32("ebx", 0x88), to)
        .mov(mem32("ebx", 0x90), 4 * DMA_WORDS);
      a.mov(mem32("ebx", 0x98), command);
      a.label(name).mov("eax", mem32("ebx", 0x98)).test("eax", 1).j("ne", name);
    }
    a.mov("ebp", 5).mov("ecx", DMA_WORDS).mov("esi", SOURCE).mov("edi", TARGET);
    a.label("compare").mov("eax", mem32("esi")).cmp("eax", mem32("edi")).j("ne", "failed");
    a.add("esi", 4).add("edi", 4).loop("compare");

    // MSI: the capability is the only one the device has. Interrupts stay off; the local APIC's request register shows
    // the arrival.
    readConfig(0x34);
    a.and("eax", 0xfc).mov("esi", "eax"); // its offset
    a.add("esi", config(0));
    const writeCapability = (offset: number, value: number): void => {
      a.mov("eax", "esi")
        .add("eax", offset)
        .mov("edx", 0xcf8)
        .out("dx", "eax")
        .mov("eax", value)
        .mov("edx", 0xcfc)
        .out("dx", "eax");
    };
    a.mov("eax", "esi").mov("edx", 0xcf8).out("dx", "eax").mov("edx", 0xcfc).in("eax", "dx").and("eax", 0xff);
    expect(6, 0x05);
    a.mov(mem32(LOCAL_APIC + 0xf0), 0x1ff); // enabled, spurious vector 0xff
    writeCapability(4, LOCAL_APIC);
    writeCapability(8, 0);
    writeCapability(12, VECTOR);
    writeCapability(0, 0x0001_0005 & ~0xffff); // message control: enable
    a.mov(mem32("ebx", 0x60), 0x77); // raise
    a.mov("ecx", 1_000_000);
    a.label("pending")
      .mov("eax", mem32(LOCAL_APIC + 0x200 + 0x10 * (VECTOR >> 5)))
      .test("eax", 1 << (VECTOR & 31));
    a.j("ne", "arrived").loop("pending");
    a.mov("ebp", 7).jmp("failed");
    a.label("arrived").mov("eax", mem32("ebx", 0x24));
    expect(8, 0x77);
    a.mov(mem32("ebx", 0x64), 0x77).mov("eax", mem32("ebx", 0x24));
    expect(9, 0);

    a.mov("ebp", 0);
    a.label("failed").mov("eax", "ebp").out(DEBUG_EXIT, "al").label("end").hlt().jmp("end");
    a.align(4);
  }, 0).bytes;
}
