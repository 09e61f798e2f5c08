import { closeSync, openSync, writeSync } from "node:fs";
import { errnoOf, openError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";

const STDERR = 2;
/** How often a full pipe that does not block is tried again, and how many milliseconds lie between: a second in all. */
const RETRIES = 100;
const RETRY_MS = 10;

/**
 * What a terminal obeys or does not show, beyond what JSON escapes by itself: details in a line are JSON in either
 * format, so that an escape of JSON says the same.
 */
const BEYOND_ASCII = /[\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}]/gu;
const escaped = (characters: string): string =>
  Array.from({ length: characters.length }, (_, at) => {
    const code = characters.charCodeAt(at); // of a pair, both halves: \uXXXX is UTF-16
    return `\\u${code.toString(16).padStart(4, "0")}`;
  }).join("");

/** Where lines go: a log that cannot be written is said once, and never in the way of the machine. */
export class LogOutput {
  readonly #path: string | undefined;
  #descriptor: number;
  #isBroken = false;

  constructor(path: string | undefined) {
    this.#path = path;
    try {
      this.#descriptor = path === undefined ? STDERR : openSync(path, "a");
    } catch (error) {
      throw openError("log.file", path ?? "", error);
    }
  }

  write(line: string): void {
    if (this.#descriptor < 0 || this.#isBroken) return;
    const bytes = Buffer.from(line.replace(BEYOND_ASCII, escaped));
    try {
      for (let done = 0; done < bytes.length; ) done += this.#writeSome(bytes, done);
    } catch (error) {
      this.#isBroken = true;
      if (this.#path === undefined) return; // nobody is there to be told
      const text = `tsvmm: Cannot write the log to ${this.#path}: ${errnoOf(error)}: what follows is lost`;
      new LogOutput(undefined).write(`${printable(text)}\n`);
    }
  }

  #writeSome(bytes: Buffer, start: number): number {
    for (let left = RETRIES; ; left--) {
      try {
        return writeSync(this.#descriptor, bytes, start);
      } catch (error) {
        if (errnoOf(error) !== "EAGAIN" || left === 0) throw error;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
      }
    }
  }

  close(): void {
    if (this.#path !== undefined && this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }
}
