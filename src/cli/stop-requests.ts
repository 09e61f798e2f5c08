/** Signals that ask the program to end, and their numbers. */
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
type StopSignal = keyof typeof SIGNALS;

/** What can be stopped: a machine. */
export interface Stoppable {
  stop(text: string): Promise<unknown>;
}

/** The part of `process` this file uses, so that tests bring their own. */
export interface ProcessEvents {
  readonly pid: number;
  on(event: StopSignal | "uncaughtException", listener: (argument: Error) => void): unknown;
  removeListener(event: StopSignal | "uncaughtException", listener: (argument: Error) => void): unknown;
  removeAllListeners(event: StopSignal): unknown;
  emit(event: "exit", status: number, signal: StopSignal): unknown;
  kill(pid: number, signal: StopSignal): unknown;
}

/** How long a machine may take to stop in order. */
const GRACE_MS = 2000;
/**
 * Signals that come this soon after the first are the same request: timeout(1) and npm send theirs to a process and to
 * its group.
 */
const SAME_REQUEST_MS = 200;

/**
 * Turns signals and uncaught errors into an orderly stop of the machine, and ends the process if that does not work.
 *
 * A first signal stops the machine. If it has not stopped after two seconds, or on a second request, the process ends
 * by that signal. The listeners of `exit` run first, with the signal's name; they restore the terminal. Then the signal
 * is raised again with its default action: `process.exit()` would wait for threads that do not end.
 */
export class StopRequests implements Disposable {
  readonly #process: ProcessEvents;
  readonly #report: (error: Error) => void;
  readonly #now: () => number;
  readonly #listeners: readonly [StopSignal | "uncaughtException", (argument: Error) => void][];
  readonly #start = new AbortController();
  #machine: Stoppable | undefined;
  #signal: StopSignal | undefined;
  #signalledAt = 0;
  #error: Error | undefined;
  #deadline: NodeJS.Timeout | undefined;

  /**
   * @param report Shows an uncaught error.
   * @param now Milliseconds that never go back.
   */
  constructor(
    process: ProcessEvents,
    report: (error: Error) => void,
    now: () => number = performance.now.bind(performance),
  ) {
    this.#process = process;
    this.#report = report;
    this.#now = now;
    this.#listeners = [
      ["SIGHUP", () => this.#onSignal("SIGHUP")],
      ["SIGINT", () => this.#onSignal("SIGINT")],
      ["SIGTERM", () => this.#onSignal("SIGTERM")],
      ["uncaughtException", (error) => this.#onError(error)],
    ];
    for (const [event, listener] of this.#listeners) this.#process.on(event, listener);
  }

  /** Says what to stop. A request that came before is carried out now. */
  attach(machine: Stoppable): void {
    this.#machine = machine;
    this.#stop();
  }

  /** Aborted by a request that comes before there is a machine. */
  get signal(): AbortSignal {
    return this.#start.signal;
  }

  /** The exit status these requests demand; `undefined` when there was none. */
  get status(): number | undefined {
    if (this.#error !== undefined) return 1;
    return this.#signal === undefined ? undefined : 128 + SIGNALS[this.#signal];
  }

  /** Stops listening: the machine has ended. */
  close(): void {
    clearTimeout(this.#deadline);
    for (const [event, listener] of this.#listeners) this.#process.removeListener(event, listener);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #onSignal(signal: StopSignal): void {
    if (this.#signal !== undefined) {
      if (this.#now() - this.#signalledAt >= SAME_REQUEST_MS) this.#giveUp(signal);
      return;
    }
    this.#signal = signal;
    this.#signalledAt = this.#now();
    this.#deadline = setTimeout(() => this.#giveUp(signal), GRACE_MS);
    this.#stop();
  }

  #onError(error: Error): void {
    this.#report(error);
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#deadline ??= setTimeout(() => this.#giveUp("SIGTERM"), GRACE_MS);
    this.#stop();
  }

  #stop(): void {
    const text = this.#error?.message ?? this.#signal;
    if (text === undefined) return;
    if (this.#machine === undefined) return this.#start.abort(new Error(text));
    this.#machine
      .stop(text)
      .catch((error: unknown) => this.#onError(error instanceof Error ? error : new Error(String(error))));
  }

  #giveUp(signal: StopSignal): void {
    clearTimeout(this.#deadline);
    this.#process.emit("exit", 128 + SIGNALS[signal], signal);
    this.#process.removeAllListeners(signal);
    this.#process.kill(this.#process.pid, signal);
  }
}
