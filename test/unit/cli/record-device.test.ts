import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { recordFromSysfs } from "../../../src/cli/record-device.ts";
import { readFunction } from "../../../src/host-pci/functions.ts";
import { formatRecording, parseRecording } from "../../../src/passthrough/recording.ts";
import { fakeSysfs } from "../../support/fake-sysfs.ts";

/** A function whose configuration space has an MSI-X capability of 9 vectors in BAR 2 and an MSI one of 4. */
function configSpace(sizeBytes: number): Buffer {
  const config = Buffer.alloc(sizeBytes);
  config.writeUInt32LE(0x10d3_8086, 0);
  config[0x34] = 0x40;
  config[0x3d] = 1;
  config.set([0x11, 0x50, 8, 0, 2, 0, 0, 0], 0x40);
  config.set([0x05, 0x00, 2 << 1, 0], 0x50);
  return config;
}

t.test("recordFromSysfs() records sizes and guesses what vfio-pci would tell", async (t) => {
  const host = fakeSysfs(t.testdir(), [
    {
      bdf: "0000:01:00.0",
      resource: [
        "0x00000000c000 0x00000000c01f 0x40101",
        "0x0 0x0 0x0",
        "0x00000000fe000000 0x00000000fe003fff 0x40200",
        "0x00000000fe004000 0x00000000fe0040ff 0x40200",
      ],
    },
  ]);
  const path = host.path("0000:01:00.0");
  writeFileSync(join(path, "config"), configSpace(256));
  const pciFunction = readFunction(path);
  const recording = pciFunction === undefined ? undefined : recordFromSysfs(pciFunction);
  t.match(recording, {
    source: "sysfs",
    configSpaceBytes: 256,
    regions: [
      { index: 0, size: 0x20, flags: ["read", "write"], mmapAreas: [], msixMappable: false },
      { index: 2, size: 0x4000, mmapAreas: [{ offset: 0, size: 0x4000 }], msixMappable: true },
      { index: 3, size: 0x100, mmapAreas: [], msixMappable: false },
      { index: 7, size: 256 },
    ],
    interrupts: [
      { kind: "intx", count: 1 },
      { kind: "msi", count: 4 },
      { kind: "msix", count: 9 },
      { kind: "error", count: 1 },
      { kind: "request", count: 1 },
    ],
  });
  t.same(recording === undefined ? undefined : parseRecording(formatRecording(recording)), recording);
});

t.test(
  "recordFromSysfs() asks for root when it may read the first 64 bytes only, and survives a looped list",
  async (t) => {
    const host = fakeSysfs(t.testdir(), [{ bdf: "0000:01:00.0" }]);
    const path = host.path("0000:01:00.0");
    const record = (config: Buffer): unknown => {
      mkdirSync(path, { recursive: true });
      writeFileSync(join(path, "config"), config);
      const found = readFunction(path);
      return found === undefined ? undefined : recordFromSysfs(found);
    };
    t.throws(() => record(Buffer.alloc(64)), { message: /only 64 bytes .*\(run as root\)$/ });
    const looped = Buffer.alloc(256);
    looped[0x34] = 0x40;
    looped.set([0x01, 0x40], 0x40);
    t.match(record(looped), { configSpaceBytes: 256 });
  },
);
