import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { at } from "../../guests/assembler-encoding.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

t.test("Vcpu decodes port writes of all widths, immediate and through DX", { skip }, (t) => {
  const code = new Assembler(CODE).mov("eax", 0x1122_3344);
  code.out(0x10, "al").out(0x11, "ax").out(0x12, "eax");
  code.mov("edx", 0xcf8).out("dx", "al").out("dx", "ax").out("dx", "eax");
  const guest = new KvmGuest(code);
  t.teardown(() => guest.close());
  const write = (port: number, width: number, value: number) => ({ kind: "portWrite", port, width, values: [value] });
  t.same(guest.run(), write(0x10, 1, 0x44));
  t.same(guest.run(), write(0x11, 2, 0x3344));
  t.same(guest.run(), write(0x12, 4, 0x1122_3344));
  t.same(guest.run(), write(0xcf8, 1, 0x44));
  t.same(guest.run(), write(0xcf8, 2, 0x3344));
  t.same(guest.run(), write(0xcf8, 4, 0x1122_3344));
  t.end();
});

t.test("Vcpu.setIoData() answers port reads of all widths and leaves the rest of EAX alone", { skip }, (t) => {
  const code = new Assembler(CODE).mov("eax", 0x1122_3344).mov("edx", 0x1000);
  code.in("al", "dx").out(0x80, "eax").in("ax", 0x60).out(0x80, "eax").in("eax", "dx").out(0x80, "eax");
  const guest = new KvmGuest(code);
  t.teardown(() => guest.close());
  const answer = (port: number, width: number, value: number): void => {
    t.same(guest.run(), { kind: "portRead", port, width, count: 1 });
    guest.vcpu().setIoData(0, value);
  };
  answer(0x1000, 1, 0xaa);
  t.same(guest.runToOut(), [0x80, 0x1122_33aa]);
  answer(0x60, 2, 0xbbcc);
  t.same(guest.runToOut(), [0x80, 0x1122_bbcc]);
  answer(0x1000, 4, 0xdead_beef);
  t.same(guest.runToOut(), [0x80, 0xdead_beef]);
  t.end();
});

t.test("Vcpu gives every element of string port writes, however KVM cuts them into exits", { skip }, (t) => {
  const code = new Assembler(CODE).cld().mov("edx", 0x3f8);
  code.mov("esi", at("data")).mov("ecx", 5).rep().outs(8);
  code.mov("esi", at("data")).mov("ecx", 2).rep().outs(16);
  code.mov("esi", at("data")).mov("ecx", 1).rep().outs(32);
  code.out(0x80, "al").label("data").ascii("Hello, world");
  const guest = new KvmGuest(code);
  t.teardown(() => guest.close());
  const written: number[][] = [];
  for (;;) {
    const exit = guest.run();
    if (exit.kind !== "portWrite") throw new Error(`unexpected ${exit.kind}`);
    if (exit.port === 0x80) break;
    for (const value of exit.values) written.push([exit.width, value]);
  }
  t.same(written, [
    ...[0x48, 0x65, 0x6c, 0x6c, 0x6f].map((value) => [1, value]),
    [2, 0x6548],
    [2, 0x6c6c],
    [4, 0x6c6c_6548],
  ]);
  t.end();
});

t.test("Vcpu.setIoData() answers every element of string port reads", { skip }, (t) => {
  const code = new Assembler(CODE).cld().mov("edx", 0x1f0);
  code.mov("edi", 0x10_0000).mov("ecx", 3).rep().ins(8);
  code.mov("edi", 0x10_0010).mov("ecx", 3).rep().ins(16);
  code.mov("edi", 0x10_0020).mov("ecx", 3).rep().ins(32);
  code.out(0x80, "al");
  const guest = new KvmGuest(code);
  t.teardown(() => guest.close());
  let next = 0;
  for (;;) {
    const exit = guest.run();
    if (exit.kind === "portWrite") break;
    if (exit.kind !== "portRead") throw new Error(`unexpected ${exit.kind}`);
    for (let index = 0; index < exit.count; index++) guest.vcpu().setIoData(index, 0x1010_1010 + next++);
  }
  t.equal(next, 9, "nine elements");
  t.same(
    [0, 1, 2].map((i) => guest.memory.getUint8(0x10_0000 + i)),
    [0x10, 0x11, 0x12],
  );
  t.same(
    [0, 2, 4].map((i) => guest.memory.getUint16(0x10_0010 + i, true)),
    [0x1013, 0x1014, 0x1015],
  );
  t.same(
    [0, 4, 8].map((i) => guest.memory.getUint32(0x10_0020 + i, true)),
    [0x1010_1016, 0x1010_1017, 0x1010_1018],
  );
  t.end();
});
