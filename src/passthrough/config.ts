import type { Report } from "../base/backends.ts";
import type { MsiRouter } from "../base/signals.ts";
import { allOnes, hex, type Width } from "../base/units.ts";
import { parseBdf } from "../pci/bdf.ts";
import { ConfigSpace } from "../pci/config-space.ts";
import type { BarIndex } from "../pci/function.ts";
import {
  PCI_CACHE_LINE_SIZE,
  PCI_CAP_MSIX_SIZEOF,
  PCI_CFG_SPACE_EXP_SIZE,
  PCI_CFG_SPACE_SIZE,
  PCI_CLASS_REVISION,
  PCI_COMMAND,
  PCI_DEVICE_ID,
  PCI_EXP_DEVCAP2,
  PCI_EXP_DEVCTL,
  PCI_EXP_DEVCTL2,
  PCI_EXP_FLAGS,
  PCI_EXP_FLAGS_TYPE,
  PCI_EXP_LNKCAP,
  PCI_EXP_LNKCTL,
  PCI_EXP_LNKCTL2,
  PCI_EXP_TYPE_ENDPOINT,
  PCI_EXP_TYPE_LEG_END,
  PCI_EXP_TYPE_RC_END,
  PCI_INTERRUPT_PIN,
  PCI_MIN_GNT,
  PCI_MSI_DATA_32,
  PCI_MSI_DATA_64,
  PCI_MSI_FLAGS,
  PCI_MSI_FLAGS_64BIT,
  PCI_MSI_FLAGS_MASKBIT,
  PCI_MSI_MASK_32,
  PCI_MSI_MASK_64,
  PCI_MSIX_ENTRY_SIZE,
  PCI_MSIX_PBA,
  PCI_MSIX_TABLE,
  PCI_MSIX_TABLE_BIR,
  PCI_MSIX_TABLE_OFFSET,
  PCI_PM_CTRL,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
} from "../pci/ids.ts";
import { type HostAddressRegister, hostAddressRegisters, isIntelGraphics } from "../pci/intel-graphics.ts";
import { MsiCapability } from "../pci/msi.ts";
import { type BarOffset, MsixCapability } from "../pci/msix.ts";
import type { VectorHost } from "../pci/vectors.ts";
import { type DeviceBackend, VFIO_PCI_CONFIG_REGION_INDEX } from "./backend.ts";
import { type ConfigPolicy, decideConfig, type KeptCapability } from "./config-policy.ts";
import { type DeviceStateObserver, followDeviceState } from "./device-state.ts";
import { placePendingBits } from "./msix-structures.ts";

/** Registers of the PCI Express capability that exist only with a link, a slot or a root behind the function. */
const EXPRESS_LINK_AND_ROOT = { start: PCI_EXP_LNKCAP, end: PCI_EXP_DEVCAP2 } as const;
const EXPRESS_LINK_AND_ROOT_2 = { start: PCI_EXP_DEVCTL2 + 4, end: 60 } as const;
/** All bits that PCI Local Bus 3.0 §6.2.2 has: the device knows which of them it implements. */
const COMMAND_WRITABLE = 0x07ff;
/** An Intel GPU without its firmware's OpRegion and stolen memory. */
const GRAPHICS_LIMITS =
  "rendering, video and compute work; displays and the guest's boot screen do not, without the firmware's tables";
/** Latency tolerance reports and OBFF need the platform's help. PCI Express Base 3.0 §7.8.15 */
const DEVCAP2_PLATFORM = 0x000c_0800;

/** A function's configuration space with what lives in it. */
export interface FunctionConfig {
  readonly config: ConfigSpace;
  readonly policy: ConfigPolicy;
  readonly msi: MsiCapability | undefined;
  readonly msix: MsixCapability | undefined;
  /** Configuration space as the device had it at the start. */
  readonly image: Uint8Array;
  /** Puts the device's power state back to full power. */
  wake(): void;
  /** Puts the device's control registers that the guest could change back to what {@link image} has. */
  restoreDevice(): void;
  /** Guest accesses that went on to the device so far. */
  forwarded(): number;
}

export interface FunctionConfigOptions {
  readonly name: string;
  /** Shows an endpoint as part of the root complex. */
  readonly isIntegrated: boolean;
  readonly backend: DeviceBackend;
  readonly router: MsiRouter;
  readonly host: VectorHost;
  readonly state: DeviceStateObserver;
  readonly report: Report;
}

