import { fresh, guestImage, mark } from "./program.ts";

/** A guest that ends the machine with its first instructions. */
export const exitGuest = (): Uint8Array =>
  guestImage((a) => {
    mark(a, "!");
  });

/** A guest that prints a mark and halts with interrupts off. */
export const haltGuest = (): Uint8Array =>
  guestImage((a) => {
    const label = fresh("halt");
    mark(a, "!");
    a.label(label).hlt().jmp(label);
  });
