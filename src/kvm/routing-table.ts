import { isSameMessage, type MsiMessage } from "../base/signals.ts";
import { type Gsi, gsi } from "../base/units.ts";
import {
  KVM_IOAPIC_NUM_PINS,
  KVM_IRQ_ROUTING_IRQCHIP,
  KVM_IRQ_ROUTING_MSI,
  KVM_IRQCHIP_IOAPIC,
  KVM_IRQCHIP_PIC_MASTER,
  KVM_IRQCHIP_PIC_SLAVE,
} from "./abi.ts";
import { IRQ_ROUTING, IRQ_ROUTING_ENTRY } from "./abi-structs.ts";

/** What a GSI means: a wire of an interrupt controller (by KVM's number of it), or a message. */
export type RoutingEntry =
  | { readonly kind: "pin"; readonly gsi: number; readonly irqchip: number; readonly pin: number }
  | { readonly kind: "message"; readonly gsi: number; readonly message: MsiMessage };

/** A wire of an interrupt controller behind a GSI. */
interface PinEntry {
  readonly gsi: number;
  readonly irqchip: number;
  readonly pin: number;
}

const PIC_PINS = 16;
/** The second PIC hangs on the first one's pin 2, so no device has it. */
const CASCADE_PIN = 2;
const TIMER_GSI = 0;
const TIMER_IOAPIC_PIN = 2;

/**
 * The wires to the interrupt controllers, which every KVM_SET_GSI_ROUTING must name again. They are a PC's. The timer's
 * GSI 0 is the PIC's pin 0 but the I/O APIC's pin 2; the MADT's source override tells the guest. Every other GSI is the
 * pin of its number. KVM's own table after KVM_CREATE_IRQCHIP has the timer at pin 0 and a wire on the cascade. So ours
 * is pushed before the guest starts.
 */
const PIN_ENTRIES: readonly PinEntry[] = [
  ...Array.from({ length: PIC_PINS }, (_, pin) => ({
    gsi: pin,
    irqchip: pin < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
    pin: pin % 8,
  })),
  ...Array.from({ length: KVM_IOAPIC_NUM_PINS }, (_, pin) => ({
    gsi: pin,
    irqchip: KVM_IRQCHIP_IOAPIC,
    pin: pin === TIMER_GSI ? TIMER_IOAPIC_PIN : pin,
  })),
].filter(({ gsi }) => gsi !== CASCADE_PIN);

/**
 * Which GSI means which message, and which GSIs are free; no system calls. The table is complete at any time:
 * {@link encode} is what KVM_SET_GSI_ROUTING takes.
 */
export class RoutingTable {
  readonly #limit: number;
  readonly #messages = new Map<Gsi, MsiMessage>();
  readonly #free: Gsi[] = [];
  #next: number = KVM_IOAPIC_NUM_PINS;
  #taken = 0;
  #isDirty = true; // KVM has a table of its own at first

  /** @param limit How many entries KVM takes, and the first GSI it does not: KVM_CAP_IRQ_ROUTING. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** True when KVM has not been told of a change that matters. The caller that tells KVM sets it to false. */
  get isDirty(): boolean {
    return this.#isDirty;
  }

  markPushed(): void {
    this.#isDirty = false;
  }

  /** All entries, the interrupt controllers' first. */
  get entries(): readonly RoutingEntry[] {
    return [
      ...PIN_ENTRIES.map((entry): RoutingEntry => ({ kind: "pin", ...entry })),
      ...[...this.#messages].map(([number, message]): RoutingEntry => ({ kind: "message", gsi: number, message })),
    ];
  }

  /** A free GSI above the I/O APIC's pins; `undefined` when none or no room for its entry is left. */
  takeGsi(): Gsi | undefined {
    if (PIN_ENTRIES.length + this.#taken >= this.#limit) return undefined;
    const reused = this.#free.pop();
    if (reused === undefined && this.#next >= this.#limit) return undefined;
    this.#taken++;
    return reused ?? gsi(this.#next++);
  }

  /** Gives a GSI back. Its entry leaves the table, but KVM need not be told: nothing raises that GSI any more. */
  releaseGsi(taken: Gsi): void {
    this.#messages.delete(taken);
    this.#free.push(taken);
    this.#taken--;
  }

  setMessage(taken: Gsi, message: MsiMessage): void {
    if (isSameMessage(this.#messages.get(taken), message)) return;
    this.#messages.set(taken, message);
    this.#isDirty = true;
  }

  /** struct kvm_irq_routing with all entries, the interrupt controllers' first. */
  encode(): Uint8Array {
    const count = PIN_ENTRIES.length + this.#messages.size;
    const bytes = new Uint8Array(IRQ_ROUTING.size + count * IRQ_ROUTING_ENTRY.size);
    const view = new DataView(bytes.buffer);
    view.setUint32(IRQ_ROUTING.nr, count, true);
    let at: number = IRQ_ROUTING.entries;
    for (const entry of PIN_ENTRIES) {
      view.setUint32(at + IRQ_ROUTING_ENTRY.gsi, entry.gsi, true);
      view.setUint32(at + IRQ_ROUTING_ENTRY.type, KVM_IRQ_ROUTING_IRQCHIP, true);
      view.setUint32(at + IRQ_ROUTING_ENTRY["u.irqchip.irqchip"], entry.irqchip, true);
      view.setUint32(at + IRQ_ROUTING_ENTRY["u.irqchip.pin"], entry.pin, true);
      at += IRQ_ROUTING_ENTRY.size;
    }
    for (const [number, message] of this.#messages) {
      view.setUint32(at + IRQ_ROUTING_ENTRY.gsi, number, true);
      view.setUint32(at + IRQ_ROUTING_ENTRY.type, KVM_IRQ_ROUTING_MSI, true);
      view.setUint32(at + IRQ_ROUTING_ENTRY["u.msi.address_lo"], message.addressLow, true);
      view.setUint32(at + IRQ_ROUTING_ENTRY["u.msi.address_hi"], message.addressHigh, true);
      view.setUint32(at + IRQ_ROUTING_ENTRY["u.msi.data"], message.data, true);
      at += IRQ_ROUTING_ENTRY.size;
    }
    return bytes;
  }
}
