import { HostError } from "../base/errors.ts";
import { KERNEL_SIGSET_SIZE, PRCTL, SIGNAL, SIGSET_SIZE, TIMESPEC } from "./constants.ts";
import { check, ERRNO, errnoName, SyscallError } from "./errors.ts";
import { libc } from "./libc.ts";

/**
 * The signal that brings a thread out of KVM_RUN. Nothing handles it: it stays blocked, KVM_SET_SIGNAL_MASK lets it
 * through while the guest runs, and {@link drainKickSignals} takes it off the thread afterwards.
 */
export const KICK_SIGNAL = 40;

const kickSet: Uint8Array = new Uint8Array(SIGSET_SIZE);
kickSet[(KICK_SIGNAL - 1) >> 3] = 1 << ((KICK_SIGNAL - 1) & 7);
const noTime: Uint8Array = new Uint8Array(TIMESPEC.size);

/** This thread's id, as {@link kick} takes it. */
export function currentThreadId(): number {
  return libc.gettid();
}

/**
 * Blocks the kick signal on this thread. To be called before the thread id is published: an unblocked one ends the
 * process.
 *
 * @returns The signal mask for KVM_RUN: the mask of before, without the kick signal. It has 8 bytes, bit n - 1 for
 *   signal n, as in struct kvm_signal_mask.
 * @throws SyscallError
 */
export function blockKickSignal(): Uint8Array {
  const previous = new Uint8Array(SIGSET_SIZE);
  const errno = libc.pthreadSigmask(SIGNAL.SIG_BLOCK, kickSet, previous); // answers the errno itself
  if (errno !== 0)
    throw new SyscallError("TSVMM_HOST_CALL", "block the kick signal", "pthread_sigmask", errnoName(errno));
  const mask = previous.slice(0, KERNEL_SIGSET_SIZE);
  const byte = (KICK_SIGNAL - 1) >> 3;
  mask[byte] = (mask[byte] ?? 0) & ~(1 << ((KICK_SIGNAL - 1) & 7));
  return mask;
}

/**
 * Takes the pending kick signals off this thread; after each EINTR of KVM_RUN, because a pending one would end the next
 * KVM_RUN at once.
 *
 * @returns How many there were.
 */
export function drainKickSignals(): number {
  let count = 0;
  while (libc.sigtimedwait(kickSet, noTime) === KICK_SIGNAL) count++;
  return count;
}

/**
 * Kicks a thread of this process that called {@link blockKickSignal}; from any thread.
 *
 * @returns False when the thread is gone, which is no error.
 * @throws SyscallError
 */
export function kick(threadId: number): boolean {
  const result = libc.tgkill(libc.getpid(), threadId, KICK_SIGNAL);
  if (result < 0 && libc.errno() === ERRNO.ESRCH) return false;
  check(result, `kick thread ${threadId}`, "tgkill", "TSVMM_HOST_CALL");
  return true;
}

/** Names this thread for ps, top and debuggers; what is longer than 15 bytes is cut off. */
export function setThreadName(name: string): void {
  const bytes = new Uint8Array(16);
  new TextEncoder().encodeInto(name, bytes.subarray(0, 15));
  check(libc.prctl(PRCTL.PR_SET_NAME, libc.addressOf(bytes)), `name this thread ${name}`, "prctl", "TSVMM_HOST_CALL");
}

/** A bit for each CPU that a kernel can be built for. */
const CPU_MASK_BYTES = 1024;

/**
 * Lets the calling thread run on these CPUs of the host only. sched_setaffinity(2)
 *
 * @param name Whose thread it is, for messages.
 * @throws HostError when one of them is offline or not this process's to use.
 */
export function pinThread(name: string, cpus: readonly number[]): void {
  const mask = new Uint8Array(CPU_MASK_BYTES);
  for (const cpu of cpus) mask[cpu >> 3] = (mask[cpu >> 3] ?? 0) | (1 << (cpu & 7));
  const result = libc.schedSetaffinity(0, mask.length, mask);
  const errno = result < 0 ? errnoName(libc.errno()) : undefined;
  // EINVAL: none of them can be had. Some that cannot are left out without a word.
  if (errno !== undefined && errno !== "EINVAL") {
    const action = `pin ${name} to host CPUs ${cpus.join(", ")}`;
    throw new SyscallError("TSVMM_HOST_CALL", action, "sched_setaffinity", errno);
  }
  const got = new Uint8Array(CPU_MASK_BYTES);
  check(libc.schedGetaffinity(0, got.length, got), `ask where ${name} runs`, "sched_getaffinity", "TSVMM_HOST_CALL");
  const isGot = (cpu: number): boolean => ((got[cpu >> 3] ?? 0) & (1 << (cpu & 7))) !== 0;
  const missing = errno === undefined ? cpus.filter((cpu) => !isGot(cpu)) : cpus;
  if (missing.length === 0) return;
  throw new HostError(
    "TSVMM_HOST_CALL",
    `Cannot pin ${name} to host CPUs ${cpus.join(", ")}: ${missing.join(", ")} cannot be had`,
    "they are offline, not there, or not in this process's cpuset: /sys/devices/system/cpu/online lists the host's",
  );
}
