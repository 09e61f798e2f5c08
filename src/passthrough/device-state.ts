import type { Width } from "../base/units.ts";
import type { ConfigSpace } from "../pci/config-space.ts";
import {
  PCI_AF_CAP,
  PCI_AF_CAP_FLR,
  PCI_AF_CTRL,
  PCI_AF_CTRL_FLR,
  PCI_EXP_DEVCAP,
  PCI_EXP_DEVCAP_FLR,
  PCI_EXP_DEVCTL,
  PCI_EXP_DEVCTL_BCR_FLR,
  PCI_PM_CTRL,
  PCI_PM_CTRL_NO_SOFT_RESET,
  PCI_PM_CTRL_STATE_MASK,
} from "../pci/ids.ts";
import type { RegionArea } from "./backend.ts";

const D0 = 0;
const D3_HOT = 3;

/** Told of what the guest does to the device's state by writes to its configuration space. */
export interface DeviceStateObserver {
  /** The guest is about to put the device to sleep: its memory stops answering. */
  beforeSleep(): void;
  /** The device is awake (again), with the state it had. */
  afterWake(): void;
  /** The guest is about to reset the function: it stops decoding, doing DMA and interrupting. */
  beforeReset(): void;
  /** The function was reset and is awake; what the guest sees has to be as after power-on. */
  afterReset(): void;
}

/** The device's own configuration space. */
export interface DeviceConfig {
  read(offset: number, width: Width): number;
  /** The byte as it was read last. */
  peek(offset: number): number;
  write(offset: number, width: Width, value: number): void;
}

/** Where the registers are that change a device's state, and the configuration space as the device had it. */
export interface StateRegisters {
  readonly image: DataView;
  readonly power: RegionArea | undefined;
  readonly express: RegionArea | undefined;
  readonly advancedFeatures: RegionArea | undefined;
}

/**
 * Puts the registers over the guest's configuration space by which it sends the device to sleep, wakes it and resets
 * it. The writes go on to the device, where the host kernel carries them out; the observer makes the guest's view
 * follow, before and after:
 *
 * | write | the function | then |
 * |---|---|---|
 * | power state D1 to D3 | its memory stops answering | slots are gone before |
 * | D0, from D3 without No_Soft_Reset | as after power-on. PCI PM 1.2 §5.4.1 | as for a reset |
 * | D0 else | goes on | slots come back |
 * | Initiate FLR, where it can | as after power-on. PCIe 3.0 §6.6.2 | command and BARs 0, MSI and MSI-X off |
 *
 * The host kernel saves and restores its own view around a reset. Guests know nothing of that and set the function up
 * anew.
 */
export function followDeviceState(
  config: ConfigSpace,
  device: DeviceConfig,
  registers: StateRegisters,
  observer: DeviceStateObserver,
): void {
  const { image, power, express, advancedFeatures } = registers;
  const stateAt = power !== undefined && power.sizeBytes >= PCI_PM_CTRL + 2 ? power.offset + PCI_PM_CTRL : undefined;
  const readState = (): number => (stateAt === undefined ? D0 : device.read(stateAt, 2) & PCI_PM_CTRL_STATE_MASK);

  const reset = (write: () => void): void => {
    observer.beforeReset();
    write();
    observer.afterReset();
  };

  if (power !== undefined && stateAt !== undefined) {
    const keepsState = (image.getUint16(stateAt, true) & PCI_PM_CTRL_NO_SOFT_RESET) !== 0;
    config.overlay(stateAt, power.sizeBytes - PCI_PM_CTRL, {
      read: (offset, width) => device.read(offset, width),
      peek: (offset) => device.peek(offset),
      write: (offset, width, value) => {
        const write = (): void => device.write(offset, width, value);
        if (offset !== stateAt) return write();
        const wanted = value & PCI_PM_CTRL_STATE_MASK;
        if (wanted !== D0) observer.beforeSleep();
        else if (!keepsState && readState() === D3_HOT) return reset(write);
        write();
        // A state that the device does not have leaves it where it was.
        if (readState() === D0) observer.afterWake();
      },
    });
  }

  /** A control register whose bit `mask` resets the function, where `isOffered`. It reads as zero. */
  const resettable = (control: number, sizeBytes: number, mask: number, isOffered: boolean): void => {
    config.overlay(control, sizeBytes, {
      read: (offset, width) => device.read(offset, width),
      peek: (offset) => device.peek(offset),
      write: (offset, width, value) => {
        const write = (): void => device.write(offset, width, value);
        const bits = (value * 2 ** (8 * (offset - control))) % 2 ** 32;
        if (isOffered && (bits & mask) !== 0) reset(write);
        else write();
      },
    });
  };
  if (express !== undefined && express.sizeBytes >= PCI_EXP_DEVCTL + 4) {
    const isOffered = (image.getUint32(express.offset + PCI_EXP_DEVCAP, true) & PCI_EXP_DEVCAP_FLR) !== 0;
    resettable(express.offset + PCI_EXP_DEVCTL, 4, PCI_EXP_DEVCTL_BCR_FLR, isOffered);
  }
  if (advancedFeatures !== undefined && advancedFeatures.sizeBytes > PCI_AF_CTRL) {
    const isOffered = (image.getUint8(advancedFeatures.offset + PCI_AF_CAP) & PCI_AF_CAP_FLR) !== 0;
    const control = advancedFeatures.offset + PCI_AF_CTRL;
    resettable(control, advancedFeatures.sizeBytes - PCI_AF_CTRL, PCI_AF_CTRL_FLR, isOffered);
  }
}