/**
 * Reads a device's configuration space once and builds the guest's from it, as `config-policy.ts` says.
 *
 * A PCI Express endpoint keeps its type and link registers, by which drivers choose speeds (amdgpu) and AtomicOps.
 * There is no root port above it. For a guest that rejects such an endpoint on bus 0, it can be a Root Complex
 * Integrated Endpoint, without a link.
 */
export function buildConfig(options: FunctionConfigOptions): FunctionConfig {
  const { name, backend } = options;
  const image = readImage(backend);
  const view = new DataView(image.buffer);
  const isGraphics = isIntelGraphics(parseBdf(name), view);
  const blanked = isGraphics ? hostAddressRegisters(view) : [];
  const policy = decideConfig(image, blanked);
  const config = new ConfigSpace(name, policy.sizeBytes);
  const live = new LiveConfig(config, backend, image);

  const classAndRevision = view.getUint32(PCI_CLASS_REVISION, true);
  const pin = view.getUint8(PCI_INTERRUPT_PIN);
  config.setIdentity({
    vendorId: view.getUint16(PCI_VENDOR_ID, true),
    deviceId: view.getUint16(PCI_DEVICE_ID, true),
    classCode: classAndRevision >>> 8,
    revision: classAndRevision & 0xff,
    subsystemVendorId: view.getUint16(PCI_SUBSYSTEM_VENDOR_ID, true),
    subsystemId: view.getUint16(PCI_SUBSYSTEM_ID, true),
    // A pin without an interrupt behind it would make the guest wait for one.
    interruptPin: backend.interrupt("intx").count > 0 && pin >= 1 && pin <= 4 ? pin : 0,
  });
  config.set16(PCI_MIN_GNT, view.getUint16(PCI_MIN_GNT, true));
  config.onWrite(PCI_CACHE_LINE_SIZE, 2, () => live.write(PCI_CACHE_LINE_SIZE, 2, config.get16(PCI_CACHE_LINE_SIZE)));

  let msi: MsiCapability | undefined;
  let msix: MsixCapability | undefined;
  for (const capability of policy.standard) {
    if (capability.treatment === "msi") msi = addMsi(options, config, view, capability);
    else if (capability.treatment === "msix") msix = addMsix(options, config, view, capability);
    else addStandard(config, live, view, capability, options.isIntegrated);
  }
  for (const capability of policy.extended) {
    const { id, version, offset, sizeBytes } = capability;
    config.addExtendedCapability(id, version, image.slice(offset + 4, offset + sizeBytes), offset);
    if (capability.treatment === "live" && sizeBytes > 4) live.overlay(offset + 4, sizeBytes - 4);
  }
  for (const { offset, sizeBytes } of policy.deviceSpecific) live.overlay(offset, sizeBytes);
  for (const register of blanked) blank(config, live, policy, register);
  if (isGraphics) options.report("warn", `${name} is the processor's GPU: ${GRAPHICS_LIMITS}`);
  const power = policy.standard.find((capability) => capability.treatment === "power");
  const express = policy.standard.find((capability) => capability.treatment === "express");
  const advancedFeatures = policy.standard.find((capability) => capability.treatment === "advancedFeatures");
  followDeviceState(config, live, { image: view, power, express, advancedFeatures }, options.state);

  live.overlayReads(PCI_CLASS_REVISION, 4);
  live.overlayReads(PCI_SUBSYSTEM_VENDOR_ID, 4);
  // The bytes follow the guest's writes, for the root; the function passes them on.
  config.allowWrites(PCI_COMMAND, 2, COMMAND_WRITABLE);
  live.overlayReads(PCI_COMMAND, 2);
  // Only the list's existence is ours to say in the status register.
  const hasList = config.get16(PCI_STATUS) & PCI_STATUS_CAP_LIST;
  config.overlay(PCI_STATUS, 2, {
    read: (offset, width) =>
      offset === PCI_STATUS ? (live.read(offset, width) & ~PCI_STATUS_CAP_LIST) | hasList : live.read(offset, width),
    peek: (offset) =>
      offset === PCI_STATUS ? (live.peek(offset) & ~PCI_STATUS_CAP_LIST) | hasList : live.peek(offset),
    write: (offset, width, value) => live.write(offset, width, value),
  });
  return {
    config,
    policy,
    msi,
    msix,
    image,
    wake: () => {
      if (power !== undefined) backend.writeRegion(VFIO_PCI_CONFIG_REGION_INDEX, power.offset + PCI_PM_CTRL, 2, 0);
    },
    restoreDevice: () => {
      const offsets = [PCI_CACHE_LINE_SIZE];
      for (const control of [PCI_EXP_DEVCTL, PCI_EXP_DEVCTL2]) {
        if (express !== undefined && express.sizeBytes >= control + 2) offsets.push(express.offset + control);
      }
      for (const offset of offsets) {
        backend.writeRegion(VFIO_PCI_CONFIG_REGION_INDEX, offset, 2, view.getUint16(offset, true));
      }
    },
    forwarded: () => live.count,
  };
}

