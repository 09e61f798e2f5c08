import { SpecError } from "../../base/errors.ts";
import type { KeyRow } from "./option-table.ts";
import { didYouMean } from "./suggest.ts";

/** One item of a comma-separated list: `size=512M`, or a bare `512M`. */
interface Item {
  readonly key: string | undefined;
  readonly value: string;
}

/**
 * Splits at commas that are neither in quotes nor in brackets.
 *
 * @throws SpecError when a quote or bracket is not closed.
 */
export function splitList(option: string, text: string): readonly string[] {
  const parts: string[] = [];
  let part = "";
  let isQuoted = false;
  let depth = 0;
  for (const character of text) {
    if (character === '"') isQuoted = !isQuoted;
    if (!isQuoted && character === "[") depth++;
    if (!isQuoted && character === "]") depth--;
    if (depth < 0) throw new SpecError("TSVMM_VALUE_INVALID", option, `'${text}' closes a bracket that was not opened`);
    if (character === "," && !isQuoted && depth === 0) {
      parts.push(part);
      part = "";
    } else part += character;
  }
  if (isQuoted) throw new SpecError("TSVMM_VALUE_INVALID", option, `'${text}' has a quote that is not closed`);
  if (depth > 0) throw new SpecError("TSVMM_VALUE_INVALID", option, `'${text}' has a bracket that is not closed`);
  parts.push(part);
  return parts;
}

/** Takes quotes off. They group; there are no escapes. */
const unquote = (text: string): string => text.replaceAll('"', "");

function splitItem(text: string): Item {
  const match = /^([A-Za-z_][\w-]*)=(.*)$/s.exec(text);
  const key = match?.[1];
  return key === undefined ? { key, value: unquote(text) } : { key, value: unquote(match?.[2] ?? "") };
}

/**
 * Reads `key=value,key=[value,value],…` against a table of keys.
 *
 * @param defaultKey The key that the first item has when it names none: `--memory 512M`.
 * @returns The values by the keys' first names, quotes taken off.
 * @throws SpecError for unknown and refused keys, keys given twice, and items without a value.
 */
export function readKeys(
  option: string,
  text: string,
  keys: readonly KeyRow[],
  defaultKey: string,
): ReadonlyMap<string, string> {
  const names = keys.filter((row) => row.isHidden !== true).flatMap((row) => [row.name, ...(row.aliases ?? [])]);
  const values = new Map<string, string>();
  for (const [index, part] of splitList(option, text).entries()) {
    const item = splitItem(part);
    if (part === "")
      throw new SpecError(
        "TSVMM_VALUE_MISSING",
        option,
        text === "" ? "a value is needed" : `'${text}' has an empty item`,
      );
    if (item.key === undefined && index > 0) {
      const advice = names.includes(item.value) ? `: write ${item.value}=…` : didYouMean(item.value, names);
      throw new SpecError("TSVMM_VALUE_INVALID", option, `'${item.value}' is not of the form key=value${advice}`);
    }
    const key = item.key ?? defaultKey;
    const row = keys.find((candidate) => candidate.name === key || candidate.aliases?.includes(key));
    if (row === undefined) {
      throw new SpecError(
        "TSVMM_UNKNOWN_OPTION",
        option,
        `unknown key '${key}' (keys: ${names.join(", ")})${didYouMean(key, names)}`,
      );
    }
    if (row.refusedBecause !== undefined)
      throw new SpecError("TSVMM_VALUE_UNSUPPORTED", `${option} ${key}`, row.refusedBecause);
    if (item.value === "")
      throw new SpecError("TSVMM_VALUE_MISSING", option, `${key} needs a value: ${key}=${row.value}`);
    if (values.has(row.name)) throw new SpecError("TSVMM_VALUE_TWICE", option, `${row.name} is given twice`);
    values.set(row.name, item.value);
  }
  return values;
}
