/** Thrown by {@link TextChannel.waitFor} when the pattern does not come; `output` holds what came instead. */
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
  /** Milliseconds; 60,000 unless told. */
  readonly timeoutMs?: number;
}

/** How much output is kept for waiting and for {@link TextChannel.text}, in characters. */
const HISTORY = 4 << 20;

interface Waiter {
  readonly pattern: RegExp;
  resolve(match: RegExpMatchArray): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

/** The guest's serial port (or console) as a test sees it: text comes out, text goes in. */
export class TextChannel {
  readonly #send: (bytes: Uint8Array) => void;
  readonly #decoder = new TextDecoder();
  readonly #listeners = new Set<(text: string) => void>();
  #text = "";
  /** Where the next `waitFor` begins to look: just behind the last match. */
  #cursor = 0;
  #waiters: Waiter[] = [];
  #ended: string | undefined;

  constructor(send: (bytes: Uint8Array) => void) {
    this.#send = send;
  }

  /** Everything the guest has written, at most the last 4 Mi characters. */
  get text(): string {
    return this.#text;
  }

  /** Types text (or bytes) at the guest. */
  write(text: string | Uint8Array): void {
    this.#send(typeof text === "string" ? new TextEncoder().encode(text) : text);
  }

  /**
   * Waits until the output since the last match matches `pattern`, and consumes it. What comes next may be there already, so a pattern
   * that ends in `$` can miss what it waits for.
   *
   * @returns The match.
   * @throws WaitError after `timeoutMs`, or when the machine ends first.
   */
  waitFor(pattern: RegExp | string, options: WaitOptions = {}): Promise<RegExpMatchArray> {
    const timeoutMs = options.timeoutMs ?? 60_000;
    const expression =
      typeof pattern === "string" ? new RegExp(pattern.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")) : pattern;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        reject(
          new WaitError(
            `Cannot find ${expression} in the guest's output within ${timeoutMs} ms`,
            this.#text.slice(this.#cursor),
          ),
        );
      }, timeoutMs);
      const waiter: Waiter = { pattern: expression, resolve, reject, timer };
      this.#waiters.push(waiter);
      this.#match();
    });
  }

  /** Calls `listener` with every piece of output from now on; answers how to stop that. */
  onOutput(listener: (text: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Takes output of the guest; the machine calls it. */
  receive(bytes: Uint8Array): void {
    const piece = this.#decoder.decode(bytes, { stream: true });
    this.#text += piece;
    if (this.#text.length > HISTORY) {
      const excess = this.#text.length - HISTORY;
      this.#text = this.#text.slice(excess);
      this.#cursor = Math.max(0, this.#cursor - excess);
    }
    for (const listener of this.#listeners) listener(piece);
    this.#match();
  }

  /** Says that no more output comes; the machine calls it. */
  end(reason: string): void {
    this.#match();
    this.#ended = reason;
    this.#match();
  }

  /** Waiters are served in the order they came; each consumes its match. */
  #match(): void {
    for (let waiter = this.#waiters[0]; waiter !== undefined; waiter = this.#waiters[0]) {
      const match = this.#text.slice(this.#cursor).match(waiter.pattern);
      if (match === null) break;
      this.#cursor += (match.index ?? 0) + match[0].length;
      clearTimeout(waiter.timer);
      this.#waiters.shift();
      waiter.resolve(match);
    }
    if (this.#ended === undefined) return;
    for (const waiter of this.#waiters) {
      clearTimeout(waiter.timer);
      waiter.reject(
        new WaitError(
          `Cannot find ${waiter.pattern} in the guest's output: ${this.#ended}`,
          this.#text.slice(this.#cursor),
        ),
      );
    }
    this.#waiters = [];
  }
}
