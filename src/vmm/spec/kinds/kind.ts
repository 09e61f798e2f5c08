import type { Field, Fields, InputOf, SpecOf, ValueOf } from "../fields/field.ts";

/** A part of the specification, and the option of the command line that says the same. */
interface AnyPart<Part extends string> {
  /** Its name in the specification: `disks`. */
  readonly part: Part;
  /** `--disk` */
  readonly option: string;
  /** Heading in the help. */
  readonly group: string;
  /** What the option's help says. */
  readonly help: string;
}

/** A part that is one object of some fields: `memory`. */
export interface ObjectPart<Part extends string = string, F = Fields> extends AnyPart<Part> {
  readonly shape: "object";
  readonly fields: F;
  /** Checks what concerns several fields. @throws SpecError */
  check?(where: string, item: SpecOf<F>): void;
}

/** A part that is a list of such objects: `disks`. */
export interface ListPart<Part extends string = string, F = Fields> extends AnyPart<Part> {
  readonly shape: "list";
  readonly fields: F;
  /**
   * Checks what concerns several fields or items.
   *
   * @param where The item: `disks[1]`.
   * @param before Items before it, complete and checked.
   * @throws SpecError with the path of the field.
   */
  check?(where: string, item: SpecOf<F>, before: readonly SpecOf<F>[]): void;
}

/** A part that is one value: `serial`. */
export interface ValuePart<Part extends string = string, F = Field> extends AnyPart<Part> {
  readonly shape: "value";
  readonly field: F;
}

/** What a kind of device has beside its part of the specification. */
export interface KindFacts {
  /** Its name in the reference: `disk`. */
  readonly kind: string;
  /** A sentence or two for the reference. */
  readonly about: string;
  /** Its name in Cloud Hypervisor's VmConfig, which an HTTP API takes as JSON; absent where that has no such device. */
  readonly cloudHypervisor?: string;
  /** Whether the device is not of this program: a function of the host, or of another process. */
  readonly isPassedThrough: boolean;
  /**
   * URL of a module whose default export is the factory, for kinds that are added to those of this program. The device
   * thread loads it.
   */
  readonly factory?: string;
}

export type ObjectKind<Part extends string = string, F = Fields> = ObjectPart<Part, F> & KindFacts;
export type ListKind<Part extends string = string, F = Fields> = ListPart<Part, F> & KindFacts;
export type ValueKind<Part extends string = string, F = Field> = ValuePart<Part, F> & KindFacts;

/** A part of the specification. */
export type PartDescription = ObjectPart | ListPart | ValuePart;
/** A kind of device: everything about it that is not code of the device thread. */
export type KindDescription = ObjectKind | ListKind | ValueKind;

/** The type of a complete part. */
export type PartOf<D> =
  D extends ObjectPart<string, infer F>
    ? SpecOf<F>
    : D extends ListPart<string, infer F>
      ? readonly SpecOf<F>[]
      : D extends ValuePart<string, infer F>
        ? ValueOf<F>
        : never;

/** The type of a part as a caller gives it. */
export type PartInputOf<D> =
  D extends ObjectPart<string, infer F>
    ? InputOf<F>
    : D extends ListPart<string, infer F>
      ? readonly InputOf<F>[]
      : D extends ValuePart<string, infer F>
        ? ValueOf<F>
        : never;
