import { HostError, SpecError } from "../base/errors.ts";
import { FirstOfPatterns, type Pattern, type WaitMatch } from "./pattern-search.ts";
import type { CharSpec } from "./spec/spec.ts";
import { TextHistory } from "./text-history.ts";

/**
 * Thrown by {@link TextChannel.waitFor} when the pattern does not come; `output` holds what came instead. Its stack
 * is that of the call.
 */
export class WaitError extends Error {
  override readonly name = "WaitError";
  /** The last 4 KiB of output. */
  readonly output: string;

  constructor(text: string, output: string) {
    super(output === "" ? text : `${text}; the last output was:\n${output.slice(-800)}`);
    this.output = output.slice(-4096);
  }
}

export interface WaitOptions {
  /**
   * Milliseconds; default: the machine's `waitTimeoutMs`, else 60,000. `Infinity` waits until the machine ends; 0 only
   * looks at what is there.
   */
  readonly timeoutMs?: number;
  /** Ends the wait with the signal's reason. */
  readonly signal?: AbortSignal;
  /** True: a reset of the guest ends the wait with a {@link WaitError}. Default: false, the wait goes on. */
  readonly failOnReset?: boolean;
}

/** How a {@link TextChannel} is set up. */
export interface TextChannelOptions {
  /** Default for {@link WaitOptions.timeoutMs}. */
  readonly timeoutMs?: number;
  /** The channel's place in the spec, and where it goes instead of here: "goes to a file". */
  readonly elsewhere?: { readonly path: string; readonly text: string } | undefined;
}

/** The channel of a machine: it refuses to be used where the spec leads it elsewhere than to this program. */
export function textChannel(
  path: string,
  { kind }: Pick<CharSpec, "kind">,
  send: (bytes: Uint8Array) => void,
  options: { readonly waitTimeoutMs?: number } = {},
): TextChannel {
  const text = kind === "off" || kind === "null" ? `is "${kind}"` : `goes to a ${kind}`;
  return new TextChannel(send, {
    ...(kind === "api" ? {} : { elsewhere: { path, text } }),
    ...(options.waitTimeoutMs === undefined ? {} : { timeoutMs: options.waitTimeoutMs }),
  });
}

/** How much output is kept for waiting and for {@link TextChannel.text}, in characters. */
const HISTORY = 4 << 20;
/** Of a wait, in milliseconds. */
const DEFAULT_TIMEOUT = 60_000;
/** Longest time a timer can measure, in milliseconds. */
const LONGEST_TIMER = 2 ** 31 - 1;
/** Milliseconds until everything is looked at again after output that was only looked at in part. */
const FULL_LOOK_DELAY = 100;
/** Looking at everything takes at most one part in so many of this thread's time. */
const FULL_LOOK_SHARE = 20;

interface Waiter {
  /** The patterns as text. */
  readonly wanted: string;
  readonly search: FirstOfPatterns;
  readonly failOnReset: boolean;
  /** {@link TextChannel.droppedBytes} when it began. */
  readonly droppedBefore: number;
  resolve(match: WaitMatch): void;
  /** Rejects with a {@link WaitError} whose stack leads to the call of `waitFor`. */
  reject(text: string): void;
  /** Rejects with the reason of an aborted signal. */
  abort(reason: unknown): void;
  /** Lets go of timer and signal. */
  release(): void;
}

/**
 * The guest's serial port (or console) as a test sees it: text comes out, text goes in.
 *
 * The machine never waits for a program that takes output slowly: of the output that waits, the newest 1 MiB is kept.
 * {@link text} says where some is missing, and {@link droppedBytes} counts it.
 */
export class TextChannel {
  readonly #send: (bytes: Uint8Array) => void;
  readonly #decoder = new TextDecoder();
  readonly #listeners = new Set<(text: string) => void>();
  readonly #history = new TextHistory(HISTORY);
  readonly #waiters = new Set<Waiter>();
  readonly #timeoutMs: number;
  readonly #elsewhere: TextChannelOptions["elsewhere"];
  /** Where the next `waitFor` begins to look: just behind the last match. */
  #cursor = 0;
  #droppedBytes = 0;
  #fullLook: NodeJS.Timeout | undefined;
  #fullLookDelay = FULL_LOOK_DELAY;
  #ended: string | undefined;
  #resetsSinceMatch = 0;

  constructor(send: (bytes: Uint8Array) => void, options: TextChannelOptions = {}) {
    this.#send = send;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT;
    this.#elsewhere = options.elsewhere;
  }

