/** A key inside an option's value: `size` in `--memory size=512M`. */
export interface KeyRow {
  readonly name: string;
  /** Other spellings that are taken, but not taught. */
  readonly aliases?: readonly string[];
  /** What stands for the value in the help: `PATH`, `on|off`. */
  readonly value: string;
  readonly help: string;
  /** Another VMM's key with a value of its own kind: taken, but not taught. */
  readonly isHidden?: boolean;
  /** Another VMM's key that nothing here answers to: why it is refused, whatever its value. */
  readonly refusedBecause?: string;
}

/**
 * How an option takes values. `flag`: none. `count`: none, and it may be repeated. `value`: one word. `keys`: one
 * comma-separated list of keys. `list`: any number of such lists, after one flag or several.
 */
export type OptionForm =
  | { readonly kind: "flag" | "count" }
  | { readonly kind: "value"; readonly value: string }
  | {
      readonly kind: "keys" | "list";
      readonly value: string;
      readonly keys: readonly KeyRow[];
      /** The key of a first item that names none. */
      readonly defaultKey: string;
    };

/** One option: the grammar and the help text are made of these rows. */
export interface OptionRow {
  readonly name: string;
  readonly short?: string;
  readonly group: string;
  readonly form: OptionForm;
  readonly help: string;
}
