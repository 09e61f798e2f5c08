import { realpathSync } from "node:fs";
import { SpecError } from "../../../base/errors.ts";
import type { InputOf, SpecOf } from "../fields/field.ts";
import type { ListKind } from "./kind.ts";

const FIELDS = {
  path: {
    type: "path",
    leadsTo: "disk",
    isRequired: true,
    key: "path",
    value: "PATH",
    help: "raw image file or block device",
  },
  isReadOnly: { type: "boolean", default: false, key: "readonly", value: "on|off", help: "the guest may not write" },
  /** O_DIRECT: past the host's page cache. */
  isDirect: {
    type: "boolean",
    default: false,
    key: "direct",
    value: "on|off",
    help: "past the host's page cache (O_DIRECT)",
  },
  /** 512 or 4096; the image's own when absent: 512 in a file, a block device's there. */
  logicalBlockBytes: {
    type: "integer",
    least: 512,
    most: 4096,
    key: "logical_block_size",
    value: "512|4096",
    help: "block size the guest is told; default: 512, or a block device's own",
  },
  /** At most 20 bytes, what the guest reads as the disk's serial number. VIRTIO 1.2 §5.2.6 */
  serial: {
    type: "text",
    pattern: "[\\x20-\\x7e]{1,20}",
    isNot: "1 to 20 printable ASCII characters",
    key: "serial",
    value: "TEXT",
    help: "serial number the guest reads, 20 characters at most",
  },
  id: { type: "id", prefix: "_disk", key: "id", value: "NAME", help: "name in messages" },
} as const;

/** One virtio-blk disk. */
export interface DiskSpec extends SpecOf<typeof FIELDS> {}
/** A disk as callers describe it; the rest is filled in. */
export interface DiskInput extends InputOf<typeof FIELDS> {}

export const DISK: ListKind<"disks", typeof FIELDS> = {
  kind: "disk",
  about: "A virtio-blk disk: a raw image or a block device of the host.",
  part: "disks",
  shape: "list",
  option: "--disk",
  group: "Devices",
  help: "virtio disk: /dev/vda, /dev/vdb, … in the guest",
  cloudHypervisor: "disks",
  isPassedThrough: false,
  fields: FIELDS,
  check(where, { path, isReadOnly, logicalBlockBytes = 512 }, before) {
    if (logicalBlockBytes !== 512 && logicalBlockBytes !== 4096) {
      throw new SpecError(
        "TSVMM_VALUE_INVALID",
        `${where}.logicalBlockBytes`,
        `blocks have 512 or 4096 bytes, not ${logicalBlockBytes}`,
      );
    }
    const real = realpathSync(path);
    const twin = before.find((disk) => realpathSync(disk.path) === real);
    if (twin === undefined || (twin.isReadOnly && isReadOnly)) return;
    throw new SpecError(
      "TSVMM_VALUE_TWICE",
      `${where}.path`,
      `${path} is given twice: only read-only disks can share an image`,
    );
  },
};
