import type { Field, Fields } from "../../vmm/spec/fields/field.ts";
import type { PartDescription } from "../../vmm/spec/kinds/kind.ts";
import { FOREIGN_KEYS } from "./foreign-keys.ts";
import type { KeyRow, OptionRow } from "./option-table.ts";

/** A field that the command line has. */
export type KeyedField = Field & { readonly key: string };

/** Fields that the command line has, with their names in the specification. */
export function keyedFields(fields: Fields): readonly (readonly [name: string, field: KeyedField])[] {
  return Object.entries(fields).flatMap(([name, field]) => {
    const { key } = field;
    return key === undefined ? [] : [[name, { ...field, key }] as const];
  });
}

/** The field that a first item sets which names no key: the required one, or the first. */
export function defaultField(fields: Fields): KeyedField | undefined {
  const keyed = keyedFields(fields).map(([, field]) => field);
  return keyed.find(({ isRequired }) => isRequired) ?? keyed[0];
}

/** The keys that an option takes: those of the fields, then what other VMMs have. */
export function keysOf(option: string, fields: Fields): readonly KeyRow[] {
  const own = keyedFields(fields).map(
    ([, { key, aliases, value = "", help }]): KeyRow => ({
      ...{ name: key, value, help },
      ...(aliases === undefined ? {} : { aliases }),
    }),
  );
  return [...own, ...(FOREIGN_KEYS[option]?.keys ?? [])];
}

/** The option that says the same as a part of the specification. */
export function optionRow(description: PartDescription): OptionRow {
  const { option: name, group, help } = description;
  if (description.shape === "value") {
    return { name, group, help, form: { kind: "value", value: description.field.value ?? "VALUE" } };
  }
  const { fields, shape } = description;
  const first = defaultField(fields);
  const kind = shape === "list" ? "list" : "keys";
  const form = {
    kind,
    value: first?.value ?? "VALUE",
    keys: keysOf(name, fields),
    defaultKey: first?.key ?? "",
  } as const;
  return { name, group, help, form };
}
