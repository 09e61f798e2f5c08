import { fieldSchema, fieldsSchema, type JsonSchema } from "./fields/json-schema.ts";
import type { PartDescription } from "./kinds/kind.ts";
import { MACHINE_FIELDS } from "./machine-parts.ts";
import { allParts } from "./spec-check.ts";

/**
 * The schema of a machine as callers describe it. It accepts what the checks accept. Checks of the host (files,
 * devices) and of several items together (names and devices given twice) are not in it. JSON Schema 2020-12
 */
export function machineSchema(): JsonSchema {
  const parts = Object.fromEntries(allParts().map((description) => [description.part, partSchema(description)]));
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "A machine of tsvmm",
    ...fieldsSchema(MACHINE_FIELDS, parts),
  };
}

function partSchema(description: PartDescription): JsonSchema {
  const { help } = description;
  switch (description.shape) {
    case "value":
      return { ...fieldSchema(description.field), description: help };
    case "object":
      return { description: help, ...fieldsSchema(description.fields) };
    case "list":
      return { description: help, type: "array", items: fieldsSchema(description.fields) };
    default:
      return description satisfies never;
  }
}
