import t from "tap";
import type { SourceFunction } from "../../../src/passthrough/backend.ts";
import { GroupSource } from "../../../src/vfio/group-source.ts";
import { FakeVfioKernel, type KernelDevice } from "../../support/fake-vfio-kernel.ts";

const functionOf = (bdf: string, group: number): SourceFunction => ({
  bdf,
  group,
  isNoIommuGroup: false,
  resetMethods: [],
});
const device = (bdf: string, group: number, flags = 3): KernelDevice => ({
  ...{ bdf, group, flags },
  regions: [...new Array(7).fill({ size: 0, flags: 0 }), { size: 256, flags: 3 }],
  irqs: [],
});
const FIRST = functionOf("0000:01:00.0", 7);
const SECOND = functionOf("0000:02:00.0", 9);
const quiet = (): void => undefined;

t.test("GroupSource.open() takes no function without an IOMMU behind it, and opens nothing for it", async (t) => {
  const kernel = new FakeVfioKernel([]);
  for (const wrong of [
    { ...FIRST, group: undefined },
    { ...FIRST, isNoIommuGroup: true },
  ]) {
    t.throws(() => GroupSource.open(kernel, [SECOND, wrong], quiet), {
      name: "HostError",
      message: "Cannot pass 0000:01:00.0 through: no IOMMU translates for it",
    });
  }
  t.same(kernel.log, []);
});

t.test(
  "GroupSource.open(function) takes the group of a function that comes later, and leaves it where that fails",
  async (t) => {
    const kernel = new FakeVfioKernel([device(FIRST.bdf, 7), device(SECOND.bdf, 9, 1)]);
    const source = GroupSource.open(kernel, [FIRST], quiet);
    kernel.log.length = 0;
    t.throws(() => source.open(SECOND), /0000:02:00.0: it is not a PCI device/);
    t.same(kernel.log, [
      "open /dev/vfio/9",
      "set container of group 9",
      "open 0000:02:00.0",
      "close 0000:02:00.0",
      "unset container of group 9",
      "close group 9",
    ]);
    t.equal(source.open(FIRST).name, FIRST.bdf, "the source is as it was");
  },
);

t.test("GroupSource.release() closes the device, and gives a group back with its last one", async (t) => {
  const kernel = new FakeVfioKernel([device(FIRST.bdf, 7), device("0000:01:00.1", 7)]);
  const sibling = functionOf("0000:01:00.1", 7);
  const source = GroupSource.open(kernel, [FIRST, sibling], quiet);
  const [one, other] = [source.open(FIRST), source.open(sibling)];
  kernel.log.length = 0;
  source.release(one);
  source.release(one);
  t.same(kernel.log, ["close 0000:01:00.0"]);
  source.release(other);
  t.same(kernel.log.slice(1), ["close 0000:01:00.1", "unset container of group 7", "close group 7"]);
  source.close();
  source.close();
  t.same(kernel.log.slice(4), ["close container"]);
});
