import type { Width } from "../../../src/base/units.ts";
import type { HostEvent } from "./world.ts";

/**
 * One step of a fuzzed run, as plain data. Its meaning does not depend on earlier steps, so a list of them can be
 * stored, cut and replayed. `fn` is an index into the world's functions. Without `value` an access reads.
 */
export type Operation =
  | {
      readonly op: "config";
      readonly fn: number;
      readonly via: "ecam" | "ports";
      readonly offset: number;
      readonly width: Width;
      readonly value?: number;
    }
  /** At the address that the BAR's registers hold, decoded or not. */
  | {
      readonly op: "bar";
      readonly fn: number;
      readonly bar: number;
      readonly offset: number;
      readonly width: Width;
      readonly value?: number;
    }
  /** Eight bytes, as two halves. */
  | {
      readonly op: "wide";
      readonly fn: number;
      readonly bar: number;
      readonly offset: number;
      readonly value?: readonly [low: number, high: number];
    }
  | {
      readonly op: "absolute";
      readonly bus: "mmio" | "ports";
      readonly address: number;
      readonly width: Width;
      readonly value?: number;
    }
  /** The guest's own store to RAM: rings and descriptors. The address is from the start of RAM. */
  | { readonly op: "ram"; readonly offset: number; readonly width: Width; readonly value: number }
  /** A device signals a vector that the host has armed. */
  | { readonly op: "signal"; readonly fn: number; readonly vector: number }
  | { readonly op: "host"; readonly event: HostEvent }
  /** A well-behaved driver resets a virtio device and uses it: it has to work, whatever was done to it before. */
  | { readonly op: "probe"; readonly fn: number }
  | { readonly op: "resetMachine" };

/** True for what a guest does, which is what is counted. */
export const isAccess = (operation: Operation): boolean =>
  ["config", "bar", "wide", "absolute", "ram"].includes(operation.op);
