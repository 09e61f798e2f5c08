import type { Fd } from "../base/units.ts";
import { check, errnoName } from "../host/errors.ts";
import type { InterruptInfo, InterruptKind } from "../passthrough/backend.ts";
import {
  IRQ_INFO,
  IRQ_SET,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
} from "./abi.ts";
import { type VfioLibc, vfioStruct } from "./calls.ts";

/** VFIO's index of each kind. */
export const IRQ_INDEX: Readonly<Record<InterruptKind, number>> = {
  intx: VFIO_PCI_INTX_IRQ_INDEX,
  msi: VFIO_PCI_MSI_IRQ_INDEX,
  msix: VFIO_PCI_MSIX_IRQ_INDEX,
  error: VFIO_PCI_ERR_IRQ_INDEX,
  request: VFIO_PCI_REQ_IRQ_INDEX,
};

/** What is said of a kind that a device does not have. */
export const NO_INTERRUPT: InterruptInfo = { count: 0, canGrow: false, isAutomasked: false };

/**
 * VFIO_DEVICE_GET_IRQ_INFO. EINVAL is the kernel's way to say that the device has none of this kind (`error` on
 * conventional PCI).
 *
 * @throws SyscallError for any other errno.
 */
export function queryInterrupt(libc: VfioLibc, device: Fd, name: string, kind: InterruptKind): InterruptInfo {
  const { bytes, view } = vfioStruct(IRQ_INFO.size);
  view.setUint32(IRQ_INFO.index, IRQ_INDEX[kind], true);
  const result = libc.ioctlStruct(device, VFIO_DEVICE_GET_IRQ_INFO, bytes);
  if (result < 0 && errnoName(libc.errno()) === "EINVAL") return NO_INTERRUPT;
  check(result, `ask for the ${kind} interrupts of ${name}`, "VFIO_DEVICE_GET_IRQ_INFO", "TSVMM_VFIO_REFUSED", libc);
  return parseInterrupt(view);
}

/** Reads a struct vfio_irq_info. */
export function parseInterrupt(view: DataView): InterruptInfo {
  const flags = view.getUint32(IRQ_INFO.flags, true);
  if ((flags & VFIO_IRQ_INFO_EVENTFD) === 0) return NO_INTERRUPT;
  return {
    count: view.getUint32(IRQ_INFO.count, true),
    canGrow: (flags & VFIO_IRQ_INFO_NORESIZE) === 0,
    isAutomasked: (flags & VFIO_IRQ_INFO_AUTOMASKED) !== 0,
  };
}

/** A VFIO_DEVICE_SET_IRQS that this program makes; see the table of encodings in README.md. */
export type IrqAction =
  | { readonly kind: "trigger"; readonly start: number; readonly eventFds: readonly Fd[] }
  | { readonly kind: "disable" }
  | { readonly kind: "mask" }
  | { readonly kind: "unmask" }
  | { readonly kind: "unmaskOn"; readonly eventFd: Fd };

/** struct vfio_irq_set for an action on interrupts of a kind. */
export function encodeIrqSet(kind: InterruptKind, action: IrqAction): Uint8Array {
  const index = IRQ_INDEX[kind];
  switch (action.kind) {
    case "trigger":
      return irqSet(index, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, action.start, action.eventFds);
    case "disable":
      return irqSet(index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0);
    case "mask":
      return irqSet(index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK, 0, 1);
    case "unmask":
      return irqSet(index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, 0, 1);
    case "unmaskOn":
      return irqSet(index, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, 0, [action.eventFd]);
    default:
      return action satisfies never;
  }
}

/** @param data Eventfds, or how many interrupts are meant without any. */
function irqSet(index: number, flags: number, start: number, data: readonly Fd[] | number): Uint8Array {
  const eventFds = typeof data === "number" ? [] : data;
  const { bytes, view } = vfioStruct(IRQ_SET.size + 4 * eventFds.length);
  view.setUint32(IRQ_SET.flags, flags, true);
  view.setUint32(IRQ_SET.index, index, true);
  view.setUint32(IRQ_SET.start, start, true);
  view.setUint32(IRQ_SET.count, typeof data === "number" ? data : data.length, true);
  for (const [at, eventFd] of eventFds.entries()) view.setInt32(IRQ_SET.data + 4 * at, eventFd, true);
  return bytes;
}
