import { SpecError } from "../../base/errors.ts";
import { asList, asObject, completeFields, completeValue, type Given, refuseOthers } from "./fields/check.ts";
import type { Fields, SpecOf } from "./fields/field.ts";
import type { PartDescription } from "./kinds/kind.ts";
import { allKinds } from "./kinds/list.ts";
import { CPUS, MACHINE_FIELDS, MEMORY, PLATFORM } from "./machine-parts.ts";
import { checkOutputs, inputsOf, type NamedFile, outputsOf } from "./outputs.ts";
import type { CharSpec, MachineInput, MachineSpec, MemorySpec } from "./spec.ts";

/** The parts of a specification: the machine's own, then those of the device kinds. */
export const allParts = (): readonly PartDescription[] => [CPUS, MEMORY, PLATFORM, ...allKinds()];

/**
 * Fills in what a description leaves out, and checks everything that can be checked without opening anything.
 *
 * Calling it with its own result changes nothing.
 *
 * @param outputs Files that are written beside those of the spec: the log, the summary.
 * @throws SpecError with the path of the first problem: `memory.sizeBytes`, `devices[1].path`.
 */
export function completeSpec(input: MachineInput, outputs: readonly NamedFile[] = []): MachineSpec {
  const parts = allParts();
  const given = asObject("", input);
  refuseOthers("", given, [...Object.keys(MACHINE_FIELDS), ...parts.map(({ part }) => part)]);
  const values: Record<string, unknown> = { ...completeFields("", MACHINE_FIELDS, given) };
  for (const description of parts) values[description.part] = completePart(description, given[description.part]);
  // Cast: each part was completed after its description, which the type is made of.
  const spec = values as unknown as MachineSpec;
  checkIds(parts, values);
  checkCharacters(spec.serial, spec.console);
  checkOutputs(inputsOf(spec), [...outputsOf(spec), ...outputs]);
  return spec;
}

/** Fills in what a description of memory leaves out, and checks it. @throws SpecError */
export function completeMemory(input: Partial<MemorySpec>): MemorySpec {
  const memory = completeFields("memory", MEMORY.fields, { ...input });
  MEMORY.check?.("memory", memory);
  return memory;
}

function completePart(description: PartDescription, given: unknown): unknown {
  const { part } = description;
  switch (description.shape) {
    case "value":
      return completeValue(part, description.field, given);
    case "object": {
      const item = completeItem(part, description.fields, given === undefined ? {} : given, 0);
      description.check?.(part, item);
      return item;
    }
    case "list": {
      const items: SpecOf<Fields>[] = [];
      for (const [index, one] of asList(part, given === undefined ? [] : given).entries()) {
        const where = `${part}[${index}]`;
        const item = completeItem(where, description.fields, one, index);
        description.check?.(where, item, items);
        items.push(item);
      }
      return items;
    }
    default:
      return description satisfies never;
  }
}

function completeItem(where: string, fields: Fields, given: unknown, place: number): SpecOf<Fields> {
  const item = asObject(where, given);
  refuseOthers(where, item, Object.keys(fields));
  return completeFields(where, fields, item, place);
}

/** Ids name devices in messages and in the API: none may be given twice. */
function checkIds(parts: readonly PartDescription[], values: Given): void {
  const seen = new Set<unknown>();
  for (const description of parts) {
    if (description.shape !== "list") continue;
    const [name] = Object.entries(description.fields).find(([, field]) => field.type === "id") ?? [];
    if (name === undefined) continue;
    for (const [index, item] of asList(description.part, values[description.part]).entries()) {
      const where = `${description.part}[${index}]`;
      const id = asObject(where, item)[name];
      if (seen.has(id)) throw new SpecError("TSVMM_VALUE_TWICE", `${where}.${name}`, `'${String(id)}' is given twice`);
      seen.add(id);
    }
  }
}

function checkCharacters(serial: CharSpec, console: CharSpec): void {
  if (serial.kind === "tty" && console.kind === "tty") {
    throw new SpecError(
      "TSVMM_VALUE_CONFLICT",
      "console",
      "the terminal is the serial port's already: send one of the two elsewhere",
    );
  }
  const shared =
    (serial.kind === "file" || serial.kind === "socket") && serial.kind === console.kind ? serial : undefined;
  if (shared !== undefined && (console.kind === "file" || console.kind === "socket") && console.path === shared.path) {
    throw new SpecError("TSVMM_VALUE_CONFLICT", "console", `${shared.path} is the serial port's already`);
  }
}
