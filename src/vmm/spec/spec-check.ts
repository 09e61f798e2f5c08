import { basename } from "node:path";
import { SpecError } from "../../base/errors.ts";
import { MIB, PAGE_SIZE } from "../../base/units.ts";
import { checkOutputs, inputsOf, type NamedFile, outputsOf } from "./outputs.ts";
import type { CharSpec, DeviceSpec, DiskSpec, MachineSpec, MemorySpec, UserDeviceSpec } from "./spec.ts";
import { checkDisk, checkImage, checkSocket, checkSource, resolvePciFunction } from "./spec-paths.ts";

/** A disk as callers describe it; the rest is filled in. */
export type DiskInput = Pick<DiskSpec, "path"> & Partial<DiskSpec>;
/** A PCI function as callers describe it: `path` may be its address too. */
export type DeviceInput = Pick<DeviceSpec, "path"> & Partial<DeviceSpec>;
/** A vfio-user device as callers describe it. */
export type UserDeviceInput = Pick<UserDeviceSpec, "socket"> & Partial<UserDeviceSpec>;

/**
 * A machine as callers describe it: a kernel, and what differs from the defaults. A complete {@link MachineSpec} is one
 * too.
 */
export interface MachineInput {
  readonly kernel: string;
  readonly initramfs?: string;
  /** Default: empty. */
  readonly cmdline?: string;
  /** Default: one. */
  readonly cpus?: { readonly count?: number };
  /** Default: 512 MiB. */
  readonly memory?: Partial<MemorySpec>;
  readonly disks?: readonly DiskInput[];
  readonly devices?: readonly DeviceInput[];
  readonly userDevices?: readonly UserDeviceInput[];
  /** Default: the typed API. */
  readonly serial?: CharSpec;
  /** Default: no console. */
  readonly console?: CharSpec;
  /** Default: `/dev/urandom`. */
  readonly rng?: { readonly source?: string };
  readonly debugExitPort?: number;
  /** Default: false. */
  readonly hasTestDevice?: boolean;
  /** Default: true. */
  readonly allowReboot?: boolean;
  readonly pollMicroseconds?: number;
}

/** xAPIC ids are one byte: 255 means all, and the I/O APIC has one. */
export const MAX_CPUS = 254;
const DEFAULT_MEMORY: number = 512 * MIB;
const MIN_MEMORY: number = 16 * MIB;
/** 32 TiB: half of the 46 address bits that large x86 hosts have; the rest is for BARs. */
const MAX_MEMORY: number = 2 ** 45;
const HUGE_PAGE: number = 2 * MIB;
const MAX_POLL = 1_000_000;
/** A day. Who waits longer than that wants `off`. */
const MAX_TIMEOUT_SECONDS = 86_400;
/** Longest name of a device; it stands in every message about it. */
const MAX_ID = 64;
/** Of the ID a virtio disk tells. VIRTIO 1.2 §5.2.6 */
const MAX_SERIAL_BYTES = 20;
const LAST_SLOT = 31;
const LAST_BAR = 5;
/** PCI Local Bus 3.0 §6.2.5.2 */
const MAX_ROM: number = 16 * MIB;

/**
 * Fills in what a description leaves out, and checks everything that can be checked without opening anything.
 *
 * Calling it with its own result changes nothing.
 *
 * @param outputs Files that are written beside those of the spec: the log, the summary.
 * @throws SpecError with the path of the first problem: `memory.sizeBytes`, `devices[1].path`.
 */
