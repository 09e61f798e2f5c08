import type { EventDescriptor, ResampledLines } from "../base/signals.ts";
import type { Gsi } from "../base/units.ts";
import type { DeviceBackend } from "./backend.ts";

/** What INTx needs of the machine. */
export interface IntxHost {
  readonly lines: ResampledLines;
  /** @throws HostError where the host has no descriptor left. */
  readonly createEvent: () => EventDescriptor;
}

/**
 * INTx without a thread of ours. At each interrupt the host masks the line and signals the trigger eventfd; KVM raises
 * the pin. At the guest's acknowledgement (EOI) KVM lowers the pin and signals the resample eventfd; the host unmasks
 * the line. A device whose line is still up then interrupts again, as a level should.
 */
export class IntxConnection implements Disposable {
  readonly #backend: DeviceBackend;
  readonly #connected: { disconnect(): void };
  readonly #trigger: EventDescriptor;
  readonly #resample: EventDescriptor;

  private constructor(
    backend: DeviceBackend,
    connected: { disconnect(): void },
    trigger: EventDescriptor,
    resample: EventDescriptor,
  ) {
    this.#backend = backend;
    this.#connected = connected;
    this.#trigger = trigger;
    this.#resample = resample;
  }

  /**
   * Connects INTx to a pin. Masked while KVM's side is put together: an interrupt in between would stay masked.
   *
   * @throws HostError; everything is undone then.
   */
  static open(backend: DeviceBackend, host: IntxHost, line: Gsi): IntxConnection {
    const undo: (() => void)[] = [];
    try {
      const trigger = host.createEvent();
      undo.push(() => trigger.close());
      const resample = host.createEvent();
      undo.push(() => resample.close());
      backend.setTrigger("intx", 0, [trigger.fd]);
      undo.push(() => backend.disableInterrupts("intx"));
      backend.maskIntx();
      const connected = host.lines.connect(line, trigger.fd, resample.fd);
      undo.push(() => connected.disconnect());
      backend.setIntxResample(resample.fd);
      backend.unmaskIntx();
      return new IntxConnection(backend, connected, trigger, resample);
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
  }

  /** Takes it apart: host first, so that nothing arrives any more; KVM lowers the pin when its side goes. */
  close(): void {
    try {
      this.#backend.disableInterrupts("intx");
    } finally {
      this.#connected.disconnect();
      this.#resample.close();
      this.#trigger.close();
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
