import { SpecError } from "../../../base/errors.ts";
import type { BytesField, Field, Fields, IntegerField, PathField, SpecOf, VariantsField } from "./field.ts";
import { checkDisk, checkImage, checkSocket, checkSource, needPath, resolvePciFunction } from "./spec-paths.ts";

/** What a caller gave, before it was checked. */
export type Given = Readonly<Record<string, unknown>>;

/** Most characters of a name; it stands in every message about the device. */
const MAX_ID = 64;

/** Letters, digits, dots, dashes and underscores; those with `_` in front are made here, by place. */
export const ID_PATTERN = "[\\w.-]+";

/** A value as messages show it. */
function shown(value: unknown): string {
  if (typeof value === "string") return `'${value}'`;
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" && value !== null ? "an object" : String(value);
}

/** @throws SpecError when it is not an object of named values */
export function asObject(where: string, value: unknown): Given {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new SpecError("TSVMM_VALUE_INVALID", where, `${shown(value)} is not an object`);
  }
  // Cast: an object has properties by name.
  return value as Given;
}

/** @throws SpecError when it is not a list */
export function asList(where: string, value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw new SpecError("TSVMM_VALUE_INVALID", where, `${shown(value)} is not a list`);
}

/** @throws SpecError for a name that none of these is */
export function refuseOthers(where: string, given: Given, names: readonly string[]): void {
  for (const name of Object.keys(given)) {
    if (names.includes(name) || given[name] === undefined) continue;
    throw new SpecError("TSVMM_UNKNOWN_OPTION", where, `there is no field '${name}' (fields: ${names.join(", ")})`);
  }
}

/**
 * Fills in what an object of fields leaves out, and checks each.
 *
 * @param where The object: `disks[0]`; empty for the machine.
 * @param place In its list; names without a choice are made of it.
 * @throws SpecError with the path of the first problem.
 */
export function completeFields<F extends Fields>(where: string, fields: F, given: Given, place = 0): SpecOf<F> {
  const values: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(fields)) {
    const path = where === "" ? name : `${where}.${name}`;
    const value = completeValue(path, field, given[name], place);
    if (value !== undefined) values[name] = value;
  }
  // Cast: each field was completed after its row, which the type is made of.
  return values as SpecOf<F>;
}

/** As {@link completeFields} for one value; `undefined` where it may stay away. */
export function completeValue(where: string, field: Field, given: unknown, place = 0): unknown {
  const value = given === undefined ? defaultOf(field, place) : given;
  if (value === undefined && field.isRequired !== true) return undefined;
  switch (field.type) {
    case "path":
      return checkPath(where, field, value);
    case "id":
      return checkId(where, value, `${field.prefix}${place}`);
    case "text":
      if (typeof value !== "string") throw new SpecError("TSVMM_VALUE_INVALID", where, `${shown(value)} is not a text`);
      if (field.pattern !== undefined && !new RegExp(`^(?:${field.pattern})$`).test(value))
        throw new SpecError("TSVMM_VALUE_INVALID", where, `'${value}' is not ${field.isNot ?? "possible here"}`);
      return value;
    case "integer":
      return checkInteger(where, field, value);
    case "bytes":
      return checkBytes(where, field, value);
    case "boolean":
      if (typeof value !== "boolean")
        throw new SpecError("TSVMM_VALUE_INVALID", where, `${shown(value)} is neither true nor false`);
      return value;
    case "choice":
      if (typeof value === "string" && field.choices.includes(value)) return value;
      throw new SpecError("TSVMM_VALUE_INVALID", where, `${shown(value)} is ${noneOf(field.choices)}`);
    case "integers":
      return asList(where, value).map((item) => inRange(where, item, field.least, field.most));
    case "variants":
      return checkVariant(where, field, value);
    default:
      return field satisfies never;
  }
}

const defaultOf = (field: Field, place: number): unknown =>
  field.type === "id" ? `${field.prefix}${place}` : field.default;