function readImage(backend: DeviceBackend): Uint8Array {
  const size = backend.region(VFIO_PCI_CONFIG_REGION_INDEX)?.sizeBytes ?? 0;
  const sizeBytes = size >= PCI_CFG_SPACE_EXP_SIZE ? PCI_CFG_SPACE_EXP_SIZE : PCI_CFG_SPACE_SIZE;
  const view = new DataView(new ArrayBuffer(sizeBytes));
  for (let offset = 0; offset < sizeBytes; offset += 4) {
    view.setUint32(offset, backend.readRegion(VFIO_PCI_CONFIG_REGION_INDEX, offset, 4) ?? 0xffff_ffff, true);
  }
  return new Uint8Array(view.buffer);
}

/** Accesses that go on to the device's own configuration space. */
class LiveConfig {
  readonly #config: ConfigSpace;
  readonly #backend: DeviceBackend;
  /** What the guest has read last: a snapshot asks no device. */
  readonly #seen: Uint8Array;
  count = 0;

  /** @param image What the device had at the start. */
  constructor(config: ConfigSpace, backend: DeviceBackend, image: Uint8Array) {
    this.#config = config;
    this.#backend = backend;
    this.#seen = image.slice();
  }

  read(offset: number, width: Width): number {
    this.count++;
    const value = this.#backend.readRegion(VFIO_PCI_CONFIG_REGION_INDEX, offset, width) ?? allOnes(width);
    for (let byte = 0; byte < width; byte++) this.#seen[offset + byte] = value >>> (8 * byte);
    return value;
  }

  peek(offset: number): number {
    return this.#seen[offset] ?? 0;
  }

  write(offset: number, width: Width, value: number): void {
    this.count++;
    this.#backend.writeRegion(VFIO_PCI_CONFIG_REGION_INDEX, offset, width, value);
  }

  overlay(offset: number, sizeBytes: number): void {
    this.#config.overlay(offset, sizeBytes, {
      read: (at, width) => this.read(at, width),
      peek: (at) => this.peek(at),
      write: (at, width, value) => this.write(at, width, value),
    });
  }

  /** The device answers reads; writes change the space's own bytes, as far as their masks allow. */
  overlayReads(offset: number, sizeBytes: number): void {
    this.#config.overlay(offset, sizeBytes, {
      read: (at, width) => this.read(at, width),
      peek: (at) => this.peek(at),
    });
  }
}

/** What the host's firmware has put into a register reads as zero, and cannot be written. */
function blank(config: ConfigSpace, live: LiveConfig, policy: ConfigPolicy, register: HostAddressRegister): void {
  const { offset, sizeBytes, kept } = register;
  const isTaken = policy.standard.some(
    (area) => offset < area.offset + area.sizeBytes && offset + sizeBytes > area.offset,
  );
  if (kept === 0 || isTaken) return; // the space's own bytes are zeroes
  const mask = (at: number): number => (kept >>> (8 * (at - offset))) >>> 0;
  config.overlay(offset, sizeBytes, {
    read: (at, width) => (live.read(at, width) & mask(at)) >>> 0,
    peek: (at) => live.peek(at) & mask(at),
  });
}

function addStandard(
  config: ConfigSpace,
  live: LiveConfig,
  view: DataView,
  capability: KeptCapability,
  isIntegrated: boolean,
): void {
  const { id, offset, sizeBytes, treatment } = capability;
  const bytes = new Uint8Array(view.buffer).slice(offset, offset + sizeBytes);
  if (treatment === "express" && isIntegrated) makeIntegrated(bytes);
  config.addCapability(id, bytes.subarray(2), offset);
  switch (treatment) {
    case "live":
      if (sizeBytes > 2) live.overlay(offset + 2, sizeBytes - 2);
      break;
    case "express":
      if (sizeBytes >= PCI_EXP_DEVCTL2 + 4) live.overlay(offset + PCI_EXP_DEVCTL2, 4);
      if (isIntegrated) break;
      // The link is the host's: it is read as it is, and not written.
      for (const link of [PCI_EXP_LNKCTL, PCI_EXP_LNKCTL2]) {
        if (sizeBytes >= link + 4) live.overlayReads(offset + link, 4);
      }
      break;
    default: // a snapshot is its bytes; registers of the device's state come later
  }
}

