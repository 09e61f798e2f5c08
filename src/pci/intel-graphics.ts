import type { Bdf } from "./bdf.ts";
import { PCI_CLASS_REVISION, PCI_DEVICE_ID, PCI_VENDOR_ID } from "./ids.ts";

/** A register that tells where the host's firmware has put memory of the GPU. */
export interface HostAddressRegister {
  readonly offset: number;
  readonly sizeBytes: 2 | 4 | 8;
  /** Bits that are the device's and stay readable. */
  readonly kept: number;
}

const VENDOR_INTEL = 0x8086;
const BASE_CLASS_DISPLAY = 0x03;

/** Graphics Control; Graphics Mode Select is the size of stolen memory. */
const GMCH_CONTROL = 0x50;
/** Base of Data Stolen Memory; a quadword from the eleventh generation on. */
const BDSM = 0x5c;
const BDSM_64 = 0xc0;
/** The address of the firmware's OpRegion, with the video BIOS's table. */
const ASLS = 0xfc;

/** Device ids' high bytes of the generations that have GMS in bits 7:3, and of those up to the tenth. */
const BEFORE_GEN8: readonly number[] = [0x01, 0x04, 0x0a, 0x0c, 0x0d, 0x0f];
const BEFORE_GEN11: readonly number[] = [0x16, 0x22, 0x19, 0x59, 0x1a, 0x5a, 0x3e, 0x9b, 0x31, 0x87];

/** Whether a function is the GPU of an Intel processor: a display of that vendor at 00:02.0. */
export function isIntelGraphics(bdf: Bdf | undefined, image: DataView): boolean {
  if (bdf?.bus !== 0 || bdf.device !== 2 || bdf.function !== 0) return false;
  return (
    image.getUint16(PCI_VENDOR_ID, true) === VENDOR_INTEL &&
    image.getUint8(PCI_CLASS_REVISION + 3) === BASE_CLASS_DISPLAY
  );
}

/**
 * Registers of an Intel GPU that hold host-physical addresses or the size of memory there. A guest that believed them
 * would take its own RAM for the GPU's. Intel graphics manuals, volume 2; QEMU's hw/vfio/igd.c; Linux'
 * arch/x86/kernel/early-quirks.c. BGSM is a register of the host bridge, which no guest sees.
 */
export function hostAddressRegisters(image: DataView): readonly HostAddressRegister[] {
  const family = image.getUint16(PCI_DEVICE_ID, true) >>> 8;
  const isOld = BEFORE_GEN8.includes(family);
  const hasShortBase = isOld || BEFORE_GEN11.includes(family);
  return [
    { offset: GMCH_CONTROL, sizeBytes: 2, kept: isOld ? 0xff07 : 0x00ff },
    hasShortBase ? { offset: BDSM, sizeBytes: 4, kept: 0 } : { offset: BDSM_64, sizeBytes: 8, kept: 0 },
    { offset: ASLS, sizeBytes: 4, kept: 0 },
  ];
}
