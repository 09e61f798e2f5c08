import t from "tap";
import type { DeviceBackend } from "../../../src/passthrough/backend.ts";
import { GroupSource } from "../../../src/vfio/group-source.ts";
import { FakeVfioKernel, type KernelDevice } from "../../support/fake-vfio-kernel.ts";

/** A graphics card and its sound on one bus, in one group each; another function of the host may share the bus. */
const CARD = { bdf: "0000:01:00.0", group: 7 };
const SOUND = { bdf: "0000:01:00.1", group: 8 };

interface Case {
  /** sysfs `reset_method` of both. */
  readonly resetMethod?: string;
  /** 3: PCI, with a reset of its own; 2: without. */
  readonly flags: number;
  readonly resetSet?: readonly (readonly [bdf: string, group: number])[];
  readonly pass?: readonly { readonly bdf: string; readonly group: number }[];
}

function setUp({ resetMethod, flags, resetSet, pass = [CARD, SOUND] }: Case) {
  const device = ({ bdf, group }: typeof CARD): KernelDevice => ({
    ...{ bdf, group, flags },
    regions: [{ size: 0x1000, flags: 3 }, ...new Array(6).fill({ size: 0, flags: 0 }), { size: 256, flags: 3 }],
    irqs: [[1, 7], [0, 9], [0, 9], undefined, [1, 9]],
    ...(resetSet === undefined ? {} : { resetSet }),
  });
  const kernel = new FakeVfioKernel([device(CARD), device(SOUND)]);
  const reports: string[] = [];
  const functions = pass.map((one) => ({
    ...one,
    isNoIommuGroup: false,
    resetMethods: resetMethod?.split(" ") ?? [],
  }));
  const open = (): readonly DeviceBackend[] => {
    const source = GroupSource.open(kernel, functions, (level, text) => reports.push(`${level}: ${text}`));
    const devices = functions.map((one) => source.open(one));
    source.resetBuses("warn");
    return devices;
  };
  const resets = (): readonly string[] => kernel.log.filter((line) => line.startsWith("reset bus"));
  return { kernel, reports, open, resets };
}

const WHOLE_CARD = [
  [CARD.bdf, CARD.group],
  [SOUND.bdf, SOUND.group],
] as const;

t.test(
  "GroupSource.resetBuses() resets the bus of functions without a reset of their own, once for all of them",
  async (t) => {
    const { kernel, reports, open, resets } = setUp({ flags: 2, resetSet: WHOLE_CARD });
    open();
    t.same(resets(), ["reset bus of 0000:01:00.0 with groups 7 8"]);
    t.ok(kernel.log.indexOf("reset bus of 0000:01:00.0 with groups 7 8") > kernel.log.indexOf("open 0000:01:00.1"));
    t.notOk(
      reports.some((line) => line.startsWith("warn")),
      "all is well",
    );
  },
);

for (const resetMethod of ["pm", "pm bus"]) {
  t.test(`GroupSource.resetBuses() resets the bus where the kernel would take '${resetMethod}'`, async (t) => {
    const { open, resets, reports } = setUp({ flags: 3, resetMethod, resetSet: WHOLE_CARD });
    open();
    t.same(resets(), ["reset bus of 0000:01:00.0 with groups 7 8"]);
    t.notOk(reports.some((line) => line.startsWith("warn")));
    const shared = setUp({ flags: 3, resetMethod, resetSet: WHOLE_CARD, pass: [CARD] });
    shared.open();
    t.same(shared.resets(), []);
    t.match(shared.reports, [
      /^warn: 0000:01:00.0 is reset by a trip through D3 only, .* not this machine's: 0000:01:00.1 \(IOMMU group 8\)$/,
    ]);
  });
}

for (const resetMethod of ["flr", "flr pm bus", "af_flr pm", "device_specific pm", "bus", undefined]) {
  t.test(`GroupSource.resetBuses() leaves the bus alone where reset_method is '${resetMethod}'`, async (t) => {
    const { open, resets } = setUp({
      flags: 3,
      resetSet: WHOLE_CARD,
      ...(resetMethod === undefined ? {} : { resetMethod }),
    });
    open();
    t.same(resets(), []);
  });
}

t.test("GroupSource.resetBuses() resets no bus that has functions of others, and names them", async (t) => {
  const { reports, open, resets } = setUp({ flags: 2, resetSet: WHOLE_CARD, pass: [CARD] });
  open();
  t.same(resets(), []);
  t.match(reports, [
    /^warn: 0000:01:00.0 cannot be reset: it has no reset of its own, and .* not this machine's: 0000:01:00.1 \(IOMMU group 8\)$/,
  ]);
});

t.test("GroupSource.resetBuses() takes a function that it does not pass for its own when the group is", async (t) => {
  const { open, resets } = setUp({
    flags: 2,
    resetSet: [
      [CARD.bdf, CARD.group],
      ["0000:01:00.2", CARD.group],
    ],
    pass: [CARD],
  });
  open();
  t.same(resets(), ["reset bus of 0000:01:00.0 with groups 7"]);
});

t.test(
  "GroupSource.resetBuses() goes on where neither function nor bus can be reset, or the kernel refuses",
  async (t) => {
    const onRootBus = setUp({ flags: 2 });
    onRootBus.open();
    t.match(onRootBus.reports, [/0000:01:00.0 .* its bus cannot be reset either/, /0000:01:00.1 /]);
    const refused = setUp({ flags: 2, resetSet: WHOLE_CARD });
    refused.kernel.failures.set(0x3b71, 22);
    t.equal(refused.open().length, 2);
    t.match(refused.reports[0], /VFIO_DEVICE_PCI_HOT_RESET failed with EINVAL \(a function on its bus is bound to no/);
  },
);
