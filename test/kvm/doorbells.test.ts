import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { mem16, mem32 } from "../../guests/assembler-encoding.ts";
import { gpa } from "../../src/base/units.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

const DOORBELL = 0xd000_0000;

t.test(
  "IoEventFds.register() calls back for a guest write without an exit, once a pass, until unregister()",
  { skip },
  (t) => {
    const code = new Assembler(CODE)
      .label("again")
      .mov(mem16(DOORBELL), 1)
      .mov(mem16(DOORBELL), 2)
      .out(0x80, "al")
      .jmp("again");
    const guest = new KvmGuest(code);
    t.teardown(() => guest.close());
    let rings = 0;
    const doorbell = guest.doorbells.register(gpa(DOORBELL), 2, () => rings++);
    t.equal(guest.runToOut()[0], 0x80, "no exit before the port write");
    t.equal(rings, 0, "not called before the event loop's pass");
    guest.loop.wait(1000);
    t.equal(rings, 1, "two writes, one call");
    t.equal(guest.runToOut()[0], 0x80);
    guest.loop.wait(1000);
    t.equal(rings, 2);
    doorbell.unregister();
    doorbell.unregister();
    t.same(guest.run(), { kind: "mmioWrite", address: DOORBELL, length: 2, low: 1, high: 0 }, "it traps now");
    t.end();
  },
);

t.test("IoEventFds tells doorbells apart by address and width; width 0 takes any", { skip }, (t) => {
  const code = new Assembler(CODE)
    .mov(mem32(DOORBELL), 1)
    .mov(mem16(DOORBELL + 4), 1)
    .mov(mem32(DOORBELL + 4), 1);
  code.mov(mem16(DOORBELL), 7).out(0x80, "al");
  const guest = new KvmGuest(code);
  t.teardown(() => guest.close());
  const rings: string[] = [];
  guest.doorbell(gpa(DOORBELL), 4, () => rings.push("four bytes"));
  guest.doorbell(gpa(DOORBELL + 4), 0, () => rings.push("any width"));
  t.same(guest.run(), { kind: "mmioWrite", address: DOORBELL, length: 2, low: 7, high: 0 }, "two bytes are not four");
  guest.loop.wait(1000);
  t.same(rings.sort(), ["any width", "four bytes"]);
  t.end();
});

t.test("IoEventFds.register() throws SyscallError where a doorbell is already", { skip }, (t) => {
  const guest = new KvmGuest(new Assembler(CODE).hlt());
  t.teardown(() => guest.close());
  guest.doorbell(gpa(DOORBELL), 2, () => {});
  t.throws(() => guest.doorbells.register(gpa(DOORBELL), 2, () => {}), {
    name: "SyscallError",
    message: /a doorbell at 0xd0000000: KVM_IOEVENTFD failed with EEXIST \(another doorbell is there\)/,
  });
  t.end();
});
