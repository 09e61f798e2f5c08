import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import { ReportLimit } from "../../base/report-limit.ts";
import type { FdWatch } from "../../base/signals.ts";
import { UndoStack } from "../../base/undo-stack.ts";
import type { Fd } from "../../base/units.ts";
import { DescriptorSocket } from "../../host/descriptor-socket.ts";
import { EventSignals } from "../../host/event-signals.ts";
import { libc } from "../../host/libc.ts";
import { NodeLoop } from "../../host/node-loop.ts";
import { UnixListener } from "../../host/unix-socket.ts";
import { PCI_STATUS, PCI_STATUS_INTERRUPT } from "../../pci/ids.ts";
import { UserWire } from "../protocol/wire.ts";
import { ClientMemory } from "./client-memory.ts";
import { Connection } from "./connection.ts";
import type { DeviceHost, UserPciDevice } from "./device.ts";
import { ClientInterrupts } from "./interrupts.ts";
import { DeviceModel } from "./model.ts";

export interface ServeOptions {
  /** Where machines connect: a unix socket, made here. A socket file without a listener is replaced. */
  readonly socket: string;
  /** Makes the device, once. */
  readonly device: (host: DeviceHost) => UserPciDevice;
  /** Nothing is told unless given. */
  readonly report?: Report;
}

const BACKLOG = 4;

/**
 * Serves a PCI device to machines that speak vfio-user 0.1, one at a time, on Node's event loop. The process stays
 * alive until {@link close}.
 *
 * ```ts
 * const server = DeviceServer.listen({ socket: "/run/edu.sock", device: (host) => new EduDevice(host) });
 * ```
 */
export class DeviceServer implements AsyncDisposable {
  /** The socket. */
  readonly path: string;
  readonly #limit: ReportLimit;
  readonly #report: Report;
  readonly #loop: NodeLoop;
  readonly #listener: UnixListener;
  readonly #signals: EventSignals;
  readonly #memory: ClientMemory = new ClientMemory();
  readonly #interrupts: ClientInterrupts;
  readonly #model: DeviceModel;
  #client: { readonly connection: Connection; readonly watch: FdWatch } | undefined;
  /** False while a machine that has gone could reach memory of the device. */
  #isNew = true;
  #isClosed = false;

  private constructor(options: ServeOptions) {
    this.path = options.socket;
    this.#limit = new ReportLimit(options.report ?? (() => undefined));
    this.#report = this.#limit.report;
    const memory = this.#memory;
    let interrupts: ClientInterrupts | undefined;
    const host: DeviceHost = {
      memory,
      report: this.#report,
      get usesMessages() {
        return interrupts?.usesMessages ?? false;
      },
      signal: (vector) => interrupts?.signal(vector),
      setIntx: (isHigh) => this.#setIntx(isHigh),
    };
    const undo = new UndoStack();
    try {
      this.#signals = undo.own(new EventSignals());
      this.#listener = undo.own(UnixListener.listen(options.socket, BACKLOG));
      this.#loop = undo.own(new NodeLoop((error) => this.#report("error", String(error))));
      const device = options.device(host);
      const { msi = 0, msix } = device.interrupts;
      const counts = [(device.identity.interruptPin ?? 0) === 0 ? 0 : 1, msi, msix?.vectors ?? 0];
      interrupts = new ClientInterrupts(counts, {
        signals: this.#signals,
        watcher: this.#loop.epoll,
        report: this.#report,
      });
      this.#interrupts = interrupts;
      this.#model = new DeviceModel(device, {
        onMaster: (isEnabled) => {
          memory.isEnabled = isEnabled;
        },
        onIntxDisable: (isDisabled) => {
          this.#interrupts.isIntxDisabled = isDisabled;
        },
      });
      this.#loop.epoll.watchRings(this.#listener.fd, () => this.#acceptAll());
    } catch (error) {
      throw undo.after(error);
    }
  }

  /**
   * Listens, and makes the device.
   *
   * @throws HostError when it cannot listen there; whatever the device throws.
   */
  static listen(options: ServeOptions): DeviceServer {
    return new DeviceServer(options);
  }

  /** Whether a machine is connected. */
  get isInUse(): boolean {
    return this.#client !== undefined;
  }

  /**
   * Hangs up, stops listening, removes the socket; resolves when all is given back. Calling it again waits for the same
   * end.
   */
  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.#client?.connection.close();
      this.#signals.close();
      this.#listener.close();
      this.#loop.close();
      this.#limit.settle();
    }
    await this.#loop.closed;
  }

  /** The same as {@link close}, for `await using server = DeviceServer.listen(…)`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #acceptAll(): void {
    for (;;) {
      const accepted = this.#listener.accept(this.#report);
      if (accepted === undefined) return;
      this.#meet(accepted);
    }
  }

  #meet(accepted: Fd): void {
    // A machine that resets hangs up and comes back at once: what it sent before may be all that is to be read.
    this.#client?.connection.pump();
    if (this.#client !== undefined) {
      this.#report("warn", "a second machine is turned away: one uses the device");
      libc.close(accepted);
      return;
    }
    if (!this.#isNew && !this.#renew()) {
      libc.close(accepted);
      return;
    }
    const wire = new UserWire(new DescriptorSocket(accepted));
    const connection = new Connection({
      wire,
      model: this.#model,
      memory: this.#memory,
      interrupts: this.#interrupts,
      report: this.#report,
      onClosed: () => this.#closed(),
    });
    const watch = this.#loop.epoll.watch(wire.fd, "input", () => connection.pump());
    this.#memory.remote = connection;
    this.#client = { connection, watch };
    this.#report("info", "a machine is connected");
  }

  #closed(): void {
    this.#client?.watch.close();
    this.#client = undefined;
    // First what the device could reach, then its own state: a reset must not write to a machine that is gone.
    this.#memory.remote = undefined;
    this.#memory.clear();
    this.#interrupts.clear();
    this.#renew();
    this.#report("info", "the machine is gone");
  }

  /**
   * Makes the device a new one, for a machine that has nothing of the one before. @returns False when the host cannot.
   */
  #renew(): boolean {
    try {
      this.#model.renewMemory();
      this.#isNew = true;
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#report("error", error.message);
      this.#isNew = false;
    }
    this.#model.reset();
    return this.#isNew;
  }

  #setIntx(isHigh: boolean): void {
    const { config } = this.#model;
    const status = config.get16(PCI_STATUS);
    config.set16(PCI_STATUS, isHigh ? status | PCI_STATUS_INTERRUPT : status & ~PCI_STATUS_INTERRUPT);
    this.#interrupts.setIntx(isHigh);
  }
}