export function completeSpec(input: MachineInput, outputs: readonly NamedFile[] = []): MachineSpec {
  if (input.kernel === undefined || input.kernel === "") throw new SpecError("kernel", "no kernel is given");
  checkImage("kernel", input.kernel);
  if (input.initramfs !== undefined) checkImage("initramfs", input.initramfs);
  const count = input.cpus?.count ?? 1;
  checkInteger("cpus.count", count, 1, MAX_CPUS);
  const memory = completeMemory(input.memory ?? {});
  const disks = completeDisks(input.disks ?? []);
  const devices = completeDevices(input.devices ?? []);
  const userDevices = completeUserDevices(input.userDevices ?? []);
  checkIds(disks, devices, userDevices);
  const source = input.rng?.source ?? "/dev/urandom";
  checkSource("rng.source", source);
  const serial = input.serial ?? { kind: "api" };
  const console = input.console ?? { kind: "off" };
  checkCharacters(serial, console);
  if (input.debugExitPort !== undefined) checkInteger("debugExitPort", input.debugExitPort, 0, 0xffff);
  if (input.pollMicroseconds !== undefined) checkInteger("pollMicroseconds", input.pollMicroseconds, 0, MAX_POLL);
  const spec: MachineSpec = {
    kernel: input.kernel,
    ...(input.initramfs === undefined ? {} : { initramfs: input.initramfs }),
    cmdline: input.cmdline ?? "",
    cpus: { count },
    memory,
    disks,
    devices,
    userDevices,
    serial,
    console,
    rng: { source },
    ...(input.debugExitPort === undefined ? {} : { debugExitPort: input.debugExitPort }),
    hasTestDevice: input.hasTestDevice ?? false,
    allowReboot: input.allowReboot ?? true,
    ...(input.pollMicroseconds === undefined ? {} : { pollMicroseconds: input.pollMicroseconds }),
  };
  checkOutputs(inputsOf(spec), [...outputsOf(spec), ...outputs]);
  return spec;
}

function checkInteger(where: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new SpecError(where, `${value} is not a whole number from ${least} to ${most}`);
  }
}

/** Fills in what a description of memory leaves out, and checks it. @throws SpecError */
export function completeMemory(input: Partial<MemorySpec>): MemorySpec {
  const where = "memory.sizeBytes";
  const { sizeBytes = DEFAULT_MEMORY, hugepages = false, shared = true, prefault = false } = input;
  if (!Number.isSafeInteger(sizeBytes)) throw new SpecError(where, `${sizeBytes} is not a size in bytes`);
  if (sizeBytes < MIN_MEMORY) throw new SpecError(where, `${sizeBytes} bytes are too few: a machine has 16M at least`);
  if (sizeBytes > MAX_MEMORY) throw new SpecError(where, `${sizeBytes} bytes are too many: a machine has 32T at most`);
  if (sizeBytes % PAGE_SIZE !== 0)
    throw new SpecError(where, `${sizeBytes} bytes are not a multiple of the page size, 4K`);
  if (hugepages && sizeBytes % HUGE_PAGE !== 0) {
    throw new SpecError(where, `${sizeBytes} bytes are not a multiple of the huge page size, 2M`);
  }
  return { sizeBytes, hugepages, shared, prefault };
}

function completeDisks(inputs: readonly DiskInput[]): readonly DiskSpec[] {
  const real: string[] = [];
  const disks: DiskSpec[] = [];
  for (const [index, input] of inputs.entries()) {
    const where = `disks[${index}]`;
    const realPath = checkDisk(`${where}.path`, input.path);
    const isReadOnly = input.isReadOnly ?? false;
    const twin = disks[real.indexOf(realPath)];
    if (twin !== undefined && !(twin.isReadOnly && isReadOnly)) {
      throw new SpecError(`${where}.path`, `${input.path} is given twice: only read-only disks can share an image`);
    }
    const { serial } = input;
    if (serial !== undefined && !/^[\x20-\x7e]{1,20}$/.test(serial)) {
      throw new SpecError(`${where}.serial`, `'${serial}' is not 1 to ${MAX_SERIAL_BYTES} printable ASCII characters`);
    }
    real.push(realPath);
    disks.push({
      path: input.path,
      id: input.id ?? `_disk${index}`,
      isReadOnly,
      isDirect: input.isDirect ?? false,
      ...(serial === undefined ? {} : { serial }),
    });
  }
  return disks;
}

