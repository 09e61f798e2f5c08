import { lstatSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { SpecError } from "../../base/errors.ts";
import { fileId } from "../../base/file-id.ts";
import { asList, asObject, type Given } from "./fields/check.ts";
import type { Field, Fields } from "./fields/field.ts";
import { allKinds } from "./kinds/list.ts";
import { MACHINE_FIELDS } from "./machine-parts.ts";
import type { MachineSpec } from "./spec.ts";

/** A file, and the part of the spec that names it: `disks[0].path`. */
export interface NamedFile {
  readonly where: string;
  readonly path: string;
  /** The text for messages instead of the path. */
  readonly shown?: string;
}

/** Two parts of a spec name one file, and the first would write to it. */
export class SameFileError extends SpecError {
  readonly file: string;
  readonly other: string;

  constructor(path: string, file: string, other: string) {
    super("TSVMM_VALUE_CONFLICT", path, `${file} is the file of ${other} too: output needs one of its own`);
    this.file = file;
    this.other = other;
  }
}

/** What a machine reads, and the disks and sockets that it writes to on the guest's behalf. */
export function inputsOf(spec: MachineSpec): readonly NamedFile[] {
  return filesOf(spec).flatMap(({ where, field, value }) => {
    if (field.type === "path" && field.leadsTo !== "pciFunction" && typeof value === "string") {
      return [{ where, path: value }];
    }
    const path = field.type === "variants" && field.leadsTo === "image" ? pathIn(value) : undefined;
    return path === undefined ? [] : [{ where, path }];
  });
}

/** Where the guest's characters go: files, sockets, standard output. */
export function outputsOf(spec: MachineSpec): readonly NamedFile[] {
  return filesOf(spec).flatMap(({ where, field, value }): readonly NamedFile[] => {
    if (field.type !== "variants" || field.leadsTo !== "output") return [];
    if (isTty(value)) return [{ where, path: "/proc/self/fd/1", shown: "standard output" }];
    const path = pathIn(value);
    return path === undefined ? [] : [{ where, path }];
  });
}

const isTty = (value: unknown): boolean =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "tty";

const pathIn = (value: unknown): string | undefined =>
  typeof value === "object" && value !== null && "path" in value && typeof value.path === "string"
    ? value.path
    : undefined;

/** A field that leads to a file, with its value in this specification. */
interface FileValue {
  readonly where: string;
  readonly field: Field;
  readonly value: unknown;
}

function filesOf(spec: MachineSpec): readonly FileValue[] {
  // Cast: a specification is an object of parts by name, those of kinds that were added too.
  const parts = spec as unknown as Given;
  const inObject = (where: string, fields: Fields, values: unknown): FileValue[] =>
    Object.entries(fields).map(([name, field]) => ({
      where: where === "" ? name : `${where}.${name}`,
      field,
      value: asObject(where, values)[name],
    }));
  const ofParts = allKinds().flatMap((kind): FileValue[] => {
    const value = parts[kind.part];
    switch (kind.shape) {
      case "value":
        return [{ where: kind.part, field: kind.field, value }];
      case "object":
        return inObject(kind.part, kind.fields, value);
      case "list":
        return asList(kind.part, value).flatMap((item, index) => inObject(`${kind.part}[${index}]`, kind.fields, item));
      default:
        return kind satisfies never;
    }
  });
  return [...inObject("", MACHINE_FIELDS, parts), ...ofParts];
}

/**
 * Refuses outputs that would destroy an input or each other. Files are compared by device and inode. Paths without a
 * file are compared by directory and name. Character devices may be shared: a terminal, /dev/null.
 *
 * @throws SameFileError for the first one; SpecError for an output that is a block device.
 */
export function checkOutputs(inputs: readonly NamedFile[], outputs: readonly NamedFile[]): void {
  const seen = new Map<string, string>();
  for (const { where, path } of inputs) {
    const found = identify(path);
    if (found !== undefined && found.kind !== "shared") seen.set(found.id, where);
  }
  for (const { where, path, shown = path } of outputs) {
    const found = identify(path);
    if (found === undefined || found.kind === "shared") continue;
    const other = seen.get(found.id);
    if (other !== undefined) throw new SameFileError(where, shown, other);
    if (found.kind === "block")
      throw new SpecError("TSVMM_FILE_KIND", where, `${shown} is a block device: a file is needed`);
    seen.set(found.id, where);
  }
}

/** As many symbolic links as the kernel follows. path_resolution(7) */
const MAX_LINKS = 40;

/** What a path leads to, or would make. `undefined` for what cannot be looked at: it cannot be opened either. */
function identify(path: string): { readonly kind: "file" | "shared" | "block"; readonly id: string } | undefined {
  try {
    let name = path;
    for (let links = 0; links < MAX_LINKS; links++) {
      const found = statSync(name, { bigint: true, throwIfNoEntry: false });
      if (found !== undefined) {
        const kind = found.isCharacterDevice() ? "shared" : found.isBlockDevice() ? "block" : "file";
        return { kind, id: fileId(found) };
      }
      const directory = realpathSync(dirname(name));
      // A symbolic link to nothing: opening it makes the file that it names.
      if (lstatSync(name, { throwIfNoEntry: false })?.isSymbolicLink() !== true) {
        return { kind: "file", id: `${fileId(statSync(directory, { bigint: true }))}/${basename(name)}` };
      }
      name = resolve(directory, readlinkSync(name));
    }
  } catch {
    // a directory that is missing or closed to this user, a loop
  }
  return undefined;
}
