import type { CharBackend, Report } from "../../base/backends.ts";
import type { FdWatcher, RingWatcher } from "../../base/signals.ts";
import { allOrNothing } from "../../base/undo-stack.ts";
import { CharFile } from "../../host/char/char-file.ts";
import { CharApi, CharNull } from "../../host/char/char-null.ts";
import { CharPty } from "../../host/char/char-pty.ts";
import { CharSocket } from "../../host/char/char-socket.ts";
import { CharTty } from "../../host/char/char-tty.ts";
import type { Channel, DeviceWorkerData, FromDeviceThread } from "../shared/messages.ts";
import { checkOutputs, inputsOf } from "../spec/outputs.ts";
import type { CharSpec, MachineSpec } from "../spec/spec.ts";
import { ApiOutput } from "./api-output.ts";

/** The size that a virtio console gives the guest where the real one is unknown. */
const UNKNOWN_SIZE = { columns: 0, rows: 0 } as const;

/**
 * The host's ends of serial port and console. They outlive a reset of the guest, so that a socket's client or a pty's
 * path stays; each new board connects its devices to them.
 */
export class CharDevices implements Disposable {
  /** `undefined`: the machine has no such device. */
  readonly serial: CharBackend | undefined;
  readonly console: CharBackend | undefined;
  /** Characters of the console's terminal; 0 for unknown. */
  consoleSize: { readonly columns: number; readonly rows: number } = UNKNOWN_SIZE;
  /** Where ptys are. */
  readonly ptyPaths: Map<Channel, string> = new Map();
  readonly #inputs = new Map<Channel, CharApi>();
  readonly #outputs: ApiOutput[] = [];
  readonly #files = new Map<Channel, CharFile>();
  readonly #spec: MachineSpec;

  /**
   * @param credit Of the output that goes to the typed API.
   * @throws HostError when a file, socket or pty cannot be had; nothing stays open then.
   */
  constructor(
    spec: MachineSpec,
    watcher: FdWatcher & RingWatcher,
    report: Report,
    post: (message: FromDeviceThread) => void,
    credit: DeviceWorkerData["outputCredit"],
  ) {
    this.#spec = spec;
    const open = (channel: Channel, choice: CharSpec): CharBackend | undefined => {
      const common = { name: channel, watcher, report };
      switch (choice.kind) {
        case "off":
          return undefined;
        case "null":
          return new CharNull();
        case "tty":
          return new CharTty({
            ...common,
            onQuit: () => post({ kind: "guest", event: { kind: "quit" } }),
            onOutputClosed: () => post({ kind: "guest", event: { kind: "outputClosed", channel } }),
          });
        case "file": {
          const file = new CharFile({ ...common, path: choice.path });
          this.#files.set(channel, file);
          return file;
        }
        case "socket":
          return new CharSocket({ ...common, path: choice.path });
        case "pty": {
          const pty = new CharPty(common);
          this.ptyPaths.set(channel, pty.path);
          post({ kind: "pty", channel, path: pty.path });
          return pty;
        }
        case "api": {
          const output = new ApiOutput({
            name: channel,
            credit: credit[channel],
            post: (bytes, droppedBytes) => post({ kind: "output", channel, bytes, droppedBytes }),
            report,
          });
          const end = new CharApi((bytes) => output.write(bytes));
          this.#outputs.push(output);
          this.#inputs.set(channel, end);
          return end;
        }
        default:
          return choice satisfies never;
      }
    };
    const [serial, console] = allOrNothing((undo) => {
      const first = undo.own(open("serial", spec.serial), (end) => end?.close());
      return [first, open("console", spec.console)];
    });
    this.serial = serial;
    this.console = console;
  }

  /**
   * The guest starts: files that output goes to are emptied.
   *
   * @throws SpecError when one of them is, by now, a file that the machine uses: nothing is emptied then. SyscallError
   *   when one cannot be.
   */
  begin(): void {
    const opened = [...this.#files].map(([channel, file]) => {
      const choice = this.#spec[channel];
      return {
        where: channel,
        path: `/proc/self/fd/${file.fd}`,
        ...(choice.kind === "file" ? { shown: choice.path } : {}),
      };
    });
    checkOutputs(inputsOf(this.#spec), opened);
    for (const file of this.#files.values()) file.begin();
  }

  /** Types bytes that came through the typed API. */
  input(channel: Channel, bytes: Uint8Array): void {
    this.#inputs.get(channel)?.push(bytes);
  }

  /** The doorbell has rung: the program may have taken output. */
  resumeOutput(): void {
    for (const output of this.#outputs) output.resume();
  }

  /** Sends the typed API all output so far. */
  flush(): void {
    for (const output of this.#outputs) output.flush();
  }

  close(): void {
    this.flush();
    this.serial?.close();
    this.console?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
