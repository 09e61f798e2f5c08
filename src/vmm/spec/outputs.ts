import { lstatSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { SpecError } from "../../base/errors.ts";
import { fileId } from "../../base/file-id.ts";
import type { CharSpec, MachineSpec } from "./spec.ts";

/** A file, and the part of the spec that names it: `disks[0].path`. */
export interface NamedFile {
  readonly where: string;
  readonly path: string;
  /** What people are told instead of the path. */
  readonly shown?: string;
}

/** Two parts of a spec name one file, and the first would write to it. */
export class SameFileError extends SpecError {
  readonly file: string;
  readonly other: string;

  constructor(path: string, file: string, other: string) {
    super(path, `${file} is the file of ${other} too: output needs one of its own`);
    this.file = file;
    this.other = other;
  }
}

/** What a machine reads, and the disks and sockets that it writes to on the guest's behalf. */
export function inputsOf(spec: Omit<MachineSpec, "serial" | "console">): readonly NamedFile[] {
  const roms = spec.devices.map(({ rom }, index) => ({ where: `devices[${index}].rom`, rom }));
  return [
    { where: "kernel", path: spec.kernel },
    ...(spec.initramfs === undefined ? [] : [{ where: "initramfs", path: spec.initramfs }]),
    ...spec.disks.map(({ path }, index) => ({ where: `disks[${index}].path`, path })),
    ...roms.flatMap(({ where, rom }) => (rom?.kind === "file" ? [{ where, path: rom.path }] : [])),
    ...spec.userDevices.map(({ socket }, index) => ({ where: `userDevices[${index}].socket`, path: socket })),
    { where: "rng.source", path: spec.rng.source },
  ];
}

/** Where the guest's characters go: files, sockets, standard output. */
export function outputsOf(spec: { readonly serial: CharSpec; readonly console: CharSpec }): readonly NamedFile[] {
  return (["serial", "console"] as const).flatMap((where) => {
    const choice = spec[where];
    if (choice.kind === "tty") return [{ where, path: "/proc/self/fd/1", shown: "standard output" }];
    return choice.kind === "file" || choice.kind === "socket" ? [{ where, path: choice.path }] : [];
  });
}

/**
 * Refuses outputs that would destroy an input or each other: by device and inode, whatever their names; by directory
 * and name where there is no file yet. Character devices may be shared: a terminal, /dev/null.
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
    if (found.kind === "block") throw new SpecError(where, `${shown} is a block device: a file is needed`);
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
