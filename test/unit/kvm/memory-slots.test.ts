import t from "tap";
import { gpa, hva } from "../../../src/base/units.ts";
import { MemorySlots } from "../../../src/kvm/memory-slots.ts";

function setUp(limit: number) {
  const calls: (readonly [slot: number, address: number, host: number, sizeBytes: number, isReadOnly: boolean])[] = [];
  let refusal: Error | undefined;
  const slots = new MemorySlots(
    {
      setMemoryRegion: (...call) => {
        if (refusal !== undefined) throw refusal;
        calls.push(call);
      },
    },
    limit,
  );
  return { slots, calls, refuse: (error: Error | undefined) => (refusal = error) };
}

t.test("MemorySlots hands out the lowest free number and reuses it after unmap()", (t) => {
  const { slots, calls } = setUp(10);
  const map = (address: number) => slots.mapSlot(`at ${address}`, gpa(address), hva(0x7000_0000), 0x1000, false);
  map(0x1000);
  const second = map(0x2000);
  map(0x3000);
  second.unmap();
  second.unmap();
  map(0x4000);
  t.same(
    calls.map(([slot, address, , sizeBytes]) => [slot, address, sizeBytes]),
    [
      [0, 0x1000, 0x1000],
      [1, 0x2000, 0x1000],
      [2, 0x3000, 0x1000],
      [1, 0x2000, 0],
      [1, 0x4000, 0x1000],
    ],
  );
  t.end();
});

t.test("MemorySlots.mapSlot() throws HostError with advice when KVM's slots are all taken", (t) => {
  const { slots } = setUp(1);
  slots.mapSlot("RAM", gpa(0), hva(0x7000_0000), 0x1000, false);
  t.throws(() => slots.mapSlot("BAR 0", gpa(0xc000_0000), hva(0x7000_0000), 0x1000, true), {
    name: "HostError",
    message: /^Cannot map BAR 0 at 0xc0000000: all 1 memory slots of the host's KVM are taken \(/,
  });
  t.end();
});

t.test("MemorySlots forgets a slot that KVM refused", (t) => {
  const { slots, refuse } = setUp(1);
  refuse(new Error("no"));
  t.throws(() => slots.mapSlot("RAM", gpa(0), hva(0x7000_0000), 0x1000, false));
  refuse(undefined);
  slots.mapSlot("RAM", gpa(0), hva(0x7000_0000), 0x1000, false);
  t.same(slots.slots, [{ slot: 0, name: "RAM", address: 0, sizeBytes: 0x1000, isReadOnly: false }]);
  t.end();
});
