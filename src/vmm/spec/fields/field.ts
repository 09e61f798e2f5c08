/*
 * A field of a specification, described once. The TypeScript type, the check, the command line's key, the JSON schema
 * and the reference are derived from these rows. Rows are `as const` literals, so that types can be.
 */

/** What every field has. */
interface AnyField {
  /** What it is for, as the help says it. */
  readonly help: string;
  /** Its key on the command line; Cloud Hypervisor's where it has one. Absent: the typed API alone has the field. */
  readonly key?: string;
  /** Other spellings of the key that are taken. */
  readonly aliases?: readonly string[];
  /** What stands for the value in the help: `PATH`, `on|off`. */
  readonly value?: string;
  /** There is no item without it. */
  readonly isRequired?: true;
  /** Taken when it is left out. A field without one, that is not required either, stays out. */
  readonly default?: unknown;
}

/** A text. */
export interface TextField extends AnyField {
  readonly type: "text";
  /** A regular expression that all of it matches. */
  readonly pattern?: string;
  /** What a text that does not match is not: `1 to 20 printable ASCII characters`. */
  readonly isNot?: string;
}

/** The name of a device in messages; made of the prefix and its place where it is left out. */
export interface IdField extends AnyField {
  readonly type: "id";
  readonly prefix: string;
}

/**
 * A path. `image`: a file to load; `disk`: a file or block device; `socket`; `source`: anything that can be read;
 * `pciFunction`: a directory of sysfs, or a PCI address.
 */
export interface PathField extends AnyField {
  readonly type: "path";
  readonly leadsTo: "image" | "disk" | "socket" | "source" | "pciFunction";
  /** What is said where it is missing. */
  readonly ifMissing?: string;
}

/** A whole number; or a word in its place. */
export interface IntegerField extends AnyField {
  readonly type: "integer";
  readonly least: number;
  readonly most: number;
  readonly word?: string;
  /** What is counted, in the plural: `seconds`. */
  readonly unit?: string;
  /** Why a number is refused that users try: by the number. */
  readonly refusals?: Readonly<Record<string, string>>;
}

/** A size in bytes; `512M` on the command line. */
export interface BytesField extends AnyField {
  readonly type: "bytes";
  readonly least: number;
  readonly most: number;
  readonly multipleOf: number;
  /** What is said of too small a size, too large a one, and of what it is no multiple of. */
  readonly tooFew: string;
  readonly tooMany: string;
  readonly unit: string;
}

/** `true` or `false`; `on` or `off` on the command line. */
export interface BooleanField extends AnyField {
  readonly type: "boolean";
}

/** One of some words. */
export interface ChoiceField extends AnyField {
  readonly type: "choice";
  readonly choices: readonly string[];
}

/** A list of whole numbers. */
export interface IntegersField extends AnyField {
  readonly type: "integers";
  readonly least: number;
  readonly most: number;
}

/** `{ kind }`, or `{ kind, path }`; `kind` or `kind=PATH` on the command line. */
export interface VariantsField extends AnyField {
  readonly type: "variants";
  readonly plain: readonly string[];
  /** Those of the plain ones that the typed API alone has. */
  readonly apiOnly?: readonly string[];
  readonly withPath: readonly string[];
  /** `image`: a file to load, of `most` bytes; `output`: it is written to. */
  readonly leadsTo: "image" | "output";
  readonly most?: number;
}

export type Field =
  | TextField
  | IdField
  | PathField
  | IntegerField
  | BytesField
  | BooleanField
  | ChoiceField
  | IntegersField
  | VariantsField;

/** Fields by their names in the specification, in the order of the help. */
export type Fields = Readonly<Record<string, Field>>;

/** The type of a field's value. */
export type ValueOf<F> = F extends { readonly type: "text" | "id" | "path" }
  ? string
  : F extends { readonly type: "integer"; readonly word: infer Word extends string }
    ? number | Word
    : F extends { readonly type: "integer" | "bytes" }
      ? number
      : F extends { readonly type: "boolean" }
        ? boolean
        : F extends { readonly type: "choice"; readonly choices: readonly (infer Choice)[] }
          ? Choice
          : F extends { readonly type: "integers" }
            ? readonly number[]
            : F extends {
                  readonly type: "variants";
                  readonly plain: readonly (infer Plain)[];
                  readonly withPath: readonly (infer WithPath)[];
                }
              ? PlainVariant<Plain> | PathVariant<WithPath>
              : never;

type PlainVariant<Kind> = Kind extends string ? { readonly kind: Kind } : never;
type PathVariant<Kind> = Kind extends string ? { readonly kind: Kind; readonly path: string } : never;

/** Names of fields that a caller must give. */
type Needed<F> = { [Name in keyof F]: F[Name] extends { readonly isRequired: true } ? Name : never }[keyof F];
/** Names of fields that every complete specification has. */
type Always<F> = {
  [Name in keyof F]: F[Name] extends { readonly isRequired: true } | { readonly default: unknown } | IdField
    ? Name
    : never;
}[keyof F];
type Values<F> = { readonly [Name in keyof F]: ValueOf<F[Name]> };

/** Fields as a caller gives them. */
export type InputOf<F> = Pick<Values<F>, Needed<F>> & Partial<Omit<Values<F>, Needed<F>>>;
/** Fields when all defaults are filled in. */
export type SpecOf<F> = Pick<Values<F>, Always<F>> & Partial<Omit<Values<F>, Always<F>>>;
