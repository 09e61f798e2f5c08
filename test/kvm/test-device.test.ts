import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import type { Assembler } from "../../guests/assembler.ts";
import { at, mem16, mem32 } from "../../guests/assembler-encoding.ts";
import { exit, guestImage, reportEax } from "../../guests/program.ts";
import { Machine } from "../../src/vmm/machine.ts";
import { missingKvm } from "../support/kvm-guest.ts";

const skip = missingKvm();
const folder = mkdtempSync(join(tmpdir(), "tsvmm-test-device-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

/** Where the interrupt table is: 0x74 gates of eight bytes. */
const IDT = 0x31_0000;
const PAGE = 0x32_0000;

/** Makes an interrupt gate for a vector, with the code segment in use. Intel SDM vol. 3 §6.11 */
function setGate(a: Assembler, vector: number, label: string): void {
  const gate = IDT + 8 * vector;
  a.mov("eax", { label, addend: 0 })
    .mov(mem16(gate), "ax")
    .shr("eax", 16)
    .mov(mem16(gate + 6), "ax");
  a.mov("eax", 0x08)
    .mov(mem16(gate + 2), "ax")
    .mov("eax", 0x8e00)
    .mov(mem16(gate + 4), "ax");
}

t.test(
  "A guest has QEMU's pc-testdev with hasTestDevice: scratch, memory, flushed page, output, lines",
  { skip },
  async (t) => {
    const image = guestImage((a) => {
      a.mov("eax", 0x1122_3344).out(0xe0, "eax").mov("eax", 0).in("al", 0xe9);
      reportEax(a);
      a.mov("eax", 0x5566_7788).mov(mem32(0xff00_fffc), "eax").mov("eax", 0).mov("ax", mem16(0xff00_fffe));
      reportEax(a);
      a.mov("eax", 0xcafe_f00d)
        .mov(mem32(PAGE + 0x10), "eax")
        .mov("eax", PAGE)
        .out(0xe4, "eax");
      a.mov("eax", mem32(PAGE + 0x10));
      reportEax(a);
      a.mov("esi", { label: "text", addend: 0 }).mov("ecx", 7).mov("edx", 0xf1).rep().outs(8);
      setGate(a, 0x73, "handler");
      a.lidt(mem32(at("table")))
        .mov("edx", 0x200b)
        .mov("eax", 1)
        .out("dx", "eax")
        .mov("eax", 0)
        .out("dx", "eax");
      a.sti().label("wait").hlt().jmp("wait");
      a.label("text")
        .ascii("printed")
        .label("table")
        .dw(8 * 0x74 - 1)
        .dd(IDT);
      a.label("handler").mov("eax", 0x73);
      reportEax(a);
      exit(a, 5);
    });
    const kernel = join(folder, "testdev.elf");
    writeFileSync(kernel, image);
    const spec = { kernel, memory: { sizeBytes: 16 << 20 }, debugExitPort: 0xf4, hasTestDevice: true };
    const machine = await Machine.start(spec);
    t.match(
      machine.plan?.ports.filter(({ name }) => name.startsWith("testdev")),
      [
        { name: "testdev scratch", address: 0xe0, sizeBytes: 4 },
        { name: "testdev flush", address: 0xe4, sizeBytes: 4 },
        { name: "testdev scratch bytes", address: 0xe8, sizeBytes: 4 },
        { name: "testdev output", address: 0xf1, sizeBytes: 1 },
        { name: "testdev lines", address: 0x2000, sizeBytes: 24 },
      ],
    );
    t.equal((await machine.exited).status, 11, "5 times 2, plus 1");
    t.equal(machine.serial.text, "00000033\n00005566\ncafef00d\nprinted00000073\n");
  },
);
