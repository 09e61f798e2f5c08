import { SpecError } from "../../base/errors.ts";
import type { Given } from "../../vmm/spec/fields/check.ts";
import type { Field, Fields, IntegerField, VariantsField } from "../../vmm/spec/fields/field.ts";
import type { PartDescription } from "../../vmm/spec/kinds/kind.ts";
import { FOREIGN_KEYS } from "./foreign-keys.ts";
import { readKeys } from "./key-values.ts";
import { defaultField, keyedFields, keysOf } from "./part-options.ts";
import { didYouMean } from "./suggest.ts";
import { readChoice, readInteger, readIntegers, readPath, readSize, readSwitch } from "./values.ts";

/**
 * Reads the values of an option that says a part of the specification.
 *
 * @param texts Its values; one at most unless the part is a list.
 * @param home What `~/` stands for at the start of a path.
 * @returns The part, not checked yet; `undefined` when the option was not given.
 * @throws SpecError under the option's name.
 */
export function readPart(description: PartDescription, texts: readonly string[] | undefined, home: string): unknown {
  const [text] = texts ?? [];
  if (texts === undefined || text === undefined) return undefined;
  const { option } = description;
  switch (description.shape) {
    case "value":
      return readField(option, description.field, text.replaceAll('"', ""), home);
    case "object":
      return readItem(option, description.fields, text, home);
    case "list":
      return texts.map((one) => readItem(option, description.fields, one, home));
    default:
      return description satisfies never;
  }
}

/** Reads one `key=value,key=value`. */
function readItem(option: string, fields: Fields, text: string, home: string): Given {
  const first = defaultField(fields);
  const given = readKeys(option, text, keysOf(option, fields), first?.key ?? "");
  if (first?.isRequired === true && !given.has(first.key)) {
    throw new SpecError("TSVMM_VALUE_MISSING", option, `'${text}' has no ${first.key}=`);
  }
  const values: Record<string, unknown> = { ...FOREIGN_KEYS[option]?.read?.(given, home) };
  for (const [name, field] of keyedFields(fields)) {
    const value = given.get(field.key);
    if (value === undefined) continue;
    // What an item is about needs no name.
    const where = field.key === first?.key ? option : `${option} ${field.key}`;
    values[name] = readField(where, field, value, home);
  }
  return values;
}

function readField(where: string, field: Field, text: string, home: string): unknown {
  switch (field.type) {
    case "text":
    case "id":
      return text;
    case "path":
      return readPath(text, home);
    case "integer":
      return readNumber(where, field, text);
    case "bytes":
      return readSize(where, text);
    case "boolean":
      return readSwitch(where, text);
    case "choice":
      return readChoice(where, text, field.choices);
    case "integers":
      return readIntegers(where, text);
    case "variants":
      return readVariant(where, field, text, home);
    default:
      return field satisfies never;
  }
}

function readNumber(where: string, { word, unit }: IntegerField, text: string): number | string {
  if (word === undefined) return readInteger(where, text);
  if (text === word) return word;
  if (!/^\d+$/.test(text)) {
    throw new SpecError(
      "TSVMM_VALUE_INVALID",
      where,
      `'${text}' is neither ${word} nor a number${unit === undefined ? "" : ` of ${unit}`}`,
    );
  }
  return readInteger(where, text);
}

/** Reads `tty`, `file=PATH`. */
function readVariant(where: string, field: VariantsField, text: string, home: string): Given {
  const { plain, apiOnly = [], withPath, key } = field;
  const words = plain.filter((word) => !apiOnly.includes(word));
  const [, kind = text, path] = /^(\w+)=(.*)$/s.exec(text) ?? [];
  if (withPath.includes(kind)) {
    if (path === undefined)
      throw new SpecError("TSVMM_VALUE_MISSING", where, `'${kind}' needs a path: ${kind}=/some/where`);
    if (path === "") {
      const prefix = key === undefined ? "" : `${key}=`;
      throw new SpecError("TSVMM_VALUE_MISSING", where, `a path is needed: ${prefix}${kind}=/some/where`);
    }
    return { kind, path: readPath(path, home) };
  }
  if (words.includes(text)) return { kind: text };
  const guess = didYouMean(kind, [...words, ...withPath]);
  const choices = [...words, ...withPath.map((word) => `${word}=PATH`)];
  throw new SpecError("TSVMM_VALUE_INVALID", where, `'${text}' is none of ${choices.join(", ")}${guess}`);
}
