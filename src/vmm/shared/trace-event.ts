import type { MsiMessage } from "../../base/signals.ts";
import { hex, type Width } from "../../base/units.ts";

/** What a vCPU does that exits. `memory fault`: it met a memory slot whose memory does not answer. */
export type TraceAccess = "port read" | "port write" | "MMIO read" | "MMIO write" | "memory fault";

/**
 * One step of guest and devices, in the order of the device thread. Plain data: numbers, texts, and the message of a
 * route. `address` is guest-physical, or a port's number. `what` names what answers there, in the words of its
 * specification: `COM1 LSR`, `no device`.
 */
export type TraceEvent =
  /** A trapped access of a vCPU; a read with the value that it got. */
  | {
      readonly kind: "access";
      readonly vcpu: number;
      readonly access: TraceAccess;
      readonly address: number;
      readonly width: Width;
      readonly value: number;
      readonly what: string;
    }
  /** A port write of some vCPU, coalesced by KVM until the guest's next exit. */
  | {
      readonly kind: "coalescedWrite";
      readonly address: number;
      readonly width: Width;
      readonly value: number;
      readonly what: string;
    }
  /** A guest's write to a doorbell address, which does not exit. */
  | { readonly kind: "doorbell"; readonly address: number; readonly what: string }
  /** A message-signalled interrupt's way to the guest got its message. */
  | { readonly kind: "route"; readonly name: string; readonly step: "message"; readonly message: MsiMessage }
  /** The same changed otherwise; `signalled` is by a device of this program, others signal without it. */
  | {
      readonly kind: "route";
      readonly name: string;
      readonly step: "masked" | "unmasked" | "signalled" | "released";
    }
  /** Guest-physical addresses that became memory of the guest, or stopped being it: without exits in between. */
  | {
      readonly kind: "slot";
      readonly name: string;
      readonly step: "mapped" | "unmapped";
      readonly address: number;
      readonly sizeBytes: number;
      readonly isReadOnly: boolean;
    }
  /** A device of this program raised or lowered a pin of the interrupt controller. */
  | { readonly kind: "line"; readonly name: string; readonly gsi: number; readonly isUp: boolean }
  /** A passed-through device drives a pin from now on, without this program; or no longer. */
  | { readonly kind: "pin"; readonly gsi: number; readonly isDriven: boolean }
  /** Events that were dropped here, because the listener was behind. */
  | { readonly kind: "lost"; readonly count: number };

/** A trace event as a line of text: `cpu0 port read 0x3fd/1 = 0x60: COM1 LSR`. */
export function formatTrace(event: TraceEvent): string {
  switch (event.kind) {
    case "access": {
      const { vcpu, access, address, width, value, what } = event;
      return `cpu${vcpu} ${access} ${hex(address)}/${width} = ${hex(value)}: ${what}`;
    }
    case "coalescedWrite":
      return `coalesced port write ${hex(event.address)}/${event.width} = ${hex(event.value)}: ${event.what}`;
    case "doorbell":
      return `doorbell ${hex(event.address)}: ${event.what}`;
    case "route":
      return `message ${event.name}: ${event.step === "message" ? describeMessage(event.message) : event.step}`;
    case "slot": {
      const { name, step, address, sizeBytes, isReadOnly } = event;
      const how = step === "mapped" && isReadOnly ? " read-only" : "";
      return `slot ${name} at ${hex(address)}+${hex(sizeBytes)}: ${step}${how}`;
    }
    case "line":
      return `line ${event.name} (GSI ${event.gsi}) ${event.isUp ? "up" : "down"}`;
    case "pin":
      return `line GSI ${event.gsi} ${event.isDriven ? "driven by its device" : "let go of"}`;
    case "lost":
      return `${event.count} events lost`;
    default:
      return event satisfies never;
  }
}

/** What a local APIC makes of a message. Intel SDM volume 3, §11.11 */
function describeMessage({ addressLow, addressHigh, data }: MsiMessage): string {
  const destination = (((addressLow >>> 12) & 0xff) | (addressHigh & 0xffff_ff00)) >>> 0;
  const mode = addressLow & 0x4 ? " (logical)" : "";
  return `vector ${hex(data & 0xff)} to APIC ${destination}${mode}`;
}
