import { createHash, randomBytes } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { masterBootRecord, PARTITION_TYPE } from "../guest-images/disk.ts";
import { MIB } from "../src/base/units.ts";
import { runProgram } from "../tools/program.ts";

const SECTOR = 512;
const PARTITION_OFFSET: number = MIB;

/** Answers the digest that `sha256sum` prints. */
export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/**
 * Writes an SD card's image: a partition table and one FAT file system with the given files.
 *
 * @param sizeBytes A power of two, as real cards (and QEMU's) have it.
 * @param files Name in the card's root directory → content.
 */
export async function writeSdCard(
  image: string,
  sizeBytes: number,
  files: Readonly<Record<string, Uint8Array>>,
): Promise<void> {
  writeFileSync(image, "");
  truncateSync(image, sizeBytes);
  const sectors = (sizeBytes - PARTITION_OFFSET) / SECTOR;
  await runProgram("mformat", ["-i", partition(image), "-F", "-T", `${sectors}`, "-v", "CARD", "::"]);
  const record = masterBootRecord(sizeBytes / SECTOR, PARTITION_OFFSET / SECTOR, PARTITION_TYPE.fat32);
  const descriptor = openSync(image, "r+");
  try {
    writeSync(descriptor, record, 0, SECTOR, 0);
  } finally {
    closeSync(descriptor);
  }
  const scratch = mkdtempSync(join(tmpdir(), "tsvmm-card-"));
  try {
    for (const [name, content] of Object.entries(files)) {
      writeFileSync(join(scratch, name), content);
      await runProgram("mcopy", ["-i", partition(image), join(scratch, name), `::${name}`]);
    }
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** Answers the content of a file in an SD card's image; `undefined` when it has no such file. */
export function readSdCardFile(image: string, name: string): Promise<Buffer | undefined> {
  return runProgram("mcopy", ["-i", partition(image), `::${name}`, "-"]).catch(() => undefined);
}

/** mtools' way to name a file system inside a disk image. */
const partition = (image: string): string => `${image}@@${PARTITION_OFFSET}`;

/** Writes an image of random bytes, to be compared with what a guest reads. Answers the bytes. */
export function writeRandomImage(image: string, sizeBytes: number): Buffer {
  const bytes = randomBytes(sizeBytes);
  writeFileSync(image, bytes);
  return bytes;
}
