import type { Width } from "../../../src/base/units.ts";

/** One step of a run: an access of the guest, which reads without `value`, or something that happens on the host. */
export type Operation =
  | {
      readonly op: "access";
      readonly bus: "ports" | "mmio";
      readonly address: number;
      readonly width: Width;
      readonly value?: number;
    }
  /** So many bytes are typed at the serial port. */
  | { readonly op: "type"; readonly count: number }
  /** Time passes. */
  | { readonly op: "pass"; readonly ms: number }
  /** Somebody sets the host's clock, forwards or back. */
  | { readonly op: "setHost"; readonly byMs: number }
  | { readonly op: "powerButton" }
  | { readonly op: "requestEject"; readonly slot: number };

/** First port of each device, with how many it has; a machine's map. */
export const PORTS = {
  i8042: [0x60, 5],
  clock: [0x70, 2],
  postCode: [0x80, 1],
  scratch: [0xe0, 4],
  flush: [0xe4, 4],
  scratchBytes: [0xe8, 4],
  output: [0xf1, 1],
  debugExit: [0xf4, 4],
  uart: [0x3f8, 8],
  power: [0x600, 16],
  lines: [0x2000, 24],
} as const;
export type PortDevice = keyof typeof PORTS;

/** The test device's memory. */
export const MEMORY = { base: 0xff00_0000, sizeBytes: 0x1_0000 } as const;

/** What an access is counted under. */
export function kindOf(operation: Operation): string | undefined {
  if (operation.op !== "access") return undefined;
  if (operation.bus === "mmio") return "memory";
  const { address } = operation;
  const found = Object.entries(PORTS).find(([, [base, size]]) => address >= base && address < base + size);
  return found?.[0] ?? "unclaimed";
}
