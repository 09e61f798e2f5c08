/**
 * The part of a file's status that tells it from all others of the host: what `bigint: true` gives, as inode numbers
 * have 64 bits.
 */
export interface FileStatus {
  readonly dev: bigint;
  readonly ino: bigint;
}

/** A key for a file, whatever name led to it. */
export const fileId = ({ dev, ino }: FileStatus): string => `${dev}:${ino}`;
