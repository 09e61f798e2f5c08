import { HostError } from "../../base/errors.ts";
import { hex, sizeText } from "../../base/units.ts";
import type { PciWindows } from "../../pci/bar-placement.ts";
import { type BarRequest, ROM_BAR } from "../../pci/function.ts";
import { type MemoryLayout, pciPortWindows } from "./memory-map.ts";

/** A BAR and the function it is of: `0000:01:00.0`. */
export interface OwnedBar {
  readonly owner: string;
  readonly request: BarRequest;
}

/** What the root of a machine decodes. */
export function rootWindows(layout: MemoryLayout, hasTestDevice: boolean): PciWindows {
  return {
    ports: pciPortWindows(hasTestDevice),
    memory32: [layout.pciWindow32],
    memory64: layout.pciWindows64,
  };
}

/**
 * The error of a machine whose BARs do not all fit. It names the largest that does not, what BARs of its kind take
 * together, and what is there for them.
 *
 * @returns `undefined` when all fit.
 */
export function unplacedBarError(
  unplaced: readonly OwnedBar[],
  all: readonly OwnedBar[],
  windows: PciWindows,
): HostError | undefined {
  const [first, ...others] = [...unplaced].sort((a, b) => b.request.sizeBytes - a.request.sizeBytes);
  if (first === undefined) return undefined;
  const { owner, request } = first;
  const { kind } = request;
  const ranges = kind === "io" ? windows.ports : kind === "mem64" ? windows.memory64 : windows.memory32;
  const room = ranges.map(({ base, sizeBytes }) => `${hex(base)}-${hex(base + sizeBytes - 1)}`).join(", ");
  const sameKind = all.filter((bar) => KIND_TEXTS[bar.request.kind] === KIND_TEXTS[kind]);
  const sum = sameKind.reduce((total, bar) => total + bar.request.sizeBytes, 0);
  const more = others.length === 0 ? "" : `, nor have ${others.length} more`;
  const size = `${KIND_TEXTS[kind]} of ${sizeText(request.sizeBytes)}`;
  return new HostError(
    "TSVMM_BAR_NO_ROOM",
    `Cannot place ${request.index === ROM_BAR ? "the expansion ROM" : `BAR ${request.index}`} of ${owner}: ` +
      `${size} has no room${more}; BARs of this kind take ${sizeText(sum)}, ` +
      `the guest has ${room || "nothing"} for them`,
    remedyFor(first),
  );
}

const KIND_TEXTS: Readonly<Record<BarRequest["kind"], string>> = {
  io: "a range of ports",
  mem32: "32-bit memory",
  rom: "32-bit memory",
  mem64: "64-bit memory",
};

function remedyFor({ owner, request: { kind, index } }: OwnedBar): string {
  if (kind === "rom") return "leave the ROM out: rom=off";
  if (kind !== "mem64") return "pass fewer devices";
  return (
    "give the guest less memory or fewer devices, or make a resizable BAR smaller on the host: " +
    `/sys/bus/pci/devices/${owner}/resource${index}_resize`
  );
}