  /** Everything the guest has written, at most the last 4 Mi characters. */
  get text(): string {
    return this.#history.since(0);
  }

  /** Bytes of output that are missing in {@link text}, because the guest wrote faster than this program took them. */
  get droppedBytes(): number {
    return this.#droppedBytes;
  }

  /**
   * Types text (or bytes) at the guest.
   *
   * @throws HostError when the machine has ended, with how it did; SpecError when the channel goes elsewhere.
   */
  write(text: string | Uint8Array): void {
    this.#mustBeHere("cannot be written to");
    if (this.#ended !== undefined)
      throw new HostError("TSVMM_MACHINE_OFF", `Cannot write to the guest: ${this.#ended}`);
    this.#send(typeof text === "string" ? new TextEncoder().encode(text) : text);
  }

  /**
   * Waits until the output since the last match matches `pattern`, and consumes it: the next `waitFor` begins behind
   * the match.
   *
   * Of several patterns, the one whose match begins first is answered. Its place in the list is `patternIndex`:
   *
   * ```ts
   * const { patternIndex } = await machine.serial.waitFor([/login:/, /Kernel panic/]);
   * ```
   *
   * Calls that wait at the same time are independent. Each searches all output since the last match before the call.
   * That holds for earlier output and for calls in the same turn too. The match that ends last decides where the next
   * call begins.
   *
   * A match may span pieces of output and lines, and `^` is the place where the call began to look. Flags `g` and `y`
   * change nothing. What comes next may be there already, so a pattern that ends in `$` or `.*` can match less than it
   * is meant to. A match of at most 4,096 characters is found when its last character comes. A longer one is found
   * within some 100 ms, if all of it is kept (4 Mi characters). The cost of waiting grows with the output, not with its
   * square, unless that of the pattern itself does.
   *
   * @returns The match.
   * @throws WaitError after `timeoutMs`, or when the machine ends first; the reason of `signal`. RangeError when
   *   `timeoutMs` is negative or no number; TypeError when a pattern is none. SpecError when the channel goes
   *   elsewhere.
   */
  waitFor(pattern: Pattern | readonly Pattern[], options: WaitOptions = {}): Promise<WaitMatch> {
    const { timeoutMs = this.#timeoutMs, signal, failOnReset = false } = options;
    // Here, not when it fails: a timer's stack says nothing about the test that waits.
    const call: { stack?: string } = {};
    Error.captureStackTrace(call, TextChannel.prototype.waitFor);
    return new Promise((resolve, reject) => {
      this.#mustBeHere("cannot be waited for");
      if (!(timeoutMs >= 0)) throw new RangeError(`Cannot wait for ${timeoutMs} ms: give 0 or more`);
      signal?.throwIfAborted();
      const patterns = Array.isArray(pattern) ? pattern : [pattern];
      const search = new FirstOfPatterns(this.#history, patterns, this.#cursor);
      const timer =
        timeoutMs > LONGEST_TIMER ? undefined : setTimeout(() => this.#expire(waiter, timeoutMs), timeoutMs);
      const onAbort = (): void => {
        if (this.#remove(waiter)) waiter.abort(signal?.reason);
      };
      const waiter: Waiter = {
        wanted: patterns.map(String).join(" or "),
        search,
        failOnReset,
        droppedBefore: this.#droppedBytes,
        resolve,
        reject: (text) => reject(this.#waitError(text, waiter, call.stack ?? "")),
        abort: reject,
        release: () => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", onAbort);
        },
      };
      signal?.addEventListener("abort", onAbort);
      this.#waiters.add(waiter);
      const match = waiter.search.findAnywhere();
      if (match !== undefined) {
        // Before the caller sees the result, but not at once: a call that is made together with this one begins where
        // this one did.
        const end = this.#endOf(match);
        queueMicrotask(() => this.#consume(end));
      }
      this.#settle(waiter, match);
    });
  }

  /** Calls `listener` with every piece of output from now on; answers how to stop that. */
  onOutput(listener: (text: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Takes output of the guest; the machine calls it.
   *
   * @param droppedBytes How many bytes the guest wrote before these and after the last ones, which are lost.
   */
  receive(bytes: Uint8Array, droppedBytes = 0): void {
    let piece = "";
    if (droppedBytes > 0) {
      this.#droppedBytes += droppedBytes;
      piece = `${this.#decoder.decode()}\n[tsvmm: ${droppedBytes} bytes of output were dropped here]\n`;
    }
    this.#append(piece + this.#decoder.decode(bytes, { stream: true }));
  }

  /** Says that the guest was reset; the machine calls it. */
  reset(): void {
    this.#resetsSinceMatch++;
    for (const waiter of this.#waiters) {
      if (!waiter.failOnReset) continue;
      this.#look(waiter, waiter.search.findAnywhere());
      if (this.#remove(waiter))
        waiter.reject(`Cannot find ${waiter.wanted} in the guest's output: the guest was reset`);
    }
  }

  /** Says that no more output comes; the machine calls it. */
  end(reason: string): void {
    this.#append(this.#decoder.decode());
    this.#ended = reason;
    for (const waiter of this.#waiters) this.#look(waiter, waiter.search.findAnywhere());
    clearTimeout(this.#fullLook);
  }

  #append(piece: string): void {
    if (piece === "") return;
    this.#history.append(piece);
    for (const waiter of this.#waiters) this.#look(waiter, waiter.search.find());
    this.#planFullLook();
    for (const listener of this.#listeners) callListener(listener, piece);
  }

  /**
   * Waiters that have only seen the newest output see all of it soon, but not so often that it takes much of this
   * thread's time.
   */
  #planFullLook(): void {
    if (this.#fullLook !== undefined || !this.#isAnyBehind()) return;
    this.#fullLook = setTimeout(() => {
      this.#fullLook = undefined;
      const started = performance.now();
      for (const waiter of this.#waiters) {
        if (waiter.search.isBehind) this.#look(waiter, waiter.search.findAnywhere());
      }
      this.#fullLookDelay = Math.max(FULL_LOOK_DELAY, FULL_LOOK_SHARE * (performance.now() - started));
    }, this.#fullLookDelay);
  }

  #isAnyBehind(): boolean {
    for (const { search } of this.#waiters) if (search.isBehind) return true;
    return false;
  }

  #expire(waiter: Waiter, timeoutMs: number): void {
    this.#look(waiter, waiter.search.findAnywhere());
    if (!this.#remove(waiter)) return;
    waiter.reject(`Cannot find ${waiter.wanted} in the guest's output within ${timeoutMs} ms`);
  }

  /** False when the waiter has its answer already. */
  #remove(waiter: Waiter): boolean {
    waiter.release();
    return this.#waiters.delete(waiter);
  }

  #look(waiter: Waiter, match: WaitMatch | undefined): void {
    if (match !== undefined) this.#consume(this.#endOf(match));
    this.#settle(waiter, match);
  }

  /** Position behind a match that was just found: what was looked at reaches to the end of the text. */
  #endOf(match: WaitMatch): number {
    return this.#history.end - (match.input ?? "").length + (match.index ?? 0) + match[0].length;
  }

  #consume(end: number): void {
    this.#cursor = Math.max(this.#cursor, end);
    this.#resetsSinceMatch = 0;
  }

  /** Ends a waiter that has its match, or that can have none any more. */
  #settle(waiter: Waiter, match: WaitMatch | undefined): void {
    if (match === undefined && this.#ended === undefined) return;
    this.#remove(waiter);
    if (match === undefined) {
      waiter.reject(`Cannot find ${waiter.wanted} in the guest's output: ${this.#ended}`);
      return;
    }
    waiter.resolve(match);
  }

  #waitError(text: string, waiter: Waiter, stack: string): WaitError {
    const lost = this.#droppedBytes - waiter.droppedBefore;
    const resets = this.#resetsSinceMatch;
    const more = [
      ...(resets === 0
        ? []
        : [`the guest was reset ${resets === 1 ? "once" : `${resets} times`} since the last match`]),
      ...(lost === 0 ? [] : [`${lost} bytes of output were dropped meanwhile`]),
    ];
    const error = new WaitError([text, ...more].join("; "), this.#history.since(this.#history.end - 4096));
    const frames = stack.indexOf("\n    at ");
    if (frames >= 0) error.stack = `${error.name}: ${error.message}${stack.slice(frames)}`;
    return error;
  }

  /** @throws SpecError */
  #mustBeHere(what: string): void {
    if (this.#elsewhere === undefined) return;
    const { path, text } = this.#elsewhere;
    throw new SpecError("TSVMM_VALUE_CONFLICT", path, `${what} by this program: it ${text} (give it the kind "api")`);
  }
}

/** A listener's error is the program's: it becomes an uncaught exception, and keeps the output from no other. */
function callListener(listener: (text: string) => void, piece: string): void {
  try {
    listener(piece);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
