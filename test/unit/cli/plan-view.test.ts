import t from "tap";
import { styleFor } from "../../../src/cli/output.ts";
import { formatPlan } from "../../../src/cli/plan-view.ts";
import type { MachinePlan, PlanBar } from "../../../src/vmm/shared/plan.ts";

const plan = (bars: readonly PlanBar[], rest: Partial<MachinePlan> = {}): MachinePlan => ({
  cpuCount: 1,
  memoryBytes: 512 * 2 ** 20,
  kernel: "vmlinux",
  cmdline: "",
  memoryMap: [],
  ports: [],
  interrupts: [],
  functions: [{ bdf: "00:03.0", id: "card", title: "host 0000:01:00.0", interrupts: "MSI-X, 5 vectors", bars }],
  configDump: "",
  ...rest,
});

t.test("formatPlan() shows size and time of DMA mapping where functions are passed through", async (t) => {
  const text = formatPlan(plan([], { dma: { sizeBytes: 512 * 2 ** 20, ms: 42 } }), styleFor({}, {}));
  t.match(text, /^DMA +512M pinned and mapped in 42 ms$/m);
  t.notMatch(formatPlan(plan([]), styleFor({}, {})), /DMA/);
});

t.test("formatPlan() shows each area of each BAR, mapped or trapped and why, and vectors", async (t) => {
  const text = formatPlan(
    plan([
      {
        index: 0,
        kind: "mem64",
        sizeBytes: 0x4000,
        address: 0xc000_0000,
        parts: [
          { offset: 0, sizeBytes: 0x2000, way: "mapped" },
          { offset: 0x2000, sizeBytes: 0x2000, way: "trapped", reason: "MSI-X table" },
        ],
      },
      { index: 6, kind: "rom", sizeBytes: 0x800, parts: [] },
    ]),
    styleFor({}, {}),
  );
  t.equal(
    text.slice(text.indexOf("PCI functions")),
    `PCI functions
  00:03.0  host 0000:01:00.0 (card), interrupts: MSI-X, 5 vectors
    BAR 0  mem64 16K at 0xc0000000  +0x0000 8K mapped
                                    +0x2000 8K trapped: MSI-X table
    ROM    rom 2K
`,
  );
});
