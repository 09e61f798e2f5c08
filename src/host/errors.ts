import { type Cause, causeForAnyCall, codeAndAdvice, HostError } from "../base/errors.ts";
import { type Libc, libc } from "./libc.ts";

/** Linux errno values this program meets, x86-64. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOLCK: 37,
  ENOSYS: 38,
  ELOOP: 40,
  EOVERFLOW: 75,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ECONNRESET: 104,
  ENOBUFS: 105,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EDQUOT: 122,
} as const;

export type ErrnoName = keyof typeof ERRNO;

/** The errno's C name, or `errno 123` for one that is not in the table. */
export function errnoName(errno: number): string {
  for (const [name, value] of Object.entries(ERRNO)) if (value === errno) return name;
  return `errno ${errno}`;
}

/** What the errnos of a call mean: `otherwise` for those that are not named. */
export type CausesByErrno = { readonly otherwise: Cause } & { readonly [errno in ErrnoName]?: Cause };

/** One cause, whatever the errno, or one by errno. EMFILE and ENFILE mean the same for any call. */
export type Causes = Cause | CausesByErrno;

function causeOf(causes: Causes, errno: string): Cause {
  if (isPair(causes)) return causes; // the caller's own advice goes first
  const general = causeForAnyCall(errno);
  if (typeof causes === "string") return general ?? causes;
  // Cast: a name that is not in the table is no key of the causes.
  return causes[errno as ErrnoName] ?? general ?? causes.otherwise;
}

const isPair = (causes: Causes): causes is Exclude<Cause, string> => Array.isArray(causes);

/** A system call failed: what we were doing, the call, the errno's name, and what the user can do about it. */
export class SyscallError extends HostError {
  override readonly name = "SyscallError";
  readonly action: string;
  readonly call: string;
  readonly errno: string;

  /**
   * `new SyscallError("TSVMM_KVM_DENIED", "open /dev/kvm", "open", "EACCES")` reads
   * `Cannot open /dev/kvm: open failed with EACCES (add …)`.
   */
  constructor(causes: Causes, action: string, call: string, errno: string, details?: string) {
    const [code, advice] = codeAndAdvice(causeOf(causes, errno));
    super(code, `Cannot ${action}: ${call} failed with ${errno}`, advice, details);
    this.action = action;
    this.call = call;
    this.errno = errno;
  }
}

/**
 * Passes a call's result on, or throws what errno says.
 *
 * @param result What the call returned; negative means failure. It must be the last libc call of this thread.
 * @param calls Whose call it was: VFIO is handed the C library, so that tests can play the kernel.
 * @throws SyscallError
 */
export function check(
  result: number,
  action: string,
  call: string,
  causes: Causes,
  calls: Pick<Libc, "errno"> = libc,
): number {
  if (result >= 0) return result;
  throw new SyscallError(causes, action, call, errnoName(calls.errno()));
}
