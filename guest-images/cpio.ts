/** One entry of an archive. Paths have no leading slash; parents come before what is in them. */
export type CpioEntry =
  | { readonly kind: "directory"; readonly path: string; readonly mode?: number }
  | { readonly kind: "file"; readonly path: string; readonly mode: number; readonly content: Uint8Array }
  | { readonly kind: "symlink"; readonly path: string; readonly target: string }
  | { readonly kind: "characterDevice"; readonly path: string; readonly major: number; readonly minor: number };

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

/**
 * Writes an archive in the format `newc`, which the Linux kernel unpacks as its initramfs.
 * Everything belongs to root and carries the time 0, so that the same entries always give the same bytes.
 * Linux Documentation/driver-api/early-userspace/buffer-format.rst
 */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  entries.forEach((entry, index) => {
    parts.push(...newcEntry(index + 1, entry));
  });
  parts.push(...newcEntry(0, { kind: "file", path: "TRAILER!!!", mode: 0, content: new Uint8Array(0) }));
  return Buffer.concat(parts);
}

function newcEntry(inode: number, entry: CpioEntry): Buffer[] {
  const name = Buffer.from(`${entry.path}\0`);
  const content =
    entry.kind === "file" ? Buffer.from(entry.content) : Buffer.from(entry.kind === "symlink" ? entry.target : "");
  const [major, minor] = entry.kind === "characterDevice" ? [entry.major, entry.minor] : [0, 0];
  // c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, c_maj, c_min, c_rmaj, c_rmin, c_namesize, c_chksum
  const fields = [inode, modeOf(entry), 0, 0, 1, 0, content.length, 0, 0, major, minor, name.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`);
  return [header, name, padding(header.length + name.length), content, padding(content.length)];
}

function modeOf(entry: CpioEntry): number {
  switch (entry.kind) {
    case "directory":
      return S_IFDIR | (entry.mode ?? 0o755);
    case "file":
      return entry.mode === 0 ? 0 : S_IFREG | entry.mode;
    case "symlink":
      return S_IFLNK | 0o777;
    case "characterDevice":
      return S_IFCHR | 0o600;
    default:
      return entry satisfies never;
  }
}

/** Names and contents end on a multiple of four bytes. */
const padding = (length: number): Buffer => Buffer.alloc((4 - (length % 4)) % 4);