function completeDevices(inputs: readonly DeviceInput[]): readonly DeviceSpec[] {
  const devices: DeviceSpec[] = [];
  for (const [index, input] of inputs.entries()) {
    const where = `devices[${index}]`;
    const path = resolvePciFunction(`${where}.path`, input.path);
    if (devices.some((device) => device.path === path)) {
      throw new SpecError(`${where}.path`, `${basename(path)} is given twice`);
    }
    const excludedMmapBars = input.excludedMmapBars ?? [];
    for (const bar of excludedMmapBars) checkInteger(`${where}.excludedMmapBars`, bar, 0, LAST_BAR);
    const { bars = "map", pciSlot, rom } = input;
    if (rom?.kind === "file") checkImage(`${where}.rom`, rom.path, MAX_ROM);
    if (bars !== "map" && bars !== "trap")
      throw new SpecError(`${where}.bars`, `'${String(bars)}' is neither map nor trap`);
    if (pciSlot === 0) throw new SpecError(`${where}.pciSlot`, "slot 0 is the host bridge's");
    if (pciSlot !== undefined) checkInteger(`${where}.pciSlot`, pciSlot, 1, LAST_SLOT);
    if (pciSlot !== undefined && devices.some((device) => device.pciSlot === pciSlot)) {
      throw new SpecError(`${where}.pciSlot`, `slot ${pciSlot} is given twice`);
    }
    devices.push({
      path,
      id: input.id ?? `_vfio${index}`,
      bars,
      excludedMmapBars,
      ...(rom === undefined ? {} : { rom }),
      ...(pciSlot === undefined ? {} : { pciSlot }),
    });
  }
  return devices;
}

function completeUserDevices(inputs: readonly UserDeviceInput[]): readonly UserDeviceSpec[] {
  const real: string[] = [];
  return inputs.map(({ socket, id, timeoutSeconds }, index) => {
    const where = `userDevices[${index}].socket`;
    const path = checkSocket(where, socket);
    if (real.includes(path)) throw new SpecError(where, `${socket} is given twice`);
    real.push(path);
    if (timeoutSeconds !== undefined && timeoutSeconds !== "off") {
      checkInteger(`userDevices[${index}].timeoutSeconds`, timeoutSeconds, 1, MAX_TIMEOUT_SECONDS);
    }
    return { socket, id: id ?? `_user${index}`, ...(timeoutSeconds === undefined ? {} : { timeoutSeconds }) };
  });
}

/** Ids name devices in messages and in the API; those with `_` in front are made here, by place. */
function checkIds(
  disks: readonly DiskSpec[],
  devices: readonly DeviceSpec[],
  userDevices: readonly UserDeviceSpec[],
): void {
  const seen = new Set<string>();
  const check = (where: string, id: string, automatic: string): void => {
    if (!/^[\w.-]+$/.test(id))
      throw new SpecError(where, `'${id}' may have letters, digits, dots, dashes and underscores only`);
    if (id.length > MAX_ID) throw new SpecError(where, `'${id}' has more than ${MAX_ID} characters`);
    if (id.startsWith("_") && id !== automatic)
      throw new SpecError(where, `'${id}' begins with an underscore, which is reserved`);
    if (seen.has(id)) throw new SpecError(where, `'${id}' is given twice`);
    seen.add(id);
  };
  for (const [index, { id }] of disks.entries()) check(`disks[${index}].id`, id, `_disk${index}`);
  for (const [index, { id }] of devices.entries()) check(`devices[${index}].id`, id, `_vfio${index}`);
  for (const [index, { id }] of userDevices.entries()) check(`userDevices[${index}].id`, id, `_user${index}`);
}

function checkCharacters(serial: CharSpec, console: CharSpec): void {
  for (const [where, spec] of [
    ["serial", serial],
    ["console", console],
  ] as const) {
    if ((spec.kind === "file" || spec.kind === "socket") && spec.path === "") {
      throw new SpecError(where, `a path is needed: ${spec.kind}=/some/where`);
    }
  }
  if (serial.kind === "tty" && console.kind === "tty") {
    throw new SpecError("console", "the terminal is the serial port's already: send one of the two elsewhere");
  }
  const shared =
    (serial.kind === "file" || serial.kind === "socket") && serial.kind === console.kind ? serial : undefined;
  if (shared !== undefined && (console.kind === "file" || console.kind === "socket") && console.path === shared.path) {
    throw new SpecError("console", `${shared.path} is the serial port's already`);
  }
}
