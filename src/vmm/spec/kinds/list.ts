import { CONSOLE, SERIAL } from "./character.ts";
import { DISK } from "./disk.ts";
import type { KindDescription, PartInputOf, PartOf } from "./kind.ts";
import { PASSED_FUNCTION } from "./passed-function.ts";
import { RNG } from "./rng.ts";
import { USER_DEVICE } from "./user-device.ts";

/** All kinds of this program, in the order of the help. Each has a factory in `vmm/device/kinds`. */
export const KINDS: readonly [
  typeof DISK,
  typeof PASSED_FUNCTION,
  typeof USER_DEVICE,
  typeof SERIAL,
  typeof CONSOLE,
  typeof RNG,
] = [DISK, PASSED_FUNCTION, USER_DEVICE, SERIAL, CONSOLE, RNG];

type Kind = (typeof KINDS)[number];

/** The kinds' parts of a complete specification, by name. */
export type KindParts = { readonly [K in Kind as K["part"]]: PartOf<K> };
/** The kinds' parts as a caller gives them. */
export type KindInputs = { readonly [K in Kind as K["part"]]?: PartInputOf<K> };

/** Kinds of programs that use this one, beside {@link KINDS}. */
const added: KindDescription[] = [];

/** Kinds of this program and those that were added. */
export const allKinds = (): readonly KindDescription[] => [...KINDS, ...added];

/**
 * Adds a kind: to specifications, the command line, the schema and the reference. The device threads of machines made
 * from now on load its factory.
 *
 * @returns Takes it out again.
 */
export function addKind(kind: KindDescription): () => void {
  added.push(kind);
  return () => void added.splice(added.indexOf(kind), 1);
}
