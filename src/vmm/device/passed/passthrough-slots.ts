import type { PassthroughFunction } from "../../../passthrough/function.ts";
import type { Bdf } from "../../../pci/bdf.ts";
import { PCI_INTERRUPT_PIN } from "../../../pci/ids.ts";
import type { PciRoot } from "../../../pci/root.ts";

/** Where a function comes from and where the user wants it. */
export interface SlotWish {
  readonly host: Bdf;
  /** Virtual functions share a slot number with others by arithmetic only. */
  readonly isVirtual: boolean;
  /** Guest slot the user asked for. */
  readonly slot: number | undefined;
}

/** Functions that go into one slot of the guest. */
export interface SlotGroup {
  /** Any free one when absent. */
  readonly slot: number | undefined;
  /** By index in the list of wishes; the first one is function 0. */
  readonly members: readonly { readonly index: number; readonly functionNumber: number }[];
}

/**
 * Keeps functions of one host slot together in one guest slot, under their own numbers. Drivers of such devices (a
 * graphics card and its sound, a bridge of two ports) search there for each other. A wish for function 0 moves them
 * all; one for another function takes that one out, as function 0 of the slot it asked for. Where the host's function 0
 * is not passed, the lowest takes its number: without one a guest would look no further.
 */
export function groupBySlot(wishes: readonly SlotWish[]): readonly SlotGroup[] {
  const together = new Map<string, { index: number; wish: SlotWish }[]>();
  for (const [index, wish] of wishes.entries()) {
    const { segment, bus, device, function: functionNumber } = wish.host;
    const isAlone = wish.isVirtual || (wish.slot !== undefined && functionNumber !== 0);
    const key = isAlone ? `alone ${index}` : `${segment}:${bus}:${device}`;
    together.set(key, [...(together.get(key) ?? []), { index, wish }]);
  }
  return [...together.values()].map((found): SlotGroup => {
    const sorted = found.sort((a, b) => a.wish.host.function - b.wish.host.function);
    return {
      slot: sorted[0]?.wish.slot,
      members: sorted.map(({ index, wish }, place) => ({
        index,
        functionNumber: place === 0 ? 0 : wish.host.function,
      })),
    };
  });
}

/** Puts a function into its slot and wires its INTx, whichever of the four pins it has. */
export function plugPassthrough(root: PciRoot, fn: PassthroughFunction, slot: number, functionNumber: number): void {
  root.plug(fn, slot, functionNumber);
  const pin = fn.config.get8(PCI_INTERRUPT_PIN);
  if (pin !== 0) fn.wireIntx(root.interruptGsi(slot, pin));
}
