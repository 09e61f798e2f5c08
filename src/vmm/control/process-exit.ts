import { inspect } from "node:util";
import { libc } from "../../host/libc.ts";

/** A caller that emits `exit` with a signal's name ends the process by that signal; Node itself passes none. */
export type ExitListener = (status: number, signal?: string) => void;

/**
 * A machine's part in the end of its process, from construction to {@link close}: brings the machine's threads to where
 * Node can end them.
 *
 * Node waits for each thread before it ends a process. It would wait without end for a thread that does not return from
 * a system call. The process is then left by `_exit`, after the other listeners of `exit` have run.
 */
export class ProcessExit implements Disposable {
  readonly #release: () => boolean;
  #uncaught: { readonly error: unknown } | undefined;

  /** @param release Brings the threads there and gives the terminal back; false when a thread did not come. */
  constructor(release: () => boolean) {
    this.#release = release;
    process.on("exit", this.#onExit);
    process.on("uncaughtExceptionMonitor", this.#onUncaught);
  }

  close(): void {
    process.off("exit", this.#onExit);
    process.off("uncaughtExceptionMonitor", this.#onUncaught);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  readonly #onUncaught = (error: unknown): void => {
    this.#uncaught = { error };
  };

  readonly #onExit: ExitListener = (status, signal) => {
    if (this.#release() || signal !== undefined) return;
    // Node would show it only after this event.
    if (this.#uncaught !== undefined) process.stderr.write(`${inspect(this.#uncaught.error)}\n`);
    const listeners: readonly ExitListener[] = process.listeners("exit");
    for (const listener of listeners.slice(listeners.indexOf(this.#onExit) + 1)) {
      try {
        listener(status);
      } catch (error) {
        process.stderr.write(`${inspect(error)}\n`);
      }
    }
    libc.exitNow(Number(process.exitCode ?? status));
  };
}
