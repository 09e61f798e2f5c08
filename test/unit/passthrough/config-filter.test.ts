import t from "tap";
import { EXTENDED_RULES } from "../../../src/passthrough/capability-table.ts";
import { type DeviceRecording, hexLines } from "../../../src/passthrough/recording.ts";
import { PassthroughBench } from "../../support/fake-passthrough-host.ts";
import { expressCapability, msixCapability, pciImage, pmCapability, u32 } from "../../support/pci-image.ts";
import { recordedDevice, recordedDeviceNames } from "../../support/recorded-devices.ts";
import { ReplayBackend } from "../../support/replay-backend.ts";

/**
 * Capabilities that a guest may not have, by the ids of PCI Code and ID Assignment 1.11 §3. The length holds where all
 * registers are ones and the next capability is 32 bytes away: `pci_ext_cap_length` of Linux'
 * drivers/vfio/pci/vfio_pci_config.c, else the specification's.
 */
const KEPT_BACK: readonly (readonly [id: number, name: string, sizeBytes: number])[] = [
  [0x01, "AER", 32],
  [0x02, "VC", 32],
  [0x09, "VC with MFVC", 32],
  [0x08, "MFVC", 32],
  [0x0d, "ACS", 32],
  [0x0e, "ARI", 8],
  [0x0f, "ATS", 8],
  [0x10, "SR-IOV", 32],
  [0x11, "MR-IOV", 32],
  [0x13, "PRI", 16],
  [0x15, "ReBAR", 32],
  [0x17, "TPH", 12],
  [0x18, "LTR", 8],
  [0x19, "secondary PCI Express", 32],
  [0x1b, "PASID", 8],
  [0x1d, "DPC", 32],
  [0x1e, "L1SS", 20],
  [0x1f, "PTM", 12],
  [0x24, "VF ReBAR", 32],
  [0x25, "data link features", 12],
  [0x26, "16 GT/s physical layer", 32],
  [0x2e, "DOE", 24],
  [0x3f, "an unknown one", 32],
];

/**
 * A device whose extended space is `ids`, 32 bytes each, all registers ones, between two serial numbers that a guest
 * may have.
 */
function madeUp(ids: readonly number[]): DeviceRecording {
  const body = u32(...new Array<number>(7).fill(0xffff_ffff));
  const image = pciImage({
    vendorId: 0x1234,
    deviceId: 0x4321,
    classCode: 0x02_0000,
    barFlags: [0],
    interruptPin: 1,
    capabilities: [expressCapability(0x60), msixCapability(0xb0, 4, 0x800, 0xc00), pmCapability(0x40)],
    extended: [
      { id: 0x03, at: 0x100, body: u32(1, 2) },
      ...ids.map((id, index) => ({ id, at: 0x120 + 0x20 * index, body })),
      { id: 0x03, at: 0xf00, body: u32(3, 4) },
    ],
    sizeBytes: 4096,
  });
  return {
    version: 1,
    name: "0000:0b:00.0",
    source: "vfio",
    resetMethods: ["flr"],
    configSpaceBytes: 4096,
    configSpace: hexLines(image),
    regions: [{ index: 0, size: 0x1000, flags: ["read", "write"], mmapAreas: [], msixMappable: false }],
    interrupts: [{ kind: "msix", count: 4, flags: [] }],
  };
}

function extendedList(bench: PassthroughBench): readonly (readonly [id: number, at: number])[] {
  const found: (readonly [number, number])[] = [];
  for (let at = 0x100; at >= 0x100; at = bench.read(at, 4) >>> 20) found.push([bench.read(at, 2), at]);
  return found;
}

for (const [id, name, sizeBytes] of KEPT_BACK) {
  t.test(`decideConfig() keeps ${name} from the guest, says why, and goes on behind it`, async (t) => {
    const backend = new ReplayBackend(madeUp([id]));
    const bench = new PassthroughBench(backend);
    t.same(extendedList(bench), [
      [0x03, 0x100],
      [0x03, 0xf00],
    ]);
    backend.takeCalls();
    const end = 0x120 + sizeBytes;
    for (let at = 0x120; at < end; at += 4) t.equal(bench.read(at, 4), 0, `register at 0x${at.toString(16)}`);
    for (let at = 0x120; at < end; at++) bench.write(at, 1, 0xff);
    t.match(backend.takeCalls(), { configReads: 0, configWrites: 0 }, "the device hears nothing");
    for (let at = end; at < 0x140; at += 4) {
      t.equal(bench.read(at, 4), 0xffff_ffff, `register of the device at 0x${at.toString(16)}`);
      bench.write(at, 4, 0x1234_5678);
      t.equal(backend.config.getUint32(at, true), 0x1234_5678);
    }
    const [hidden, ...more] = bench.function.summary().hiddenCapabilities;
    t.same(more, []);
    t.equal(hidden?.id, id);
    t.ok((hidden?.reason ?? "").length > 5, hidden?.reason ?? "no reason");
  });
}

