import t from "tap";
import { plugAll, type SlotRequest } from "../../../../src/vmm/device/placement.ts";

/** What was plugged where, in order. */
function placed(requests: readonly { readonly name: string; readonly slot?: number }[]): readonly string[] {
  const seen: string[] = [];
  plugAll(
    requests.map(({ name, ...rest }): SlotRequest => {
      return { ...rest, part: "disks", plug: (slot) => void seen.push(`${name} ${slot}`) };
    }),
  );
  return seen;
}

t.test("plugAll() gives wished slots first, then the lowest free ones in order", async (t) => {
  const names = ["a", "b", "c"].map((name) => ({ name }));
  t.same(placed(names), ["a 1", "b 2", "c 3"]);
  t.same(placed([...names, { name: "x", slot: 2 }]), ["x 2", "a 1", "b 3", "c 4"]);
});

t.test("plugAll() keeps a slot for what plugs nothing", async (t) => {
  const seen: number[] = [];
  const empty = { part: "userDevices", plug: () => undefined };
  plugAll([empty, { part: "userDevices", plug: (slot) => void seen.push(slot) }]);
  t.same(seen, [2]);
});

t.test("plugAll() names the part of the specification that finds no slot", async (t) => {
  const many = Array.from({ length: 32 }, (_, index) => ({ name: String(index) }));
  t.equal(placed(many.slice(1)).length, 31);
  t.throws(() => placed(many), {
    name: "SpecError",
    path: "disks",
    message: "disks: bus 0 has 31 slots for devices, and all are taken",
  });
});
