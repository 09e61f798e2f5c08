import t, { type Test } from "tap";
import { openPassthrough } from "../../../src/vfio/open.ts";
import { FakePassthroughHost } from "../../support/fake-passthrough-host.ts";
import { fakeSysfs } from "../../support/fake-sysfs.ts";
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

function setUp(t: Test, { resetMethod, flags, resetSet, pass = [CARD, SOUND] }: Case) {
  const sysfs = fakeSysfs(
    t.testdir(),
    [CARD, SOUND].map((one) => ({
      ...one,
      driver: "vfio-pci",
      ...(resetMethod === undefined ? {} : { resetMethod }),
    })),
  );
  const device = ({ bdf, group }: typeof CARD): KernelDevice => ({
    ...{ bdf, group, flags },
    regions: [{ size: 0x1000, flags: 3 }, ...new Array(6).fill({ size: 0, flags: 0 }), { size: 256, flags: 3 }],
    irqs: [[1, 7], [0, 9], [0, 9], undefined, [1, 9]],
    ...(resetSet === undefined ? {} : { resetSet }),
  });
  const kernel = new FakeVfioKernel([device(CARD), device(SOUND)]);
  const host = new FakePassthroughHost();
  const open = () =>
    openPassthrough({
      libc: kernel,
      devices: pass.map(({ bdf }) => ({ path: sysfs.path(bdf), bars: "map" as const, excludedMmapBars: [] })),
      files: { addFile: () => undefined, removeFile: () => undefined },
      host,
      onError: () => undefined,
      onRequest: () => undefined,
    });
  const resets = (): readonly string[] => kernel.log.filter((line) => line.startsWith("reset bus"));
  return { kernel, host, open, resets };
}

const WHOLE_CARD = [
  [CARD.bdf, CARD.group],
  [SOUND.bdf, SOUND.group],
] as const;

t.test(
  "openPassthrough() resets the bus of functions without a reset of their own, once for all of them",
  async (t) => {
    const { kernel, host, open, resets } = setUp(t, { flags: 2, resetSet: WHOLE_CARD });
    open();
    t.same(resets(), ["reset bus of 0000:01:00.0 with groups 7 8"]);
    t.ok(kernel.log.indexOf("reset bus of 0000:01:00.0 with groups 7 8") > kernel.log.indexOf("open 0000:01:00.1"));
    t.notOk(
      host.reports.some((line) => line.startsWith("warn")),
      "all is well",
    );
  },
);

t.test("openPassthrough() resets the bus of functions whose only reset is a trip through D3", async (t) => {
  const { open, resets } = setUp(t, { flags: 3, resetMethod: "pm", resetSet: WHOLE_CARD });
  open();
  t.equal(resets().length, 1);
});

for (const resetMethod of ["flr", "flr pm bus", "bus", undefined]) {
  t.test(`openPassthrough() leaves the bus alone where reset_method is '${resetMethod}'`, async (t) => {
    const { open, resets } = setUp(t, {
      flags: 3,
      resetSet: WHOLE_CARD,
      ...(resetMethod === undefined ? {} : { resetMethod }),
    });
    open();
    t.same(resets(), []);
  });
}

t.test("openPassthrough() resets no bus that has functions of others, and names them", async (t) => {
  const { host, open, resets } = setUp(t, { flags: 2, resetSet: WHOLE_CARD, pass: [CARD] });
  open();
  t.same(resets(), []);
  t.match(host.reports, [
    /^warn: 0000:01:00.0 cannot be reset: it has no reset of its own, and .* not this machine's: 0000:01:00.1 \(IOMMU group 8\)$/,
  ]);
});

t.test("openPassthrough() takes a function that it does not pass for its own when the group is", async (t) => {
  const { open, resets } = setUp(t, {
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

t.test("openPassthrough() goes on where neither function nor bus can be reset, or the kernel refuses", async (t) => {
  const onRootBus = setUp(t, { flags: 2 });
  onRootBus.open();
  t.match(onRootBus.host.reports, [/0000:01:00.0 .* its bus cannot be reset either/, /0000:01:00.1 /]);
  const refused = setUp(t, { flags: 2, resetSet: WHOLE_CARD });
  refused.kernel.failures.set(0x3b71, 22);
  t.equal(refused.open().functions.length, 2);
  t.match(
    refused.host.reports[0],
    /VFIO_DEVICE_PCI_HOT_RESET failed with EINVAL \(a function on its bus is bound to no/,
  );
});

t.test("OpenedPassthrough.close() resets the bus between the last use and the close of its functions", async (t) => {
  const { kernel, open } = setUp(t, { flags: 2, resetSet: WHOLE_CARD });
  const opened = open();
  kernel.log.length = 0;
  opened.close();
  t.same(kernel.log, [
    "reset bus of 0000:01:00.1 with groups 7 8",
    "close 0000:01:00.1",
    "close 0000:01:00.0",
    "unset container of group 7",
    "close group 7",
    "unset container of group 8",
    "close group 8",
    "close container",
  ]);
});

t.test("OpenedPassthrough.release() gives back one function with its group while the others go on", async (t) => {
  const { kernel, host, open } = setUp(t, { flags: 3 });
  const opened = open();
  const [card, sound] = opened.functions;
  kernel.log.length = 0;
  if (sound !== undefined) opened.release(sound);
  t.same(kernel.log, ["close 0000:01:00.1", "unset container of group 8", "close group 8"]);
  t.equal(host.watched.size, 1, "the other one's events are still watched");
  if (sound !== undefined) opened.release(sound);
  t.equal(kernel.log.length, 3, "once");
  if (card !== undefined) opened.release(card);
  opened.close();
  t.equal(kernel.log.at(-1), "close container");
  t.notOk(host.reports.some((line) => line.startsWith("warn")));
});
