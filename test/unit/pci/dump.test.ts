import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { Bus } from "../../../src/base/bus.ts";
import { dumpConfigSpace, dumpRoot } from "../../../src/pci/dump.ts";
import { HostBridge } from "../../../src/pci/host-bridge.ts";
import { MsiCapability } from "../../../src/pci/msi.ts";
import { MsixCapability } from "../../../src/pci/msix.ts";
import { PciRoot } from "../../../src/pci/root.ts";
import { intxGsi } from "../../../src/vmm/shared/memory-map.ts";
import { FakeMsiRouter } from "../../support/fake-msi-router.ts";
import { FakePciFunction } from "../../support/fake-pci-function.ts";

const hasLspci = spawnSync("lspci", ["--version"]).status === 0;
const skip = hasLspci || process.env["CI"] === "true" ? false : "lspci is not installed (Debian: pciutils)";

/** A root with the host bridge and an NVMe-like function that has every kind of capability. */
function exampleRoot(): PciRoot {
  const root = new PciRoot({
    gsiOf: intxGsi,
    ports: new Bus("port"),
    mmio: new Bus("mmio"),
    windows: {
      ports: [{ base: 0x1000, sizeBytes: 0xf000 }],
      memory32: [{ base: 0xc000_0000, sizeBytes: 0x1000_0000 }],
      memory64: [{ base: 0x10_0000_0000, sizeBytes: 0x10_0000_0000 }],
    },
  });
  const nvme = new FakePciFunction("nvme", [
    { kind: "mem64", index: 0, sizeBytes: 0x8000, isPrefetchable: false },
    { kind: "io", index: 2, sizeBytes: 0x20 },
    { kind: "mem64", index: 4, sizeBytes: 0x4000_0000, isPrefetchable: true },
    { kind: "rom", index: 6, sizeBytes: 0x1_0000 },
  ]);
  const { config } = nvme;
  config.setIdentity({
    vendorId: 0x8086,
    deviceId: 0x0953,
    revision: 2,
    classCode: 0x010802,
    subsystemVendorId: 0x8086,
    subsystemId: 0x3702,
    interruptPin: 1,
  });
  const router = new FakeMsiRouter();
  config.addCapability(0x01, Uint8Array.of(0x03, 0x00, 0x08, 0x00, 0x00, 0x00)); // power management, version 3
  new MsiCapability({ config, router, vectorCount: 4 });
  const express = new Uint8Array(0x3a);
  express[0] = 0x92; // version 2, root complex integrated endpoint
  config.addCapability(0x10, express);
  new MsixCapability({
    config,
    router,
    vectorCount: 33,
    table: { bar: 0, offset: 0x4000 },
    pba: { bar: 0, offset: 0x5000 },
  });
  config.addExtendedCapability(0x01, 2, new Uint8Array(0x44));
  config.addExtendedCapability(0x03, 1, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  root.plug(new HostBridge(), 0);
  root.plug(nvme, 1);
  root.assignBars();
  root.configWrite(0, 1, 0, 0x04, 2, 0x0407);
  root.configWrite(0, 1, 0, 0x30, 1, 0x01);
  return root;
}

t.test("dumpConfigSpace() prints slot, ids and sixteen bytes a line", async (t) => {
  const { config } = new FakePciFunction("dev", [], 256);
  const lines = dumpConfigSpace("0000:00:02.0", config).split("\n");
  t.equal(lines[0], "0000:00:02.0 ff00: 1234:5678 (rev 01)");
  t.equal(lines[1], "00: 34 12 78 56 00 00 00 00 01 00 00 ff 00 00 00 00");
  t.equal(lines[16], "f0: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00");
  t.equal(lines.length, 18);
});

t.test("dumpRoot() is read by lspci without complaint", { skip }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "tsvmm-dump-"));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "root.txt");
  writeFileSync(file, dumpRoot(exampleRoot()));
  const lspci = spawnSync("lspci", ["-F", file, "-vvv", "-nn"], { encoding: "utf8" });
  t.equal(lspci.status, 0);
  // A host without kernel modules makes lspci say so; that is not about our dump.
  const complaints = lspci.stderr.split("\n").filter((line) => line !== "" && !line.includes("libkmod"));
  t.same(complaints, []);
  t.notMatch(lspci.stdout, /chain (looped|broken)|!!!|unknown header|Unknown header|<access denied>/);
  const text = lspci.stdout;
  t.match(text, /00:00\.0 Host bridge \[0600\]: .*\[8086:0d57\]/);
  t.match(text, /00:01\.0 Non-Volatile memory controller \[0108\]: .*\(prog-if 02 \[NVM Express\]\)/);
  t.match(text, /Control: I\/O\+ Mem\+ BusMaster\+ .* DisINTx\+/);
  t.match(text, /Region 0: Memory at c0010000 \(64-bit, non-prefetchable\)/);
  t.match(text, /Region 2: I\/O ports at 1000/);
  t.match(text, /Expansion ROM at c0000000/);
  t.match(text, /Region 4: Memory at 1000000000 \(64-bit, prefetchable\)/);
  t.match(text, /Capabilities: \[40\] Power Management version 3/);
  t.match(text, /Capabilities: \[48\] MSI: Enable- Count=1\/4 Maskable\+ 64bit\+/);
  t.match(text, /Express \(v2\) Root Complex Integrated Endpoint, MSI 00/);
  t.match(text, /MSI-X: Enable- Count=33 Masked-\s+Vector table: BAR=0 offset=00004000\s+PBA: BAR=0 offset=00005000/);
  t.match(text, /Capabilities: \[100 v2\] Advanced Error Reporting/);
  t.match(text, /Capabilities: \[148 v1\] Device Serial Number 08-07-06-05-04-03-02-01/);
});
