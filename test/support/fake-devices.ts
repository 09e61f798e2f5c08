import type { FakeDevice } from "./fake-device-backend.ts";
import { expressCapability, msixCapability, pciImage, pmCapability, u16, u32 } from "./pci-image.ts";
import { recordedDevice } from "./recorded-devices.ts";
import { fakeDeviceOf } from "./replay-backend.ts";

/** QEMU's NVMe controller: 64-bit BAR of 16 KiB, MSI-X table at page 2, pending bits at page 3, PCI Express. */
export const NVME: FakeDevice = {
  name: "0000:01:00.0",
  image: pciImage({
    vendorId: 0x1b36,
    deviceId: 0x0010,
    classCode: 0x01_0802,
    barFlags: [0x04, 0],
    interruptPin: 1,
    capabilities: [msixCapability(0x40, 65, 0x2000, 0x3000), expressCapability(0x80), pmCapability(0x60)],
    extended: [
      { id: 0x01, at: 0x100, body: new Array(0x44).fill(0xee) }, // AER
      { id: 0x03, at: 0x148, body: u32(0x1122_3344, 0x5566_7788) }, // serial number
      { id: 0x10, at: 0x160, body: new Array(0x3c).fill(0xdd) }, // SR-IOV
      { id: 0x0b, at: 0x1a0, body: u32(0x0100_1234, 0xcafe_f00d, 0x0bad_cafe) }, // vendor-specific, 16 bytes
    ],
    sizeBytes: 4096,
  }),
  regions: [{ index: 0, sizeBytes: 0x4000, isMsixMappable: true }],
  interrupts: { intx: { count: 1 }, msix: { count: 65 }, error: { count: 1 }, request: { count: 1 } },
};

/**
 * KIOXIA CD8P: table at 0x5200 and pending bits at 0xd600 in a BAR of 64 KiB, not page-aligned; the host can grow its
 * vectors.
 */
export const KIOXIA: FakeDevice = fakeDeviceOf(recordedDevice("kioxia-cd8p"));

/** Samsung NVMe: the host lists two sparse areas around the table at 0x4000 to 0x6010; pending bits at 0x3000. */
export const SAMSUNG: FakeDevice = fakeDeviceOf(recordedDevice("samsung-nvme"));

/** An SD host controller: registers of 256 bytes, INTB, nothing else. */
export const SD_HOST: FakeDevice = {
  name: "0000:04:00.0",
  image: pciImage({
    vendorId: 0x1b36,
    deviceId: 0x0007,
    classCode: 0x08_0501,
    barFlags: [0],
    interruptPin: 2,
  }),
  regions: [{ index: 0, sizeBytes: 0x100 }],
  interrupts: { intx: { count: 1 }, request: { count: 1 } },
  resetMethod: false,
};

/** QEMU's edu device with four MSI messages: 64-bit addresses, no mask bits. */
export const EDU: FakeDevice = {
  name: "0000:05:00.0",
  image: pciImage({
    vendorId: 0x1234,
    deviceId: 0x11e8,
    classCode: 0x00_ff00,
    barFlags: [0],
    interruptPin: 1,
    capabilities: [{ id: 0x05, at: 0x40, body: [...u16(0x0084), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] }],
  }),
  regions: [{ index: 0, sizeBytes: 0x10_0000 }],
  interrupts: { intx: { count: 1 }, msi: { count: 4 }, request: { count: 1 } },
};

/** e1000e: memory BARs 0 and 1, I/O BAR 2, MSI-X in BAR 3, ROM, a vendor register outside every capability. */
export const E1000E: FakeDevice = {
  name: "0000:06:00.0",
  image: pciImage({
    vendorId: 0x8086,
    deviceId: 0x10d3,
    classCode: 0x02_0000,
    barFlags: [0, 0, 1, 0],
    interruptPin: 1,
    capabilities: [pmCapability(0xc8), msixCapability(0xa0, 5, 0x0000_0003, 0x0000_2003)],
  }),
  regions: [
    { index: 0, sizeBytes: 0x2_0000 },
    { index: 1, sizeBytes: 0x2_0000 },
    { index: 2, sizeBytes: 0x20, isTrapOnly: true },
    { index: 3, sizeBytes: 0x4000, isMsixMappable: true },
    { index: 6, sizeBytes: 0x4_0000, isTrapOnly: true },
  ],
  interrupts: { intx: { count: 1 }, msix: { count: 5 }, error: { count: 1 }, request: { count: 1 } },
};
