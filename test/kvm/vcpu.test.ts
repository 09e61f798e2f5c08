import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { at, mem8, mem16, mem32 } from "../../guests/assembler-encoding.ts";
import { describeExit } from "../../src/kvm/exit.ts";
import { hostCpuBrand } from "../../src/kvm/system.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

t.test("Vcpu.setUp() makes the guest see its CPUID", { skip }, (t) => {
  const code = new Assembler(CODE);
  const leaves: readonly (readonly [number, number])[] = [
    [1, 0],
    [0xb, 0],
    [0xb, 1],
    [0x8000_0002, 0],
    [0x4000_0000, 0],
  ];
  for (const [leaf, subleaf] of leaves) {
    code.mov("eax", leaf).mov("ecx", subleaf).cpuid().out(0x80, "eax");
    code.mov("eax", "ebx").out(0x80, "eax").mov("eax", "ecx").out(0x80, "eax").mov("eax", "edx").out(0x80, "eax");
  }
  const guest = new KvmGuest(code, { vcpus: 2 });
  t.teardown(() => guest.close());
  const seen = leaves.map(() => [0, 0, 0, 0].map(() => guest.runToOut()[1] >>> 0));
  const register = (leaf: number, index: number): number => seen[leaf]?.[index] ?? 0;
  t.equal(register(0, 1) >>> 24, 0, "APIC id of the boot processor");
  t.equal((register(0, 1) >>> 16) & 0xff, 2, "logical processors");
  t.equal(register(0, 2) >>> 31, 1, "a hypervisor is there");
  t.same(seen[1]?.slice(0, 3), [0, 1, 0x100], "one thread a core");
  t.same(seen[2]?.slice(0, 3), [1, 2, 0x201], "two cores");
  const hasBrand = hostCpuBrand() !== undefined;
  t.equal(register(3, 0) !== 0, hasBrand, "a brand string");
  t.equal(register(4, 1), 0x4b4d_564b, "KVMK");
  t.end();
});

t.test(
  "Vcpu.applyStart() starts with write-back memory types, fast strings and the PIC behind LINT0",
  { skip },
  (t) => {
    const code = new Assembler(CODE)
      .mov("ecx", 0x2ff)
      .rdmsr()
      .out(0x80, "eax")
      .mov("ecx", 0x1a0)
      .rdmsr()
      .out(0x80, "eax");
    code.mov("eax", mem32(0xfee0_0350)).out(0x80, "eax").mov("eax", mem32(0xfee0_0360)).out(0x80, "eax");
    const guest = new KvmGuest(code);
    t.teardown(() => guest.close());
    t.equal(guest.runToOut()[1], 0x806, "IA32_MTRR_DEF_TYPE");
    t.equal(guest.runToOut()[1] & 1, 1, "IA32_MISC_ENABLE");
    t.equal(guest.runToOut()[1], 0x700, "LVT0: ExtINT, not masked");
    t.equal(guest.runToOut()[1], 0x400, "LVT1: NMI, not masked");
    t.end();
  },
);

t.test("A second vCPU waits for INIT and SIPI and starts in real mode at the SIPI's page", { skip }, (t) => {
  const code = new Assembler(CODE);
  // INIT then SIPI to all but self, through the local APIC's interrupt command register. Intel SDM vol. 3 §9.4.4
  code.mov(mem32(0xfee0_00f0), 0x1ff).mov(mem32(0xfee0_0300), 0x000c_4500);
  code.mov(mem32(0xfee0_0300), 0x000c_4600 | (0xa000 >> 12)).out(0x80, "al");
  code.label("wait").cmp(mem8(0x10_0000), 0).j("e", "wait").out(0x81, "al");
  const second = new Assembler(0xa000, 16).mov("ax", 0x1234).out(0x90, "ax");
  second
    .mode(16)
    .lgdt(mem32(at("table")))
    .movFromControl("eax", 0)
    .or("eax", 1)
    .movToControl(0, "eax");
  second.jmpFar(8, at("protected")).mode(32).label("protected").mov("ax", 0x10).movToSegment("ds", "ax");
  second.mov(mem8(0x10_0000), 1).out(0x91, "al").label("table").dw(0x17).dd(0x800);
  const guest = new KvmGuest(code, { vcpus: 2 });
  guest.load(second);
  t.teardown(() => guest.close());
  t.equal(guest.runToOut(0)[0], 0x80, "the boot processor has sent both");
  t.same(guest.runToOut(1), [0x90, 0x1234], "16-bit code runs");
  t.equal(guest.runToOut(1)[0], 0x91, "the second vCPU reached protected mode");
  t.equal(guest.runToOut(0)[0], 0x81, "the boot processor saw its flag");
  t.end();
});

t.test("A triple fault is a shutdown exit", { skip }, (t) => {
  // No handler: the invalid opcode's gate is not present, and neither is the double fault's.
  const guest = new KvmGuest(new Assembler(CODE).ud2());
  t.teardown(() => guest.close());
  t.same(guest.run(), { kind: "shutdown" });
  t.equal(describeExit(guest.vcpu()), "triple fault (KVM_EXIT_SHUTDOWN)");
  t.end();
});

t.test("Vcpu.run() is interrupted when its thread is kicked while the guest spins", { skip }, (t) => {
  const guest = new KvmGuest(new Assembler(CODE).label("spin").pause().jmp("spin"));
  t.teardown(() => guest.close());
  t.throws(() => guest.run(0, 20), { message: /^The guest hangs at 8:9[0-9a-f]+, 32-bit code/ });
  t.throws(() => guest.run(0, 20), { message: /^The guest hangs/ }, "a kick does not spoil the next run");
  t.end();
});

t.test("Vcpu.run() is interrupted when its thread is kicked while the guest is halted", { skip }, (t) => {
  const guest = new KvmGuest(new Assembler(CODE).cli().hlt());
  t.teardown(() => guest.close());
  t.throws(() => guest.run(0, 20), { message: /^The guest hangs/ });
  t.end();
});

t.test("Vcpu.readRegisters() names registers and code size in every mode", { skip }, (t) => {
  const guest = new KvmGuest(new Assembler(CODE, 64).mov("r15", 0x1234_5678_9abc_def0n).out(0x80, "al"), { mode: 64 });
  t.teardown(() => guest.close());
  guest.runToOut();
  const { general, control, cs } = guest.vcpu().readRegisters();
  t.equal(general.r15, 0x1234_5678_9abc_def0n);
  t.equal(general.rsp, 0x8ff0n);
  t.equal(control.cr3, 0x2000n);
  t.equal(cs.bits, 64);
  t.match(guest.vcpu().describeRegisters(), /r15 123456789abcdef0/);
  t.end();
});

t.test("A 16-bit read of a word across two pages comes as parts that make up the word", { skip }, (t) => {
  const guest = new KvmGuest(new Assembler(CODE).mov("ax", mem16(0xd000_0fff)).out(0x80, "ax"));
  t.teardown(() => guest.close());
  let bytes = 0;
  for (;;) {
    const exit = guest.run();
    if (exit.kind === "portWrite") {
      t.same(exit.values, [0x2211]);
      break;
    }
    if (exit.kind !== "mmioRead") throw new Error(`unexpected ${exit.kind}`);
    guest.vcpu().setMmioData(exit.length === 2 ? 0x2211 : exit.address === 0xd000_0fff ? 0x11 : 0x22, 0);
    bytes += exit.length;
  }
  t.equal(bytes, 2);
  t.end();
});
