import type { FuzzedFunction } from "./world.ts";

/**
 * A base address register as the specification describes it, apart from the code under test. PCI Local Bus 3.0 §6.2.5
 */
export interface BarModel {
  readonly index: number;
  readonly kind: "io" | "mem32" | "mem64" | "rom";
  readonly sizeBytes: number;
}

const ROM = 6;

/** Offset of a base address register, or of the ROM's. */
export const registerOf = (index: number): number => (index === ROM ? 0x30 : 0x10 + 4 * index);

/** BARs from a recording's regions and the low bits of its registers. */
export function replayedBars(backend: NonNullable<FuzzedFunction["backend"]>): readonly BarModel[] {
  const bars: BarModel[] = [];
  for (const index of [0, 1, 2, 3, 4, 5, ROM]) {
    const sizeBytes = backend.region(index)?.sizeBytes ?? 0;
    if (sizeBytes === 0) continue;
    const flags = backend.config.getUint8(registerOf(index));
    const memory = (flags & 6) === 4 ? "mem64" : "mem32";
    bars.push({ index, kind: index === ROM ? "rom" : (flags & 1) !== 0 ? "io" : memory, sizeBytes });
  }
  return bars;
}