/**
 * Changes the bytes of a PCI Express capability from an endpoint's to those of one that is part of the root complex.
 */
function makeIntegrated(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < PCI_EXP_FLAGS + 2) return;
  const flags = view.getUint16(PCI_EXP_FLAGS, true);
  const type = (flags & PCI_EXP_FLAGS_TYPE) >>> 4;
  if (type !== PCI_EXP_TYPE_ENDPOINT && type !== PCI_EXP_TYPE_LEG_END) return;
  view.setUint16(PCI_EXP_FLAGS, (flags & ~PCI_EXP_FLAGS_TYPE) | (PCI_EXP_TYPE_RC_END << 4), true);
  for (const { start, end } of [EXPRESS_LINK_AND_ROOT, EXPRESS_LINK_AND_ROOT_2]) bytes.fill(0, start, end);
  if (bytes.length < PCI_EXP_DEVCAP2 + 4) return;
  view.setUint32(PCI_EXP_DEVCAP2, (view.getUint32(PCI_EXP_DEVCAP2, true) & ~DEVCAP2_PLATFORM) >>> 0, true);
}

function addMsi(
  options: FunctionConfigOptions,
  config: ConfigSpace,
  view: DataView,
  capability: KeptCapability,
): MsiCapability | undefined {
  const { offset } = capability;
  const vectorCount = options.backend.interrupt("msi").count;
  if (![1, 2, 4, 8, 16, 32].includes(vectorCount)) {
    options.report("warn", `${options.name}: MSI is not shown: the host offers ${vectorCount} vectors`);
    return undefined;
  }
  const flags = view.getUint16(offset + PCI_MSI_FLAGS, true);
  const room = capability.sizeBytes;
  const is64Bit = (flags & PCI_MSI_FLAGS_64BIT) !== 0;
  if (room < (is64Bit ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32) + 2) {
    options.report(
      "warn",
      `${options.name}: MSI is not shown: another capability begins ${room} bytes behind its start`,
    );
    return undefined;
  }
  return new MsiCapability({
    config,
    router: options.router,
    host: options.host,
    vectorCount,
    at: offset,
    is64Bit,
    // Masking is emulated, so that it can be left out where it would reach into the next capability.
    hasMaskBits: (flags & PCI_MSI_FLAGS_MASKBIT) !== 0 && room >= (is64Bit ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32) + 8,
  });
}

function addMsix(
  options: FunctionConfigOptions,
  config: ConfigSpace,
  view: DataView,
  { offset, sizeBytes }: KeptCapability,
): MsixCapability | undefined {
  if (sizeBytes < PCI_CAP_MSIX_SIZEOF) {
    options.report("warn", `${options.name}: MSI-X is not shown: another capability begins inside it`);
    return undefined;
  }
  const vectorCount = options.backend.interrupt("msix").count;
  const table = barOffsetAt(view.getUint32(offset + PCI_MSIX_TABLE, true));
  const pba = barOffsetAt(view.getUint32(offset + PCI_MSIX_PBA, true));
  const barBytes = (bar: BarIndex): number => options.backend.region(bar)?.sizeBytes ?? 0;
  const tableBytes = vectorCount * PCI_MSIX_ENTRY_SIZE;
  const isPossible = vectorCount >= 1 && vectorCount <= 2048;
  const hasTable = isPossible && table !== undefined && table.offset + tableBytes <= barBytes(table.bar);
  const id = view.getUint32(PCI_VENDOR_ID, true);
  const pending = hasTable ? placePendingBits({ id, vectorCount, table, pba, tableBytes, barBytes }) : undefined;
  if (!hasTable || pending === undefined) {
    options.report("warn", `${options.name}: MSI-X is not shown: its ${vectorCount} vectors do not fit its BARs`);
    return undefined;
  }
  if (pending !== pba) {
    const where = `BAR ${pending.bar} at ${hex(pending.offset)}`;
    options.report("info", `${options.name}: MSI-X pending bits are shown in ${where}: they lie outside their BAR`);
  }
  return new MsixCapability({
    config,
    router: options.router,
    host: options.host,
    vectorCount,
    table,
    pba: pending,
    at: offset,
  });
}

/** Table and pending bits name their place alike: an offset whose low three bits are the BAR's index. */
function barOffsetAt(register: number): BarOffset | undefined {
  const bar = register & PCI_MSIX_TABLE_BIR;
  // Cast: 0 to 5 are the BAR indices; 6 and 7 are reserved here.
  return bar <= 5 ? { bar: bar as BarIndex, offset: (register & PCI_MSIX_TABLE_OFFSET) >>> 0 } : undefined;
}
