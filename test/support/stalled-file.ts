import { spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, read, writeSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

/*
 * A file system of one file. Its reads wait until the test releases them, as those of a dead server do. The kernel's
 * side is the real one: fs/fuse, whose protocol include/uapi/linux/fuse.h describes. Only the process that asks hangs,
 * so this side must be another one.
 */

const readDescriptor = promisify(read);

const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  OPEN: 14,
  READ: 15,
  RELEASE: 18,
  FLUSH: 25,
  INIT: 26,
  INTERRUPT: 36,
  BATCH_FORGET: 42,
};
const FUSE_ASYNC_READ = 1;
const ENOENT = 2;
const ENOSYS = 38;
const IN_HEADER = 40; // len, opcode, u64 unique, u64 nodeid, uid, gid, pid, extension
const OUT_HEADER = 16; // len, error, u64 unique
/** struct fuse_init_out, fuse_entry_out, fuse_attr_out, fuse_open_out */
const OUT = { init: 64, entry: 128, attr: 104, open: 16 } as const;
const ROOT = 1n;
const FILE = 2n;
const S_IFDIR = 0o040755;
const S_IFREG = 0o100644;
/** More than the kernel's least, which is 8 KiB and a header. */
const BUFFER_BYTES = 256 * 1024;
const NAME = "disk.img";

/** Why a {@link StalledFile} cannot be had here; `false` when it can. For tap's `skip` option. */
export function missingFuse(): string | false {
  if (!existsSync("/dev/fuse")) return "there is no /dev/fuse (modprobe fuse)";
  return process.getuid?.() === 0 ? false : "only root may mount a file system";
}

/** The file, mounted. */
export class StalledFile {
  readonly path: string;
  /** Resolves with the first read. */
  readonly stalled: Promise<void>;
  readonly #folder: string;
  readonly #sizeBytes: number;
  readonly #device: number;
  readonly #served: Promise<void>;
  #onStalled = (): void => undefined;
  /** Answers to reads, until they may go. */
  #waiting: (() => void)[] | undefined = [];

