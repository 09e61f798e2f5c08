import type { Doorbell, Doorbells, RingWatcher } from "../base/signals.ts";
import { allOrNothing } from "../base/undo-stack.ts";
import type { Gpa, Width } from "../base/units.ts";
import { EventFd } from "../host/eventfd.ts";
import type { Vm } from "./vm.ts";

/** What {@link IoEventFds} asks of a machine. */
export type DoorbellPort = Pick<Vm, "assignIoeventfd" | "deassignIoeventfd">;

/** An address that KVM watches. */
export interface RegisteredDoorbell {
  readonly address: Gpa;
  /** Bytes that a write must have; 0 for any. */
  readonly width: Width | 0;
}

/**
 * Guest writes that KVM turns into eventfd signals: the vCPU goes on at once, and the device thread hears of it from
 * its event loop. Rings that come before the loop's next pass are one call. Only the device thread may use it.
 */
export class IoEventFds implements Doorbells {
  readonly #vm: DoorbellPort;
  readonly #watcher: RingWatcher;
  readonly #registered = new Set<RegisteredDoorbell>();

  constructor(vm: DoorbellPort, watcher: RingWatcher) {
    this.#vm = vm;
    this.#watcher = watcher;
  }

  /** Those that are registered, in the order of their making. */
  get registered(): readonly RegisteredDoorbell[] {
    return [...this.#registered];
  }

  /**
   * Implements Doorbells. A ring that the loop has not seen when `unregister` is called is dropped: the device is being
   * reset or moved.
   *
   * @throws SyscallError when another doorbell is at the address or KVM has no room.
   */
  register(address: Gpa, width: Width | 0, onRing: () => void): Doorbell {
    return allOrNothing((undo) => {
      const event = undo.own(EventFd.create());
      undo.own(this.#watcher.watchRings(event.fd, onRing), (watch) => watch.close());
      this.#vm.assignIoeventfd(event.fd, address, width);
      undo.add(() => this.#vm.deassignIoeventfd(event.fd, address, width));
      const registered: RegisteredDoorbell = { address, width };
      this.#registered.add(registered);
      return {
        unregister: () => {
          if (this.#registered.delete(registered)) undo.undo();
        },
      };
    });
  }
}
