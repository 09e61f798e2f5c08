import { HostError } from "../base/errors.ts";
import { rescanCommands, SILENT } from "../base/silent-device.ts";
import { parseBdf } from "../pci/bdf.ts";
import { PCI_CLASS_REVISION, PCI_COMMAND, PCI_COMMAND_MEMORY, PCI_EXP_DEVSTA } from "../pci/ids.ts";
import { type DeviceBackend, VFIO_PCI_CONFIG_REGION_INDEX } from "./backend.ts";

/** What a device's own registers say of it. */
export interface VitalSigns {
  /** False for a device that was pulled, whose link is down, or whose memory is dead. */
  readonly isAnswering: boolean;
  /** It answers, but does not decode what the guest switched on: it was reset without the guest. */
  readonly wasReset: boolean;
  /** What was read, for a line of the log. */
  readonly found: string;
}

/** Where to look. */
export interface VitalRegisters {
  /** What the guest has switched on of {@link PCI_COMMAND}: decode and bus mastering. */
  readonly command: number;
  /** Offset of the PCI Express capability. */
  readonly express: number | undefined;
  /** A BAR whose memory the guest has switched on. */
  readonly memoryBar: number | undefined;
}

const ALL_ONES = 0xffff_ffff;
const GONE = "class and revision read as all ones";

/** Device Status. PCI Express Base 3.0 §7.8.5 */
const DEVICE_STATUS_BITS: readonly (readonly [mask: number, text: string])[] = [
  [0x4, "fatal error"],
  [0x2, "non-fatal error"],
  [0x8, "unsupported request"],
  [0x1, "correctable error"],
];
const FATAL = 0x4;

/**
 * Whether a device answers at all. vfio-pci answers vendor and device id from its own copy. Class and revision are
 * always read from the device; all ones is no valid value for them.
 */
export function isAnswering(backend: DeviceBackend): boolean {
  const identity = backend.readRegion(VFIO_PCI_CONFIG_REGION_INDEX, PCI_CLASS_REVISION, 4);
  return identity !== undefined && identity !== ALL_ONES;
}

/** Whether a device decodes memory; its COMMAND register says so, which vfio-pci keeps for virtual functions alone. */
export function isDecodingMemory(backend: DeviceBackend): boolean {
  return ((backend.readRegion(VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2) ?? 0) & PCI_COMMAND_MEMORY) !== 0;
}

/**
 * Looks at what the device itself answers: class, COMMAND, Device Status. A register of a BAR is read only after a
 * fatal error, since a read can change what it reads.
 */
export function examine(backend: DeviceBackend, registers: VitalRegisters): VitalSigns {
  const { command, express, memoryBar } = registers;
  if (!isAnswering(backend)) return { isAnswering: false, wasReset: false, found: GONE };
  const config = (offset: number): number => backend.readRegion(VFIO_PCI_CONFIG_REGION_INDEX, offset, 2) ?? 0xffff;
  const wasReset = (command & ~config(PCI_COMMAND)) !== 0;
  const status = express === undefined ? 0 : config(express + PCI_EXP_DEVSTA);
  const errors = DEVICE_STATUS_BITS.filter(([mask]) => (status & mask) !== 0).map(([, text]) => text);
  const found = errors.length === 0 ? "its status shows no error" : `its status shows: ${errors.join(", ")}`;
  if ((status & FATAL) !== 0 && memoryBar !== undefined && !wasReset) {
    const register = backend.readRegion(memoryBar, 0, 4);
    if (register === undefined || register === ALL_ONES) {
      return { isAnswering: false, wasReset, found: `${found}; BAR ${memoryBar} reads as all ones` };
    }
  }
  return { isAnswering: true, wasReset, found };
}

/** @throws HostError when the device's registers read as all ones */
export function mustAnswer(backend: DeviceBackend): void {
  if (isAnswering(backend)) return;
  const { name } = backend;
  const remedy =
    parseBdf(name) === undefined ? "look at what its server says" : `${rescanCommands(name)}; else power the host off`;
  throw new HostError("TSVMM_DEVICE_UNUSABLE", `Cannot use ${name}: ${SILENT}`, remedy);
}
