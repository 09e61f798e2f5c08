import type { Operation as GuestOperation } from "../accesses/operations.ts";

/**
 * One step: what the guest of random accesses does, or what takes functions away from it. `fn` is an index into the
 * world's functions.
 */
export type Operation =
  | Exclude<GuestOperation, { readonly op: "probe" }>
  /** The guest's `_EJ0`: it lets go of slots, one a bit. */
  | { readonly op: "eject"; readonly slots: number }
  /** The host wants a function back, and asks again later. */
  | { readonly op: "wants"; readonly fn: number }
  /** The host reports an error of a function that it does not recover from. */
  | { readonly op: "error"; readonly fn: number }
  /** The device does not answer any more; no event reports it. */
  | { readonly op: "vanish"; readonly fn: number }
  /** KVM met memory behind a slot that does not answer. */
  | { readonly op: "memoryFault" }
  /** The guest's access is over: what was put off is done. */
  | { readonly op: "turn" };

/** What an operation is counted under; steps of the host alone are not. */
export const kindOf = ({ op }: Operation): string | undefined => (op === "turn" || op === "host" ? undefined : op);
