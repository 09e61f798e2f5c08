import { SpecError } from "../base/errors.ts";
import {
  INTERRUPT_KINDS,
  type InterruptInfo,
  type InterruptKind,
  type RegionArea,
  type RegionInfo,
} from "./backend.ts";

export const RECORDING_VERSION = 1;

const SOURCES = ["vfio", "sysfs", "made"] as const;
const REGION_FLAGS = ["read", "write", "mmap"] as const;
const INTERRUPT_FLAGS = ["automasked", "noresize"] as const;
const CONFIG_SIZES: readonly number[] = [256, 4096];
const LINE_BYTES = 16;
/** BARs, ROM, configuration space, VGA. */
const REGION_COUNT = 9;

/** One region as VFIO_DEVICE_GET_REGION_INFO told of it. */
export interface RecordedRegion {
  readonly index: number;
  readonly size: number;
  readonly flags: readonly (typeof REGION_FLAGS)[number][];
  /** The sparse areas, or the whole region; empty where nothing may be mapped. */
  readonly mmapAreas: readonly { readonly offset: number; readonly size: number }[];
  readonly msixMappable: boolean;
}

/** One interrupt source as VFIO_DEVICE_GET_IRQ_INFO told of it; sources that the device lacks are left out. */
export interface RecordedInterrupt {
  readonly kind: InterruptKind;
  readonly count: number;
  readonly flags: readonly (typeof INTERRUPT_FLAGS)[number][];
}

/**
 * What a device showed of itself, for a backend that plays it without hardware: plain data, kept as JSON. Sizes and
 * offsets are bytes. {@link recordedConfig}, {@link recordedRegion} and {@link recordedInterrupt} answer in a
 * `DeviceBackend`'s words.
 */
export interface DeviceRecording {
  readonly version: typeof RECORDING_VERSION;
  /** Its address on the host: `0000:01:00.0`. */
  readonly name: string;
  /**
   * Where it comes from: `sysfs` knows sizes only, so that flags, areas and interrupts are what vfio-pci would most
   * likely tell; `made` is written by hand, from published facts about a device.
   */
  readonly source: (typeof SOURCES)[number];
  /** Names of sysfs `reset_method`, the preferred one first; empty for a device that cannot be reset alone. */
  readonly resetMethods: readonly string[];
  readonly configSpaceBytes: number;
  /** `lspci -xxxx` lines of sixteen bytes, "40: 05 00 …"; lines of zeros may be left out. */
  readonly configSpace: readonly string[];
  readonly regions: readonly RecordedRegion[];
  readonly interrupts: readonly RecordedInterrupt[];
}

/** A copy of the configuration space's bytes, 256 or 4096. */
export function recordedConfig(recording: DeviceRecording): Uint8Array {
  const bytes = new Uint8Array(recording.configSpaceBytes);
  for (const line of recording.configSpace) {
    const [offset, rest] = line.split(": ");
    bytes.set(
      (rest ?? "").split(" ").map((byte) => Number.parseInt(byte, 16)),
      Number.parseInt(offset ?? "", 16),
    );
  }
  return bytes;
}

/** A region in a backend's words; `undefined` where the device has none. */
export function recordedRegion(recording: DeviceRecording, index: number): RegionInfo | undefined {
  const region = recording.regions.find((candidate) => candidate.index === index);
  if (region === undefined) return undefined;
  return {
    index,
    sizeBytes: region.size,
    isReadable: region.flags.includes("read"),
    isWritable: region.flags.includes("write"),
    mappableAreas: region.mmapAreas.map(({ offset, size }): RegionArea => ({ offset, sizeBytes: size })),
    isMsixMappable: region.msixMappable,
  };
}

/** An interrupt source in a backend's words; `count` is 0 where the device has none of the kind. */
export function recordedInterrupt(recording: DeviceRecording, kind: InterruptKind): InterruptInfo {
  const found = recording.interrupts.find((candidate) => candidate.kind === kind);
  if (found === undefined) return { count: 0, canGrow: false, isAutomasked: false };
  return {
    count: found.count,
    canGrow: !found.flags.includes("noresize"),
    isAutomasked: found.flags.includes("automasked"),
  };
}

/** Configuration space as a recording keeps it. */
export function hexLines(bytes: Uint8Array): readonly string[] {
  const lines: string[] = [];
  for (let row = 0; row < bytes.length; row += LINE_BYTES) {
    const part = bytes.subarray(row, row + LINE_BYTES);
    if (part.every((byte) => byte === 0)) continue;
    const digits = Array.from(part, (byte) => byte.toString(16).padStart(2, "0"));
    lines.push(`${row.toString(16).padStart(2, "0")}: ${digits.join(" ")}`);
  }
  return lines;
}

/** The text of a recording's file: JSON, a line for a line of bytes. */
export function formatRecording(recording: DeviceRecording): string {
  return `${JSON.stringify(recording, undefined, 2)}\n`;
}

/**
 * Reads a recording's file and checks all of it, so that who replays it need not.
 *
 * @throws SpecError naming the part that is wrong: `regions[1].mmapAreas[0]`.
 */