t.test("EXTENDED_RULES has one rule for each capability, hidden with a reason or shown with a size", async (t) => {
  for (const [id, rule] of EXTENDED_RULES) {
    const isHidden = "hiddenBecause" in rule;
    t.ok(isHidden ? rule.hiddenBecause.length > 5 : rule.treatment.length > 0, `0x${id.toString(16)} ${rule.name}`);
    if (!isHidden) t.notOk(KEPT_BACK.some(([other]) => other === id));
  }
});

t.test("PassthroughFunction hides all of them at once and shows only what is left", async (t) => {
  const backend = new ReplayBackend(madeUp(KEPT_BACK.map(([id]) => id)));
  const bench = new PassthroughBench(backend);
  t.same(
    extendedList(bench).map(([id]) => id),
    [0x03, 0x03],
  );
  t.same(
    bench.function.summary().hiddenCapabilities.map((capability) => capability.id),
    KEPT_BACK.map(([id]) => id),
  );
});

for (const name of recordedDeviceNames()) {
  t.test(`PassthroughFunction reads ${name}'s read-only dwords from the snapshot, without a host call`, async (t) => {
    const backend = new ReplayBackend(recordedDevice(name));
    const bench = new PassthroughBench(backend);
    const image = new Uint8Array(backend.config.buffer).slice();
    const view = new DataView(image.buffer);
    // From now on the device answers otherwise: what comes from it shows.
    for (let at = 0; at < image.length; at++) {
      const isLive = (at >= 4 && at < 0x0e) || (at >= 0x2c && at < 0x30);
      const isFixed = at < 0x40 && !isLive;
      if (isFixed) backend.config.setUint8(at, (image[at] ?? 0) ^ 0xff);
    }
    backend.takeCalls();
    t.equal(bench.read(0x00, 4), view.getUint32(0x00, true), "identity");
    for (let at = 0x0c; at < 0x40; at += 4) if (at !== 0x2c) bench.read(at, 4);
    bench.read(0x04, 2);
    const list: number[] = [];
    for (let at = bench.read(0x34, 1); at !== 0; at = bench.read(at + 1, 1)) list.push(bench.read(at, 1));
    for (const id of [0x05, 0x11]) {
      const at = bench.capability(id);
      if (at !== undefined) bench.read(at + 2, 2);
    }
    const express = bench.capability(0x10);
    if (express !== undefined) for (const at of [0, 4, 12, 36, 44]) bench.read(express + at, 4);
    if (bench.function.config.sizeBytes === 4096) extendedList(bench);
    // The command register is the device's, and so is the status, by which `capability()` sees whether there is a list.
    const commandReads = 1;
    const statusReads = 3;
    t.equal(backend.takeCalls().configReads, commandReads + statusReads);
    t.ok(list.every((id) => id !== 0));
  });

  t.test(`PassthroughFunction lets no guest write reach what the host keeps of ${name}`, async (t) => {
    const backend = new ReplayBackend(recordedDevice(name));
    const bench = new PassthroughBench(backend);
    const readOnly = [0x00, 0x08, 0x2c, 0x34, 0x3e];
    const before = readOnly.map((offset) => bench.read(offset, 2));
    for (const value of [0xffff_ffff, 0, 0x5555_5555]) {
      for (let at = 0; at < bench.function.config.sizeBytes; at += 4) bench.write(at, 4, value);
      for (let at = 1; at < bench.function.config.sizeBytes; at++) bench.write(at, 1, value & 0xff);
    }
    t.same(backend.strays, []);
    t.same(
      readOnly.map((offset) => bench.read(offset, 2)),
      before,
    );
  });
}
