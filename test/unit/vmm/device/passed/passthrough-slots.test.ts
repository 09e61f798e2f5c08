import t from "tap";
import { PassthroughFunction } from "../../../../../src/passthrough/function.ts";
import { PciRoot } from "../../../../../src/pci/root.ts";
import { groupBySlot, plugPassthrough, type SlotWish } from "../../../../../src/vmm/device/passed/passthrough-slots.ts";
import { intxGsi } from "../../../../../src/vmm/shared/memory-map.ts";
import { FakeDeviceBackend } from "../../../../support/fake-device-backend.ts";
import { EDU, NVME } from "../../../../support/fake-devices.ts";
import { FakePassthroughHost } from "../../../../support/fake-passthrough-host.ts";

const wish = (bus: number, device: number, functionNumber: number, rest: Partial<SlotWish> = {}): SlotWish => ({
  host: { segment: 0, bus, device, function: functionNumber },
  isVirtual: false,
  slot: undefined,
  ...rest,
});
const one = (slot: number | undefined, index: number) => ({ slot, members: [{ index, functionNumber: 0 }] });

t.test("groupBySlot() keeps functions of one host slot together under their numbers, in whatever order", async (t) => {
  const groups = groupBySlot([wish(1, 0, 1), wish(2, 0, 0), wish(1, 0, 0), wish(1, 0, 4)]);
  t.same(groups, [
    {
      slot: undefined,
      members: [
        { index: 2, functionNumber: 0 },
        { index: 0, functionNumber: 1 },
        { index: 3, functionNumber: 4 },
      ],
    },
    one(undefined, 1),
  ]);
});

t.test("groupBySlot() gives a function whose function 0 is not passed the number 0", async (t) => {
  t.same(groupBySlot([wish(1, 0, 1)]), [one(undefined, 0)]);
  t.same(groupBySlot([wish(1, 0, 3), wish(1, 0, 2)]), [
    {
      slot: undefined,
      members: [
        { index: 1, functionNumber: 0 },
        { index: 0, functionNumber: 3 },
      ],
    },
  ]);
});

t.test("groupBySlot() tells slots of different buses and segments apart", async (t) => {
  const elsewhere: SlotWish = { ...wish(1, 0, 1), host: { segment: 1, bus: 1, device: 0, function: 1 } };
  t.same(
    groupBySlot([wish(1, 0, 0), wish(2, 0, 1), wish(1, 3, 1), elsewhere]),
    [0, 1, 2, 3].map((index) => one(undefined, index)),
  );
});

t.test(
  "groupBySlot() moves the whole slot with a wish for function 0, and takes out another that has its own",
  async (t) => {
    t.same(groupBySlot([wish(1, 0, 0, { slot: 7 }), wish(1, 0, 1)]), [
      {
        slot: 7,
        members: [
          { index: 0, functionNumber: 0 },
          { index: 1, functionNumber: 1 },
        ],
      },
    ]);
    t.same(groupBySlot([wish(1, 0, 0), wish(1, 0, 1, { slot: 9 })]), [one(undefined, 0), one(9, 1)]);
  },
);

t.test("groupBySlot() leaves virtual functions alone: each can be taken away without the others", async (t) => {
  const virtual = { isVirtual: true };
  t.same(groupBySlot([wish(1, 16, 0, virtual), wish(1, 16, 2, virtual)]), [one(undefined, 0), one(undefined, 1)]);
});

function rootOf(host: FakePassthroughHost): PciRoot {
  return new PciRoot({
    ports: host.ports,
    mmio: host.mmio,
    windows: { ports: [], memory32: [{ base: 0xc000_0000, sizeBytes: 0x1000_0000 }], memory64: [] },
    gsiOf: intxGsi,
    report: host.report,
  });
}

function makeFunction(host: FakePassthroughHost, device: typeof NVME): PassthroughFunction {
  const backend = new FakeDeviceBackend(device, host.log);
  return new PassthroughFunction(backend, { bars: "map", excludedMmapBars: [] }, host, {
    onError: () => undefined,
    onRequest: () => undefined,
  });
}

t.test("plugPassthrough() makes a multifunction device that a guest finds by its functions' numbers", async (t) => {
  const host = new FakePassthroughHost();
  const root = rootOf(host);
  plugPassthrough(root, makeFunction(host, NVME), 5, 0);
  plugPassthrough(root, makeFunction(host, { ...EDU, name: "0000:01:00.1" }), 5, 1);
  root.assignBars();
  t.equal(root.configRead(0, 5, 0, 0x0e, 1) & 0x80, 0x80, "function 0 says there are others");
  t.equal(root.configRead(0, 5, 0, 0, 4), 0x0010_1b36);
  t.equal(root.configRead(0, 5, 1, 0, 4), 0x11e8_1234);
  t.equal(root.configRead(0, 5, 2, 0, 4), 0xffff_ffff);
  t.same(host.reports, []);
});

for (const [pin, name] of [
  [1, "A"],
  [2, "B"],
  [3, "C"],
  [4, "D"],
] as const) {
  t.test(`plugPassthrough() routes pin INT${name} of any slot to the I/O APIC pin that the _PRT names`, async (t) => {
    const image = NVME.image.slice();
    image[0x3d] = pin;
    for (const slot of [1, 6, 31]) {
      const host = new FakePassthroughHost();
      const root = rootOf(host);
      plugPassthrough(root, makeFunction(host, { ...NVME, image }), slot, 0);
      const gsi = 16 + ((slot + pin - 1) % 8);
      t.ok(host.log.includes(`connect gsi ${gsi}`), `slot ${slot}`);
      t.equal(root.configRead(0, slot, 0, 0x3d, 1), pin);
      t.equal(root.configRead(0, slot, 0, 0x3c, 1), gsi, "the line register agrees");
    }
  });
}
