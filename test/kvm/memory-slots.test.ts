import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { mem32 } from "../../guests/assembler-encoding.ts";
import { gpa, hva } from "../../src/base/units.ts";
import { HostMapping } from "../../src/host/memory/mapping.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

const ADDRESS = 0xd000_0000;

t.test("MemorySlots.mapSlot() lets the guest reach host memory without an exit until unmap()", { skip }, (t) => {
  const code = new Assembler(CODE).label("again").inc(mem32(ADDRESS)).out(0x80, "al").jmp("again");
  const guest = new KvmGuest(code);
  const host = HostMapping.anonymous("pretended BAR", 0x1000);
  t.teardown(() => {
    guest.close();
    host.unmap();
  });
  const memory = new DataView(host.view());
  memory.setUint32(0, 41, true);
  const mapping = guest.slots.mapSlot("bar", gpa(ADDRESS), hva(host.address), 0x1000, false);
  t.equal(guest.runToOut()[0], 0x80, "no exit before the port write");
  t.equal(memory.getUint32(0, true), 42);
  t.same(
    guest.slots.slots.map(({ slot, name }) => [slot, name]),
    [
      [0, "RAM"],
      [1, "bar"],
    ],
  );
  mapping.unmap();
  mapping.unmap();
  t.same(guest.run(), { kind: "mmioRead", address: ADDRESS, length: 4 }, "it traps now");
  guest.vcpu().setMmioData(1, 0);
  t.same(guest.run(), { kind: "mmioWrite", address: ADDRESS, length: 4, low: 2, high: 0 });
  t.equal(memory.getUint32(0, true), 42, "the memory is out of reach");
  t.equal(guest.runToOut()[0], 0x80);
  guest.slots.mapSlot("bar again", gpa(ADDRESS), hva(host.address), 0x1000, false);
  t.equal(guest.runToOut()[0], 0x80);
  t.equal(memory.getUint32(0, true), 43);
  t.end();
});

t.test("MemorySlots.mapSlot() makes writes to a read-only slot trap and reads not", { skip }, (t) => {
  const code = new Assembler(CODE).mov("eax", mem32(ADDRESS)).out(0x80, "eax").mov(mem32(ADDRESS), 5);
  const guest = new KvmGuest(code);
  const host = HostMapping.anonymous("pretended ROM", 0x1000);
  t.teardown(() => {
    guest.close();
    host.unmap();
  });
  new DataView(host.view()).setUint32(0, 0xaa55, true);
  guest.slots.mapSlot("rom", gpa(ADDRESS), hva(host.address), 0x1000, true);
  t.same(guest.runToOut(), [0x80, 0xaa55]);
  t.same(guest.run(), { kind: "mmioWrite", address: ADDRESS, length: 4, low: 5, high: 0 });
  t.end();
});

t.test("MemorySlots.mapSlot() throws SyscallError with advice when slots overlap", { skip }, (t) => {
  const guest = new KvmGuest(new Assembler(CODE).hlt());
  t.teardown(() => guest.close());
  t.throws(() => guest.slots.mapSlot("second RAM", gpa(0x1000), hva(guest.ram.address), 0x1000, false), {
    name: "SyscallError",
    message: /slot 1 at 0x1000\+0x1000: KVM_SET_USER_MEMORY_REGION failed with EEXIST \(another slot overlaps it\)/,
  });
  t.equal(guest.slots.slots.length, 1, "the number is free again");
  t.end();
});
