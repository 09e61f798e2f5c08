import { ID_PATTERN } from "./check.ts";
import type { Field, Fields } from "./field.ts";

/** A schema, or a part of one. JSON Schema 2020-12 */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** Text that a path can be: not empty, no NUL. */
const PATH: JsonSchema = { type: "string", pattern: "^[^\\u0000]+$" };

/** An object of these fields and no others. */
export function fieldsSchema(fields: Fields, more: Readonly<Record<string, JsonSchema>> = {}): JsonSchema {
  const required = Object.entries(fields).flatMap(([name, { isRequired }]) => (isRequired === true ? [name] : []));
  const own = Object.entries(fields).map(([name, field]) => [name, fieldSchema(field)]);
  return {
    type: "object",
    properties: { ...Object.fromEntries(own), ...more },
    ...(required.length === 0 ? {} : { required }),
    additionalProperties: false,
  };
}

/** What can be said of a value without looking at the host. */
export function fieldSchema(field: Field): JsonSchema {
  const { help: description, default: fallback } = field;
  return { description, ...typeSchema(field), ...(fallback === undefined ? {} : { default: fallback }) };
}

function typeSchema(field: Field): JsonSchema {
  switch (field.type) {
    case "text":
      return { type: "string", ...(field.pattern === undefined ? {} : { pattern: `^(?:${field.pattern})$` }) };
    case "id":
      // A name with an underscore in front is that of one place; which one a schema cannot say.
      return { type: "string", maxLength: 64, pattern: `^(?:(?!_)${ID_PATTERN}|${field.prefix}\\d+)$` };
    case "path":
      return PATH;
    case "integer": {
      const number = { type: "integer", minimum: field.least, maximum: field.most };
      return field.word === undefined ? number : { anyOf: [number, { const: field.word }] };
    }
    case "bytes":
      return { type: "integer", minimum: field.least, maximum: field.most, multipleOf: field.multipleOf };
    case "boolean":
      return { type: "boolean" };
    case "choice":
      return { enum: field.choices };
    case "integers":
      return { type: "array", items: { type: "integer", minimum: field.least, maximum: field.most } };
    case "variants":
      return {
        oneOf: [variant({ enum: field.plain }, {}), variant({ enum: field.withPath }, { path: PATH })],
      };
    default:
      return field satisfies never;
  }
}

function variant(kind: JsonSchema, more: Readonly<Record<string, JsonSchema>>): JsonSchema {
  const properties = { kind, ...more };
  return { type: "object", properties, required: Object.keys(properties), additionalProperties: false };
}