  /**
   * @param folder Becomes the mount point.
   * @param sizeBytes Of the file, which is full of 0x5a.
   */
  constructor(folder: string, sizeBytes: number) {
    mkdirSync(folder, { recursive: true });
    this.#folder = folder;
    this.#sizeBytes = sizeBytes;
    this.path = join(folder, NAME);
    this.stalled = new Promise((resolve) => {
      this.#onStalled = resolve;
    });
    this.#device = openSync("/dev/fuse", "r+");
    const options = `fd=3,rootmode=40000,user_id=0,group_id=0`;
    const mount = spawnSync("mount", ["-i", "-t", "fuse", "-o", options, "tsvmm-stalled", folder], {
      stdio: ["ignore", "pipe", "pipe", this.#device],
      encoding: "utf8",
    });
    if (mount.status !== 0) throw new Error(`Cannot mount a file system: ${mount.stderr}`);
    this.#served = this.#serve();
  }

  /** Lets all reads go, those that wait and those that come. */
  release(): void {
    for (const answer of this.#waiting ?? []) answer();
    this.#waiting = undefined;
  }

  /** Unmounts it; reads that wait fail. */
  async close(): Promise<void> {
    spawnSync("umount", ["-f", "-l", this.#folder]);
    await this.#served;
    closeSync(this.#device);
  }

  async #serve(): Promise<void> {
    const buffer = Buffer.alloc(BUFFER_BYTES);
    for (;;) {
      let sizeBytes: number;
      try {
        sizeBytes = (await readDescriptor(this.#device, buffer, 0, BUFFER_BYTES, null)).bytesRead;
      } catch (error) {
        const code = error instanceof Error && "code" in error ? error.code : undefined;
        if (code === "ENODEV") return; // unmounted
        if (code === "ENOENT" || code === "EINTR" || code === "EAGAIN") continue; // the request was taken back
        throw error;
      }
      this.#answer(Buffer.from(buffer.subarray(0, sizeBytes)));
    }
  }

  #answer(request: Buffer): void {
    const opcode = request.readUInt32LE(4);
    const unique = request.readBigUInt64LE(8);
    const node = request.readBigUInt64LE(16);
    const reply = (body: Buffer, error = 0): void => {
      const header = Buffer.alloc(OUT_HEADER);
      header.writeUInt32LE(OUT_HEADER + body.length, 0);
      header.writeInt32LE(-error, 4);
      header.writeBigUInt64LE(unique, 8);
      try {
        writeSync(this.#device, Buffer.concat([header, body]));
      } catch {
        // The one that asked is gone.
      }
    };
    switch (opcode) {
      case OPCODE.INIT:
        return reply(initReply(request));
      case OPCODE.LOOKUP:
        if (request.toString("utf8", IN_HEADER, request.length - 1) !== NAME) return reply(Buffer.alloc(0), ENOENT);
        return reply(this.#entry());
      case OPCODE.GETATTR: {
        const body = Buffer.alloc(OUT.attr);
        this.#writeAttributes(body, 16, node);
        return reply(body);
      }
      case OPCODE.OPEN:
        return reply(Buffer.alloc(OUT.open));
      case OPCODE.READ: {
        const offset = Number(request.readBigUInt64LE(IN_HEADER + 8));
        const sizeBytes = Math.max(0, Math.min(request.readUInt32LE(IN_HEADER + 16), this.#sizeBytes - offset));
        const answer = (): void => reply(Buffer.alloc(sizeBytes, 0x5a));
        this.#onStalled();
        if (this.#waiting === undefined) answer();
        else this.#waiting.push(answer);
        return;
      }
      case OPCODE.RELEASE:
      case OPCODE.FLUSH:
        return reply(Buffer.alloc(0));
      case OPCODE.FORGET:
      case OPCODE.BATCH_FORGET:
      case OPCODE.INTERRUPT:
        return; // these have no answer
      default:
        return reply(Buffer.alloc(0), ENOSYS);
    }
  }

  /** struct fuse_entry_out: nodeid, generation, how long name and attributes hold, attributes. */
  #entry(): Buffer {
    const body = Buffer.alloc(OUT.entry);
    body.writeBigUInt64LE(FILE, 0);
    this.#writeAttributes(body, 40, FILE);
    return body;
  }

  /**
   * struct fuse_attr: ino, size, blocks, three times in seconds, those in nanoseconds, mode, nlink, uid, gid, rdev,
   * blksize, flags.
   */
  #writeAttributes(body: Buffer, at: number, node: bigint): void {
    const isRoot = node === ROOT;
    const sizeBytes = isRoot ? 0 : this.#sizeBytes;
    body.writeBigUInt64LE(node, at);
    body.writeBigUInt64LE(BigInt(sizeBytes), at + 8);
    body.writeBigUInt64LE(BigInt(sizeBytes / 512), at + 16);
    body.writeUInt32LE(isRoot ? S_IFDIR : S_IFREG, at + 60);
    body.writeUInt32LE(1, at + 64);
    body.writeUInt32LE(4096, at + 80);
  }
}

/**
 * struct fuse_init_out for the version that the kernel asked for. With asynchronous reads a process waits for a page,
 * and SIGKILL ends that wait. SIGKILL does not end the wait for an answer that this side has begun to make.
 */
function initReply(request: Buffer): Buffer {
  const body = Buffer.alloc(OUT.init);
  body.writeUInt32LE(request.readUInt32LE(IN_HEADER), 0);
  body.writeUInt32LE(request.readUInt32LE(IN_HEADER + 4), 4);
  body.writeUInt32LE(128 * 1024, 8); // max_readahead
  body.writeUInt32LE(FUSE_ASYNC_READ, 12); // flags
  body.writeUInt32LE(128 * 1024, 20); // max_write
  body.writeUInt32LE(1, 24); // time_gran
  return body;
}
