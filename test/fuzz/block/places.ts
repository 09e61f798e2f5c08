import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cacheDirectory } from "../../../tools/cache.ts";
import { PLACES, type Place, SECTORS } from "./operations.ts";

const SECTOR = 512;
/** Types of file systems. statfs(2) */
const TMPFS_MAGIC = 0x0102_1994;
const EXT4_SUPER_MAGIC = 0xef53;

/** Images at every place that this machine has, made when they are first used and used again, zeroed, by each run. */
export class Places {
  readonly #folders = new Map<Place, string>();
  readonly #loops = new Map<Place, string>();
  readonly #leftOut: string[] = [];

  constructor() {
    this.#addFolder("tmpfs", ["/dev/shm", tmpdir()], TMPFS_MAGIC);
    mkdirSync(cacheDirectory(), { recursive: true });
    this.#addFolder("ext4", [tmpdir(), cacheDirectory()], EXT4_SUPER_MAGIC);
    this.#addLoop("loop", 512, SECTORS * SECTOR);
    this.#addLoop("loop4k", 4096, (SECTORS + 1) * SECTOR);
    this.#addLoop("loop4k512", 4096, (SECTORS + 1) * SECTOR);
  }

  get usable(): readonly Place[] {
    return PLACES.filter((place) => this.#folders.has(place) || this.#loops.has(place));
  }

  get leftOut(): readonly string[] {
    return this.#leftOut;
  }

  /** The path of an image of zeroes. */
  image(place: Place): string {
    const loop = this.#loops.get(place);
    if (loop !== undefined) {
      execFileSync(
        "dd",
        ["if=/dev/zero", `of=${loop}`, "bs=4096", `count=${(SECTORS + 1) / 8}`, "conv=notrunc,fsync"],
        {
          stdio: "ignore",
        },
      );
      return loop;
    }
    const path = join(this.#folders.get(place) ?? this.#folders.values().next().value ?? tmpdir(), "disk.img");
    writeFileSync(path, new Uint8Array(SECTORS * SECTOR));
    return path;
  }

  close(): void {
    for (const loop of this.#loops.values()) spawnSync("losetup", ["--detach", loop]);
    for (const folder of this.#folders.values()) rmSync(folder, { recursive: true, force: true });
  }

  #addFolder(place: Place, candidates: readonly string[], magic: number): void {
    const parent = candidates.find((path) => existsSync(path) && statfsSync(path).type === magic);
    if (parent === undefined) this.#leftOut.push(`images on ${place}: none of ${candidates.join(", ")} is one`);
    else this.#folders.set(place, mkdtempSync(join(parent, "tsvmm-fuzz-block-")));
  }

  #addLoop(place: Place, blockBytes: number, sizeBytes: number): void {
    const folder = this.#folders.values().next().value;
    if (folder === undefined) return;
    const backing = join(folder, place);
    writeFileSync(backing, new Uint8Array(Math.ceil(sizeBytes / 4096) * 4096));
    const words = ["--find", "--show", "--sector-size", String(blockBytes), backing];
    const run = spawnSync("losetup", words, { encoding: "utf8" });
    if (run.status === 0) this.#loops.set(place, run.stdout.trim());
    else this.#leftOut.push(`loop devices with blocks of ${blockBytes} bytes: they need root, losetup and /dev/loop*`);
  }
}