/** `neither map nor trap`, `none of a, b, c` */
function noneOf(choices: readonly string[]): string {
  return choices.length === 2 ? `neither ${choices.join(" nor ")}` : `none of ${choices.join(", ")}`;
}

function inRange(where: string, value: unknown, least: number, most: number): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
  throw new SpecError("TSVMM_VALUE_INVALID", where, `${shown(value)} is not a whole number from ${least} to ${most}`);
}

function checkInteger(where: string, { least, most, word, refusals }: IntegerField, value: unknown): number | string {
  if (word !== undefined && value === word) return word;
  const refusal = typeof value === "number" ? refusals?.[value] : undefined;
  if (refusal !== undefined) throw new SpecError("TSVMM_VALUE_INVALID", where, refusal);
  return inRange(where, value, least, most);
}

function checkBytes(where: string, field: BytesField, value: unknown): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value)) {
    throw new SpecError("TSVMM_VALUE_INVALID", where, `${shown(value)} is not a size in bytes`);
  }
  const { least, most, multipleOf, tooFew, tooMany, unit } = field;
  if (value < least) throw new SpecError("TSVMM_VALUE_INVALID", where, `${value} bytes are too few: ${tooFew}`);
  if (value > most) throw new SpecError("TSVMM_VALUE_INVALID", where, `${value} bytes are too many: ${tooMany}`);
  if (value % multipleOf !== 0)
    throw new SpecError("TSVMM_VALUE_INVALID", where, `${value} bytes are not a multiple of ${unit}`);
  return value;
}

function checkId(where: string, value: unknown, automatic: string): string {
  if (typeof value !== "string" || !new RegExp(`^${ID_PATTERN}$`).test(value)) {
    throw new SpecError(
      "TSVMM_VALUE_INVALID",
      where,
      `${shown(value)} may have letters, digits, dots, dashes and underscores only`,
    );
  }
  if (value.length > MAX_ID)
    throw new SpecError("TSVMM_VALUE_INVALID", where, `'${value}' has more than ${MAX_ID} characters`);
  if (value.startsWith("_") && value !== automatic)
    throw new SpecError("TSVMM_VALUE_INVALID", where, `'${value}' begins with an underscore, which is reserved`);
  return value;
}

function checkPath(where: string, { leadsTo, ifMissing }: PathField, value: unknown): string {
  if (ifMissing !== undefined && (value === undefined || value === ""))
    throw new SpecError("TSVMM_VALUE_MISSING", where, ifMissing);
  if (leadsTo === "pciFunction") return resolvePciFunction(where, value);
  const path = needPath(where, value);
  switch (leadsTo) {
    case "image":
      checkImage(where, path);
      return path;
    case "disk":
      checkDisk(where, path);
      return path;
    case "socket":
      checkSocket(where, path);
      return path;
    case "source":
      checkSource(where, path);
      return path;
    default:
      return leadsTo satisfies never;
  }
}

function checkVariant(where: string, field: VariantsField, value: unknown): Given {
  const { plain, withPath, leadsTo, most, key } = field;
  const given = asObject(where, value);
  const { kind, path } = given;
  if (typeof kind !== "string" || ![...plain, ...withPath].includes(kind)) {
    throw new SpecError("TSVMM_VALUE_INVALID", where, `${shown(kind)} is ${noneOf([...plain, ...withPath])}`);
  }
  const needsPath = withPath.includes(kind);
  refuseOthers(where, given, needsPath ? ["kind", "path"] : ["kind"]);
  if (!needsPath) return { kind };
  if (typeof path !== "string" || path === "") {
    throw new SpecError(
      "TSVMM_VALUE_MISSING",
      where,
      `a path is needed: ${key === undefined ? "" : `${key}=`}${kind}=/some/where`,
    );
  }
  needPath(where, path);
  if (leadsTo === "image") checkImage(where, path, most);
  return { kind, path };
}
