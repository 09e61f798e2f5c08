import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { at, mem8, mem16, mem32, mem64 } from "../../guests/assembler-encoding.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

/** Nothing is there: not RAM, not an interrupt controller. */
const DEVICE = 0xd000_0000;

t.test("Vcpu decodes MMIO writes of 1, 2, 4 and 8 bytes and zeroes what lies beyond the length", { skip }, (t) => {
  const code = new Assembler(CODE, 64).mov("rsi", BigInt(DEVICE)).mov("rax", 0x1122_3344_5566_7788n);
  code.mov(mem64("rsi"), "rax").mov(mem8("rsi", 1), "al").mov(mem16("rsi", 2), "ax").mov(mem32("rsi", 4), "eax");
  const guest = new KvmGuest(code, { mode: 64 });
  t.teardown(() => guest.close());
  const write = (address: number, length: number, low: number, high: number) => ({
    ...{ kind: "mmioWrite", address, length, low, high },
  });
  t.same(guest.run(), write(0xd000_0000, 8, 0x5566_7788, 0x1122_3344));
  t.same(guest.run(), write(0xd000_0001, 1, 0x88, 0));
  t.same(guest.run(), write(0xd000_0002, 2, 0x7788, 0));
  t.same(guest.run(), write(0xd000_0004, 4, 0x5566_7788, 0));
  t.end();
});

t.test("Vcpu.setMmioData() answers MMIO reads of 1, 2, 4 and 8 bytes", { skip }, (t) => {
  const code = new Assembler(CODE, 64).mov("rsi", BigInt(DEVICE));
  code.mov("rax", mem64("rsi")).mov(mem64(at("result")), "rax");
  for (const [index, source] of [mem8("rsi", 1), mem16("rsi", 2), mem32("rsi", 4)].entries()) {
    const register = source.bits === 8 ? "al" : source.bits === 16 ? "ax" : "eax";
    code
      .mov("rax", -1)
      .mov(register, source)
      .mov(mem64(at("result", 8 + 8 * index)), "rax");
  }
  code.out(0x80, "al").label("result").dq(0, 0, 0, 0);
  const guest = new KvmGuest(code, { mode: 64 });
  t.teardown(() => guest.close());
  for (const [address, length] of [
    [0xd000_0000, 8],
    [0xd000_0001, 1],
    [0xd000_0002, 2],
    [0xd000_0004, 4],
  ]) {
    t.same(guest.run(), { kind: "mmioRead", address, length });
    guest.vcpu().setMmioData(0xaabb_ccdd, 0x0102_0304);
  }
  t.equal(guest.runToOut()[0], 0x80);
  const result = (index: number): bigint => guest.memory.getBigUint64(code.addressOf("result") + 8 * index, true);
  t.equal(result(0), 0x0102_0304_aabb_ccddn);
  t.equal(result(1), 0xffff_ffff_ffff_ffddn);
  t.equal(result(2), 0xffff_ffff_ffff_ccddn);
  t.equal(result(3), 0xaabb_ccddn, "a 32-bit load clears the upper half");
  t.end();
});

t.test("Vcpu.mmioAddress is exact above 4 GiB", { skip }, (t) => {
  // The second gigabyte of the harness's page tables is bent to guest-physical 0x12_4000_0000 by the guest itself.
  const code = new Assembler(CODE, 64).mov(mem32(0x5000), 0x4000_0083).mov(mem32(0x5004), 0x12);
  code.movFromControl("rax", 3).movToControl(3, "rax").mov(mem32(0x4000_0010), 7);
  const guest = new KvmGuest(code, { mode: 64 });
  t.teardown(() => guest.close());
  t.same(guest.run(), { kind: "mmioWrite", address: 0x12_4000_0010, length: 4, low: 7, high: 0 });
  t.end();
});

t.test("Vcpu.immediateExit completes a pending read before it interrupts", { skip }, (t) => {
  const code = new Assembler(CODE).mov("eax", mem32(DEVICE)).mov(mem32(0x10_0000), "eax").out(0x80, "al");
  const guest = new KvmGuest(code);
  t.teardown(() => guest.close());
  t.same(guest.run(), { kind: "mmioRead", address: 0xd000_0000, length: 4 });
  const vcpu = guest.vcpu();
  vcpu.setMmioData(0x1234_5678, 0);
  vcpu.immediateExit = true;
  t.equal(vcpu.run(), "interrupted");
  t.equal(vcpu.readRegisters().general.rax, 0x1234_5678n, "the load is done");
  t.equal(guest.memory.getUint32(0x10_0000, true), 0, "the next instruction is not");
  vcpu.immediateExit = false;
  t.same(guest.runToOut(), [0x80, 0x78]);
  t.end();
});
