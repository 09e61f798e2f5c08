import type { Width } from "../../../src/base/units.ts";

/** One step of a machine with a device whose server means harm, or is broken. */
export type Operation =
  /** Connects anew, as a device of the machine or, with `isFunction`, as a passed-through function of a guest. */
  | { readonly op: "open"; readonly isFunction: boolean }
  /** The server tampers with the message after so many, by numbers of a seed. */
  | { readonly op: "tamper"; readonly after: number; readonly seed: number }
  /** The server sends a message that is no reply: a DMA request or a fragment. */
  | { readonly op: "push"; readonly words: readonly number[]; readonly count: number }
  | { readonly op: "read"; readonly region: number; readonly offset: number; readonly width: Width }
  | {
      readonly op: "write";
      readonly region: number;
      readonly offset: number;
      readonly width: Width;
      readonly value: number;
    }
  | { readonly op: "trigger"; readonly kind: "intx" | "msi" | "msix"; readonly start: number; readonly count: number }
  | { readonly op: "disable"; readonly kind: "intx" | "msi" | "msix" }
  | { readonly op: "mask"; readonly how: "mask" | "unmask" | "unmaskOn" }
  | { readonly op: "map" }
  | { readonly op: "place"; readonly address?: number }
  | { readonly op: "reset" }
  /** The device thread comes round. */
  | { readonly op: "turn" };

export const kindOf = ({ op }: Operation): string | undefined => (op === "tamper" || op === "turn" ? undefined : op);
