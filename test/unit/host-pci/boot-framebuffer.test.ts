import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import type { HostCheck } from "../../../src/host-pci/check.ts";
import { FunctionFacts } from "../../../src/host-pci/functions.ts";
import { passthroughChecks } from "../../../src/host-pci/preflight.ts";
import { fakeSysfs } from "../../support/fake-sysfs.ts";

const IOMEM = [
  "00000000-00000fff : Reserved",
  "c0000000-dfffffff : PCI Bus 0000:00",
  "  c0000000-d1ffffff : PCI Bus 0000:01",
  "    c0000000-cfffffff : 0000:01:00.0",
  "      c0000000-c07e8fff : HOLDER",
  "    d0000000-d0ffffff : 0000:01:00.0",
];

/** The check of a graphics card's BARs on a host whose /proc/iomem has these lines. */
function barsCheck(t: Test, lines: readonly string[], driver = "vfio-pci"): HostCheck | undefined {
  const host = fakeSysfs(t.testdir(), [
    {
      bdf: "0000:01:00.0",
      class: "0x030000",
      driver,
      group: 7,
      resource: [
        "0x00000000d0000000 0x00000000d0ffffff 0x0000000000040200",
        "0x00000000c0000000 0x00000000cfffffff 0x000000000014220c",
      ],
    },
  ]);
  writeFileSync(join(host.proc, "iomem"), `${lines.join("\n")}\n`);
  const checks = passthroughChecks({
    paths: [host.path("0000:01:00.0")],
    facts: new FunctionFacts(),
    ramBytes: 0,
    memoryLock: { limitBytes: 0, isUnlimited: true },
    root: host,
  });
  return checks.find(({ topic }) => topic === "BARs of 0000:01:00.0");
}

const held = (name: string): readonly string[] => IOMEM.map((line) => line.replace("HOLDER", name));

t.test("passthroughChecks() names the boot framebuffer that holds a BAR, and how to free it", async (t) => {
  t.match(barsCheck(t, held("BOOTFB")), {
    state: "failed",
    found: "the host's boot framebuffer (BOOTFB in /proc/iomem) holds BAR 1",
    remedy: /initcall_blacklist=sysfb_init/,
    action: "pass 0000:01:00.0 through",
  });
  t.match(barsCheck(t, held("efifb")), {
    found: /efifb/,
    remedy: "echo efi-framebuffer.0 > /sys/bus/platform/drivers/efi-framebuffer/unbind, then tsvmm bind 0000:01:00.0",
  });
  t.match(barsCheck(t, held("simple-framebuffer.0")), { found: /\(simple-framebuffer in/ });
});

t.test("passthroughChecks() only warns of it before vfio-pci has the function: the bind may free it", async (t) => {
  t.equal(barsCheck(t, held("BOOTFB"), "amdgpu")?.state, "warning");
});

t.test("passthroughChecks() is content with other owners, other places, and addresses that are hidden", async (t) => {
  t.equal(barsCheck(t, held("vfio-pci")), undefined);
  const elsewhere = [...held("vfio-pci"), "e0000000-e07e8fff : BOOTFB"];
  t.equal(barsCheck(t, elsewhere), undefined);
  const hidden = held("BOOTFB").map((line) => line.replace(/[0-9a-f]{8}/g, "00000000"));
  t.equal(barsCheck(t, hidden), undefined);
});
