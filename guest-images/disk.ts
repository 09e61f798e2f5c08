import {
  chmodSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { MIB } from "../src/base/units.ts";
import { runProgram } from "../tools/program.ts";
import type { Busybox } from "./initramfs.ts";

const SECTOR = 512;
/** Where the partition begins: the usual place, which suits every block size. */
const PARTITION_OFFSET: number = MIB;

/** One file of a disk's tree; the path is relative to its root. */
export interface DiskFile {
  readonly path: string;
  readonly mode: number;
  readonly text: string;
}

/** What a partition holds, in the master boot record's words. */
export const PARTITION_TYPE = { fat32: 0x0c, linux: 0x83 } as const;

/**
 * Answers a master boot record with one partition that reaches from `firstSector` to the disk's end.
 * The old cylinder fields say "look at the sector numbers". UEFI 2.10 §5.2.1
 */
export function masterBootRecord(diskSectors: number, firstSector: number, type: number): Buffer {
  const record = Buffer.alloc(SECTOR);
  record.writeUInt32LE(0x7473_766d, 440); // disk signature: what PARTUUID= is made from
  const entry = record.subarray(446);
  entry.write("fffffe", 1, "hex");
  entry.writeUInt8(type, 4);
  entry.write("fffffe", 5, "hex");
  entry.writeUInt32LE(firstSector, 8);
  entry.writeUInt32LE(diskSectors - firstSector, 12);
  record.writeUInt16LE(0xaa55, 510);
  return record;
}

/**
 * Writes a raw disk with one ext4 partition that holds a tree. Needs no root: mke2fs fills the file system itself.
 *
 * @param tree Directory whose content becomes the file system's.
 */
export async function writeExt4Disk(file: string, sizeBytes: number, tree: string): Promise<void> {
  writeFileSync(file, "");
  truncateSync(file, sizeBytes);
  const kib = (sizeBytes - PARTITION_OFFSET) / 1024;
  const extended = `offset=${PARTITION_OFFSET},root_owner=0:0,lazy_itable_init=1`;
  await runProgram("mke2fs", [
    "-q",
    "-F",
    "-t",
    "ext4",
    "-L",
    "guest-root",
    "-m",
    "0",
    "-E",
    extended,
    "-d",
    tree,
    file,
    `${kib}k`,
  ]);
  const descriptor = openSync(file, "r+");
  try {
    writeSync(
      descriptor,
      masterBootRecord(sizeBytes / SECTOR, PARTITION_OFFSET / SECTOR, PARTITION_TYPE.linux),
      0,
      SECTOR,
      0,
    );
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Writes a disk that boots to a shell on the guest's console: busybox under all its names and the given files.
 *
 * @param scratch Directory that does not exist yet; it is removed again.
 */
export async function writeGuestDisk(
  file: string,
  sizeBytes: number,
  busybox: Busybox,
  files: readonly DiskFile[],
  scratch: string,
): Promise<void> {
  for (const path of ["bin", "sbin", "usr/bin", "usr/sbin", "etc", "root", "mnt", "proc", "sys", "dev", "run", "tmp"]) {
    mkdirSync(join(scratch, path), { recursive: true });
  }
  copyFileSync(busybox.path, join(scratch, "bin/busybox"));
  chmodSync(join(scratch, "bin/busybox"), 0o755);
  for (const path of busybox.applets) {
    if (path === "bin/busybox") continue;
    mkdirSync(dirname(join(scratch, path)), { recursive: true });
    symlinkSync("/bin/busybox", join(scratch, path));
  }
  for (const { path, mode, text } of files) {
    mkdirSync(dirname(join(scratch, path)), { recursive: true });
    writeFileSync(join(scratch, path), text);
    chmodSync(join(scratch, path), mode);
  }
  await writeExt4Disk(file, sizeBytes, scratch);
  rmSync(scratch, { recursive: true });
}
