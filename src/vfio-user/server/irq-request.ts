import type { Fd } from "../../base/units.ts";
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
} from "../../vfio/abi.ts";

/** A SET_IRQS of the client. */
export interface IrqRequest {
  readonly index: number;
  readonly flags: number;
  readonly start: number;
  readonly count: number;
  /** What follows the struct: a byte each with DATA_BOOL. */
  readonly data: Uint8Array;
  readonly descriptors: readonly Fd[];
}

/** What a request that holds together asks for. Vectors are those of its range. */
export type IrqAction =
  | { readonly kind: "off" }
  | { readonly kind: "trigger"; readonly vectors: readonly number[] } // now, by the client's word
  | { readonly kind: "mask"; readonly vectors: readonly number[]; readonly isMasked: boolean }
  | { readonly kind: "connect"; readonly start: number; readonly files: readonly (Fd | undefined)[] }
  | { readonly kind: "unmaskOn"; readonly file: Fd | undefined };

const ACTIONS: number = VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_ACTION_TRIGGER;
const U32_MAX = 0xffff_ffff;

/**
 * Checks a request as the kernel's vfio_set_irqs_validate_and_prepare does, and what travels beside the message as
 * libvfio-user's device_set_irqs_validate does.
 *
 * @param vectors How many the index has.
 * @returns `undefined` for a request that does not hold together.
 */
export function parseIrqRequest(request: IrqRequest, vectors: number): IrqAction | undefined {
  const { flags, start, count, data, descriptors } = request;
  const action = flags & ACTIONS;
  const dataKind = flags & ~ACTIONS;
  if (count >= U32_MAX - start || start >= vectors || start + count > vectors) return undefined;
  if (count === 0) {
    const isOff = action === VFIO_IRQ_SET_ACTION_TRIGGER && dataKind === VFIO_IRQ_SET_DATA_NONE && start === 0;
    return isOff && descriptors.length === 0 ? { kind: "off" } : undefined;
  }
  const range = Array.from({ length: count }, (_, place) => start + place);
  switch (dataKind) {
    case VFIO_IRQ_SET_DATA_NONE:
      return descriptors.length === 0 ? now(action, range) : undefined;
    case VFIO_IRQ_SET_DATA_BOOL:
      if (descriptors.length !== 0 || data.length !== count) return undefined;
      return now(
        action,
        range.filter((_, place) => data[place] !== 0),
      );
    case VFIO_IRQ_SET_DATA_EVENTFD: {
      if (descriptors.length !== 0 && descriptors.length !== count) return undefined;
      const files = range.map((_, place) => descriptors[place]);
      if (action === VFIO_IRQ_SET_ACTION_TRIGGER) return { kind: "connect", start, files };
      // The kernel has no event for a masking either.
      return action === VFIO_IRQ_SET_ACTION_UNMASK && count === 1 ? { kind: "unmaskOn", file: files[0] } : undefined;
    }
    default:
      return undefined;
  }
}

function now(action: number, vectors: readonly number[]): IrqAction | undefined {
  switch (action) {
    case VFIO_IRQ_SET_ACTION_TRIGGER:
      return { kind: "trigger", vectors };
    case VFIO_IRQ_SET_ACTION_MASK:
      return { kind: "mask", vectors, isMasked: true };
    case VFIO_IRQ_SET_ACTION_UNMASK:
      return { kind: "mask", vectors, isMasked: false };
    default:
      return undefined;
  }
}
