import type { EventDescriptor, FdWatch, RingWatcher } from "../base/signals.ts";
import type { Fd } from "../base/units.ts";
import type { DeviceBackend } from "./backend.ts";

/** What the host kernel tells of a device while a guest has it. */
export interface HostEventHandlers {
  /** The device met an error it cannot recover from by itself (PCI Express AER); it may be unusable. */
  readonly onError: () => void;
  /**
   * The host wants the device back: somebody unbinds or removes it, and waits. Comes again until the device is closed.
   */
  readonly onRequest: () => void;
}

/** What {@link HostEvents} needs of the machine. */
export interface EventHost {
  readonly watcher: RingWatcher;
  /** @throws HostError where the host has no descriptor left. */
  readonly createEvent: () => EventDescriptor;
}

/**
 * Watches the ERR and REQ events of a device, where it has them. Their eventfds are never read: a vfio-user server
 * holds them too, and can make a read block.
 */
export class HostEvents implements Disposable {
  readonly #backend: DeviceBackend;
  readonly #host: EventHost;
  readonly #events: {
    readonly kind: "error" | "request";
    readonly event: EventDescriptor;
    readonly watch: FdWatch;
  }[] = [];

  /** @throws HostError; nothing is left behind then. */
  constructor(backend: DeviceBackend, host: EventHost, handlers: HostEventHandlers) {
    this.#backend = backend;
    this.#host = host;
    try {
      if (backend.interrupt("error").count > 0) {
        backend.setErrorEvent(this.#watch("error", handlers.onError));
      }
      if (backend.interrupt("request").count > 0) {
        backend.setRequestEvent(this.#watch("request", handlers.onRequest));
      }
    } catch (error) {
      this.#release();
      throw error;
    }
  }

  /** Stops watching; the device must still be open. */
  close(): void {
    try {
      for (const { kind } of this.#events) this.#backend.disableInterrupts(kind);
    } finally {
      this.#release();
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #watch(kind: "error" | "request", callback: () => void): Fd {
    const event = this.#host.createEvent();
    const watch = this.#host.watcher.watchRings(event.fd, callback);
    this.#events.push({ kind, event, watch });
    return event.fd;
  }

  #release(): void {
    for (const { event, watch } of this.#events) {
      watch.close();
      event.close();
    }
    this.#events.length = 0;
  }
}