export function parseRecording(text: string): DeviceRecording {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new SpecError(
      "TSVMM_RECORDING_INVALID",
      "",
      `a recording has to be JSON: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  const top = record("", parsed);
  const { version, name } = top;
  const source = SOURCES.find((known) => known === top["source"]);
  if (version !== RECORDING_VERSION) {
    throw new SpecError(
      "TSVMM_RECORDING_VERSION",
      "version",
      `this program reads version ${RECORDING_VERSION}, not ${String(version)}`,
    );
  }
  if (typeof name !== "string" || name === "")
    throw new SpecError("TSVMM_RECORDING_INVALID", "name", "a name is needed");
  if (source === undefined) throw new SpecError("TSVMM_RECORDING_INVALID", "source", "is none of vfio, sysfs and made");
  const configSpaceBytes = whole("configSpaceBytes", top["configSpaceBytes"]);
  if (!CONFIG_SIZES.includes(configSpaceBytes))
    throw new SpecError("TSVMM_RECORDING_INVALID", "configSpaceBytes", "is neither 256 nor 4096");
  const regions = list("regions", top["regions"]).map((item, at) => readRegion(`regions[${at}]`, item));
  unique(
    "regions",
    regions.map(({ index }) => String(index)),
  );
  const interrupts = list("interrupts", top["interrupts"]).map((item, at) => readInterrupt(`interrupts[${at}]`, item));
  unique(
    "interrupts",
    interrupts.map(({ kind }) => kind),
  );
  return {
    version,
    name,
    source,
    resetMethods: list("resetMethods", top["resetMethods"]).map((item, at) => word(`resetMethods[${at}]`, item)),
    configSpaceBytes,
    configSpace: list("configSpace", top["configSpace"]).map((item, at) =>
      readLine(`configSpace[${at}]`, item, configSpaceBytes),
    ),
    regions,
    interrupts,
  };
}

function readRegion(where: string, item: unknown): RecordedRegion {
  const { index, size, flags, mmapAreas, msixMappable } = record(where, item);
  const region = {
    index: whole(`${where}.index`, index),
    size: whole(`${where}.size`, size),
    flags: choices(`${where}.flags`, flags, REGION_FLAGS),
    msixMappable: msixMappable === true,
  };
  if (region.index >= REGION_COUNT)
    throw new SpecError("TSVMM_RECORDING_INVALID", `${where}.index`, `has to be under ${REGION_COUNT}`);
  if (typeof msixMappable !== "boolean")
    throw new SpecError("TSVMM_RECORDING_INVALID", `${where}.msixMappable`, "is neither true nor false");
  let end = 0;
  const areas = list(`${where}.mmapAreas`, mmapAreas).map((area, at) => {
    const place = `${where}.mmapAreas[${at}]`;
    const fields = record(place, area);
    const found = { offset: whole(`${place}.offset`, fields["offset"]), size: whole(`${place}.size`, fields["size"]) };
    if (found.offset < end)
      throw new SpecError("TSVMM_RECORDING_INVALID", place, "overlaps the area before it, or is out of order");
    end = found.offset + found.size;
    if (found.size === 0 || end > region.size)
      throw new SpecError("TSVMM_RECORDING_INVALID", place, "is empty or lies outside its region");
    return found;
  });
  if (areas.length > 0 && !region.flags.includes("mmap"))
    throw new SpecError("TSVMM_RECORDING_INVALID", `${where}.flags`, "lack mmap");
  return { ...region, mmapAreas: areas };
}

function readInterrupt(where: string, item: unknown): RecordedInterrupt {
  const { kind, count, flags } = record(where, item);
  const found = INTERRUPT_KINDS.find((candidate) => candidate === kind);
  if (found === undefined)
    throw new SpecError("TSVMM_RECORDING_INVALID", `${where}.kind`, `is none of ${INTERRUPT_KINDS.join(", ")}`);
  return {
    kind: found,
    count: whole(`${where}.count`, count),
    flags: choices(`${where}.flags`, flags, INTERRUPT_FLAGS),
  };
}

function readLine(where: string, item: unknown, sizeBytes: number): string {
  const line = word(where, item);
  if (!/^[0-9a-f]{2,3}: [0-9a-f]{2}( [0-9a-f]{2}){15}$/.test(line)) {
    throw new SpecError("TSVMM_RECORDING_INVALID", where, "is not an offset, a colon and sixteen bytes in hexadecimal");
  }
  const offset = Number.parseInt(line, 16);
  if (offset % LINE_BYTES !== 0 || offset >= sizeBytes)
    throw new SpecError("TSVMM_RECORDING_INVALID", where, "has no offset in the space");
  return line;
}

function record(where: string, value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new SpecError("TSVMM_RECORDING_INVALID", where, "an object is needed");
  }
  return Object.fromEntries(Object.entries(value));
}

function list(where: string, value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new SpecError("TSVMM_RECORDING_INVALID", where, "a list is needed");
  return value;
}

function word(where: string, value: unknown): string {
  if (typeof value !== "string") throw new SpecError("TSVMM_RECORDING_INVALID", where, "a text is needed");
  return value;
}

function whole(where: string, value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new SpecError("TSVMM_RECORDING_INVALID", where, "a whole number that is not negative is needed");
}

function choices<Choice extends string>(where: string, value: unknown, known: readonly Choice[]): readonly Choice[] {
  return list(where, value).map((item) => {
    const found = known.find((candidate) => candidate === item);
    if (found === undefined)
      throw new SpecError("TSVMM_RECORDING_INVALID", where, `${JSON.stringify(item)} is none of ${known.join(", ")}`);
    return found;
  });
}

function unique(where: string, keys: readonly string[]): void {
  if (new Set(keys).size !== keys.length) throw new SpecError("TSVMM_RECORDING_INVALID", where, "one is given twice");
}
