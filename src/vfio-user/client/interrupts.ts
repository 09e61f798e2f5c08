import { HostError } from "../../base/errors.ts";
import type { Fd } from "../../base/units.ts";
import type { InterruptInfo, InterruptKind } from "../../passthrough/backend.ts";
import {
  IRQ_INFO,
  IRQ_SET,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
} from "../../vfio/abi.ts";
import { vfioStruct } from "../../vfio/calls.ts";
import { IRQ_INDEX, NO_INTERRUPT, parseInterrupt } from "../../vfio/irqs.ts";
import { VFIO_USER_DEVICE_GET_IRQ_INFO, VFIO_USER_DEVICE_SET_IRQS } from "../protocol/abi.ts";
import type { UserChannel } from "./channel.ts";

/** What a server offers of one kind. @throws HostError */
export function queryUserInterrupt(channel: UserChannel, kind: InterruptKind, kinds: number): InterruptInfo {
  if (IRQ_INDEX[kind] >= kinds) return NO_INTERRUPT;
  const { bytes, view } = vfioStruct(IRQ_INFO.size);
  view.setUint32(IRQ_INFO.index, IRQ_INDEX[kind], true);
  const reply = channel.request(VFIO_USER_DEVICE_GET_IRQ_INFO, bytes);
  if (reply.byteLength < IRQ_INFO.size) throw channel.lose("its server answers DEVICE_GET_IRQ_INFO too shortly");
  return parseInterrupt(reply);
}

/**
 * VFIO_USER_DEVICE_SET_IRQS. SCM_RIGHTS cannot carry a gap, so vectors are sent in runs. A run of eventfds is one
 * message, split at the server's limit. A run of unused vectors is one message without descriptors.
 *
 * @throws HostError, also when the server takes no descriptors at all.
 */
export function setUserTriggers(
  channel: UserChannel,
  kind: InterruptKind,
  start: number,
  triggers: readonly Fd[],
  maxDescriptors: number,
): void {
  const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
  if (maxDescriptors === 0 && triggers.some((trigger) => trigger >= 0)) {
    throw new HostError(
      "TSVMM_USER_DEVICE_UNSUITABLE",
      `Cannot connect ${kind} of ${channel.name}: its server takes no descriptors (max_msg_fds)`,
    );
  }
  for (let at = 0; at < triggers.length; ) {
    const isEmpty = (trigger: Fd | undefined): boolean => trigger === undefined || trigger < 0;
    const isRunEmpty = isEmpty(triggers[at]);
    let end = at + 1;
    while (
      end < triggers.length &&
      isEmpty(triggers[end]) === isRunEmpty &&
      (isRunEmpty || end - at < maxDescriptors)
    ) {
      end++;
    }
    setIrqs(channel, kind, flags, start + at, end - at, isRunEmpty ? [] : triggers.slice(at, end));
    at = end;
  }
}

/** Unmasks the first vectors of a kind at the server. @throws HostError */
export function unmaskUserVectors(channel: UserChannel, kind: InterruptKind, count: number): void {
  setIrqs(channel, kind, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, 0, count, []);
}

/** All vectors of a kind off. @throws HostError */
export function disableUserInterrupts(channel: UserChannel, kind: InterruptKind): void {
  setIrqs(channel, kind, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, []);
}

/** Masks or unmasks INTx now, or lets an eventfd unmask it from now on. @throws HostError */
export function maskUserIntx(channel: UserChannel, what: "mask" | "unmask" | { readonly unmaskOn: Fd }): void {
  const action = what === "mask" ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK;
  const data = typeof what === "string" ? VFIO_IRQ_SET_DATA_NONE : VFIO_IRQ_SET_DATA_EVENTFD;
  setIrqs(channel, "intx", action | data, 0, 1, typeof what === "string" ? [] : [what.unmaskOn]);
}

function setIrqs(
  channel: UserChannel,
  kind: InterruptKind,
  flags: number,
  start: number,
  count: number,
  descriptors: readonly Fd[],
): void {
  const { bytes, view } = vfioStruct(IRQ_SET.size);
  view.setUint32(IRQ_SET.flags, flags, true);
  view.setUint32(IRQ_SET.index, IRQ_INDEX[kind], true);
  view.setUint32(IRQ_SET.start, start, true);
  view.setUint32(IRQ_SET.count, count, true);
  channel.request(VFIO_USER_DEVICE_SET_IRQS, bytes, descriptors);
}
