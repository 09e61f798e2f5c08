import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";
import type { EntropyBackend, Report } from "../../base/backends.ts";
import { errnoOf, openError } from "../../base/errors.ts";
import type { FdWatcher } from "../../base/signals.ts";
import { fd } from "../../base/units.ts";
import { endText, SlowSource } from "./slow-source.ts";

/** A source of the machine's. */
export interface EntropySource extends EntropyBackend {
  /** Gives everything back; blocks for at most so long where a worker is in the middle of a read. */
  close(timeoutMs: number): void;
}

/** makedev(1, 5) and makedev(1, 9): /dev/zero and /dev/urandom answer at once. Documentation/admin-guide/devices.txt */
const INSTANT_DEVICES: readonly number[] = [0x105, 0x109];

/**
 * Opens a source of unpredictable bytes: /dev/urandom, a hardware generator's node, a pipe.
 *
 * @throws SpecError or HostError when it cannot be opened, or its worker cannot be started.
 */
export function openEntropySource(path: string, watcher: FdWatcher, report: Report): EntropySource {
  let file: number;
  try {
    // Nonblocking: a pipe without a writer opens at once. A terminal does not become this process's.
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    throw openError("rng.source", path, error);
  }
  if (isInstant(fstatSync(file))) return new InstantSource(path, file, report);
  return new SlowSource(path, fd(file), watcher, report);
}

const isInstant = (found: Stats): boolean =>
  found.isFile() || (found.isCharacterDevice() && INSTANT_DEVICES.includes(found.rdev));

/** A source whose reads never wait. */
class InstantSource implements EntropySource {
  readonly #path: string;
  readonly #file: number;
  readonly #report: Report;
  #hasEnded = false;

  constructor(path: string, file: number, report: Report) {
    this.#path = path;
    this.#file = file;
    this.#report = report;
  }

  take(target: Uint8Array): number {
    if (this.#hasEnded) return 0;
    let errno: string | undefined;
    try {
      const count = readSync(this.#file, target, 0, target.length, null);
      if (count > 0) return count;
    } catch (error) {
      errno = errnoOf(error);
    }
    this.#hasEnded = true;
    this.#report("warn", endText(this.#path, errno));
    return 0;
  }

  /** What has ended does not begin again. */
  onReady(): void {}

  close(): void {
    closeSync(this.#file);
  }
}
