import type { MsiMessage } from "../../src/base/signals.ts";
import type { Fd, Gsi } from "../../src/base/units.ts";
import { EventFd } from "../../src/host/eventfd.ts";
import type { RoutingPort } from "../../src/kvm/irq-routing.ts";

/**
 * KVM's interrupt side, for a real IrqRouting: the routing table, the connected eventfds, and the messages for local
 * APICs. Eventfds are real; {@link deliver} does what KVM's work queue does. As in virt/kvm/eventfd.c, assigning an
 * irqfd to an eventfd with a count raises the interrupt once (kvm_irqfd_assign). Deassigning it sets the count to zero
 * (irqfd_shutdown).
 */
export class FakeKvmInterrupts implements RoutingPort {
  /** How often the table was pushed. */
  pushes = 0;
  /** Data of each MSI entry in force, by GSI. */
  readonly table: Map<number, number> = new Map();
  /** Eventfd of each connected GSI. */
  readonly irqfds: Map<number, Fd> = new Map();
  readonly #delivered: number[] = [];

  setGsiRouting(table: Uint8Array): void {
    const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
    this.pushes++;
    this.table.clear();
    for (let entry = 0; entry < view.getUint32(0, true); entry++) {
      const at = 8 + 48 * entry; // struct kvm_irq_routing_entry; type 2 is an MSI, its data the third word of the union
      if (view.getUint32(at + 4, true) === 2) this.table.set(view.getUint32(at, true), view.getUint32(at + 24, true));
    }
  }

  assignIrqfd(eventFd: Fd, gsi: Gsi): void {
    if (!this.table.has(gsi)) throw new Error(`an irqfd is assigned to GSI ${gsi}, which the table does not know`);
    this.irqfds.set(gsi, eventFd);
    this.#take(eventFd, gsi);
  }

  signalMsi({ data }: MsiMessage): boolean {
    this.#delivered.push(data);
    return true;
  }

  deassignIrqfd(eventFd: Fd, gsi: Gsi): void {
    this.#take(eventFd, gsi); // KVM finishes what it has seen
    this.irqfds.delete(gsi);
  }

  /** Data of the messages that arrived since the last call. */
  deliver(): readonly number[] {
    for (const [gsi, eventFd] of this.irqfds) this.#take(eventFd, gsi);
    return this.#delivered.splice(0);
  }

  #take(eventFd: Fd, gsi: number): void {
    const event = EventFd.attach(eventFd);
    if (event.isSignalled && event.drain() > 0) this.#delivered.push(this.table.get(gsi) ?? -1);
  }
}
