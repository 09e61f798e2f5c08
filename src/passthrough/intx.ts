import type { EventDescriptor, ResampledLines } from "../base/signals.ts";
import { allOrNothing, type UndoStack } from "../base/undo-stack.ts";
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
  readonly #undo: UndoStack;

  private constructor(undo: UndoStack) {
    this.#undo = undo;
  }

  /**
   * Connects INTx to a pin. Masked while KVM's side is put together: an interrupt in between would stay masked.
   *
   * @throws HostError; everything is undone then.
   */
  static open(backend: DeviceBackend, host: IntxHost, line: Gsi): IntxConnection {
    return allOrNothing((undo) => {
      const trigger = undo.own(host.createEvent());
      const resample = undo.own(host.createEvent());
      let connected: { disconnect(): void } | undefined;
      undo.add(() => connected?.disconnect());
      backend.setTrigger("intx", 0, [trigger.fd]);
      undo.add(() => backend.disableInterrupts("intx"));
      backend.maskIntx();
      connected = host.lines.connect(line, trigger.fd, resample.fd);
      backend.setIntxResample(resample.fd);
      backend.unmaskIntx();
      return new IntxConnection(undo.move());
    });
  }

  /** Takes it apart: host first, so that nothing arrives any more; KVM lowers the pin when its side goes. */
  close(): void {
    this.#undo.undo();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
