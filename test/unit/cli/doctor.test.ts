import t from "tap";
import { SpecError } from "../../../src/base/errors.ts";
import { doctor } from "../../../src/cli/doctor.ts";
import type { HostCheck } from "../../../src/host-pci/check.ts";
import type { HostDemands } from "../../../src/vmm/control/host-checks.ts";
import { fakeSurroundings } from "../../support/fake-surroundings.ts";

const GOOD: HostCheck = { topic: "IOMMU", state: "good", found: "on", why: "it guards", action: "start" };
const FAILED: HostCheck = {
  topic: "driver of 0000:01:00.0",
  state: "failed",
  code: "TSVMM_DRIVER_NOT_VFIO",
  found: "driver nvme has it, not vfio-pci",
  why: "only vfio-pci lets a program have a device",
  remedy: "tsvmm bind 0000:01:00.0",
  action: "pass 0000:01:00.0 through",
};
const FUNCTIONS = [{ bdf: "0000:01:00.0", driver: "nvme", group: 7 }];

t.test(
  "doctor() shows state, finding, reason and remedy of each check, and exits with 1 when one failed",
  async (t) => {
    const around = fakeSurroundings(t, FUNCTIONS);
    t.equal(await doctor(["01:00.0"], around, () => [GOOD, FAILED]), 1);
    const [first, second, third, fourth] = around.printed().split("\n");
    t.match(first, /^ok {4}IOMMU +on \(it guards\)$/);
    t.match(second, /^FAIL {2}driver of 0000:01:00.0 +driver nvme has it, not vfio-pci/);
    t.match(`${third}${fourth}`, /→ tsvmm bind 0000:01:00.0/);
    t.match(around.printed(), /with 0000:01:00.0 and 512M of memory would not start: 1 of 3 checks failed\n$/);
  },
);

t.test("doctor() exits with 0 when nothing failed, warnings or not", async (t) => {
  const around = fakeSurroundings(t, FUNCTIONS);
  const warning: HostCheck = { ...FAILED, state: "warning" };
  t.equal(await doctor([], around, () => [GOOD, warning, { ...GOOD, state: "unknown" }]), 0);
  t.match(around.printed(), /without passed-through functions and 512M of memory would start\n$/);
});

t.test("doctor() hands on the functions and the memory it is asked about", async (t) => {
  const around = fakeSurroundings(t, FUNCTIONS);
  const asked: HostDemands[] = [];
  const check = (demands: HostDemands): readonly HostCheck[] => {
    asked.push(demands);
    return [GOOD];
  };
  await doctor(["0000:01:00.0", "--memory", "size=1G,hugepages=on", "--json"], around, check);
  t.match(asked, [{ memory: { sizeBytes: 2 ** 30, hugepages: true }, devices: [/0000:01:00\.0$/] }]);
  t.match(JSON.parse(around.printed()), { wouldStart: true, checks: [GOOD, { topic: "terminal" }] });
});

t.test("doctor() keeps to the terminal's width", async (t) => {
  const around = fakeSurroundings(t, FUNCTIONS, 60);
  await doctor([], around, () => [GOOD, FAILED]);
  t.same(
    around
      .printed()
      .split("\n")
      .slice(0, -2)
      .filter((line) => line.length > 60 && !line.startsWith("A machine")),
    [],
  );
});

t.test("doctor() refuses wrong words", async (t) => {
  const around = fakeSurroundings(t, FUNCTIONS);
  const never = (): readonly HostCheck[] => t.fail("asked") as never; // cast: fail() ends nothing, but is seen
  for (const argv of [["09:00.0"], ["--memory", "12"], ["--memory", "lots"], ["--memory"], ["--all"], [""]]) {
    await t.rejects(doctor(argv, around, never), SpecError, argv.join(" "));
  }
});

t.test("doctor() examines the real host by default", async (t) => {
  const around = fakeSurroundings(t, []);
  const status = await doctor(["--json"], around);
  // cast: as doctor() prints
  const { wouldStart, checks } = JSON.parse(around.printed()) as { wouldStart: boolean; checks: HostCheck[] };
  t.equal(status, wouldStart ? 0 : 1);
  t.ok(checks.some(({ topic }) => topic === "/dev/kvm"));
  t.ok(checks.some(({ topic }) => topic === "memory lock limit"));
});
