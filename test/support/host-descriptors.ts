import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import type { Test } from "tap";
import { type Fd, fd } from "../../src/base/units.ts";
import { FCNTL, RESOURCE, RLIMIT, TERMIOS, TERMIOS_STATE } from "../../src/host/constants.ts";
import { libc } from "../../src/host/libc.ts";
import type { HostBench } from "./host-bench.ts";

/** A named pipe with both ends open; closed at the end of the test unless {@link close}d before. */
export class TestPipe {
  readonly path: string;
  readonly reader: Fd;
  readonly writer: Fd;
  readonly #open: Set<Fd> = new Set();

  /** The ends are as a shell gives them: blocking. */
  constructor(t: Test, bench: HostBench, name: string) {
    this.path = bench.path(name);
    execFileSync("mkfifo", [this.path]);
    const both = openSync(this.path, constants.O_RDWR); // so that neither open waits for the other end
    this.reader = fd(openSync(this.path, constants.O_RDONLY));
    this.writer = fd(openSync(this.path, constants.O_WRONLY));
    closeSync(both);
    this.#open.add(this.reader).add(this.writer);
    t.teardown(() => {
      for (const end of this.#open) closeSync(end);
    });
  }

  close(end: Fd): void {
    if (this.#open.delete(end)) closeSync(end);
  }
}

/** A terminal and the side that a person sits at: what is written to `user` is typed, what is read from it is seen. */
export class TestTerminal {
  readonly user: Fd;
  readonly terminal: Fd;

  constructor(t: Test) {
    const { O_RDWR, O_NOCTTY, O_NONBLOCK, O_CLOEXEC } = FCNTL;
    this.user = fd(libc.open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0));
    libc.ioctlStruct(this.user, TERMIOS.TIOCSPTLCK, new Uint8Array(4));
    this.terminal = fd(libc.ioctl(this.user, TERMIOS.TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    t.teardown(() => {
      libc.close(this.terminal);
      libc.close(this.user);
    });
  }

  /** struct termios. */
  get mode(): Uint8Array {
    const state = new Uint8Array(TERMIOS_STATE.size);
    libc.tcgetattr(this.terminal, state);
    return state;
  }
}

/** What can be read now, as latin1; "" when there is nothing. The descriptor may be blocking. */
export function readNow(descriptor: Fd): string {
  let all = "";
  const poll = new DataView(new ArrayBuffer(8));
  poll.setInt32(0, descriptor, true);
  poll.setInt16(4, 1, true); // POLLIN
  const buffer = new Uint8Array(65536);
  while (libc.poll(new Uint8Array(poll.buffer), 1, 0) === 1) {
    const count = libc.read(descriptor, buffer, buffer.length);
    if (count <= 0) return all;
    all += Buffer.from(buffer.subarray(0, count)).toString("latin1");
  }
  return all;
}

/** Writes a short text, which must fit. */
export function type(descriptor: Fd, text: string): void {
  const data = Buffer.from(text, "latin1");
  if (libc.write(descriptor, data, data.length) !== data.length) throw new Error("The text does not fit");
}

/** Does something while this process gets no new descriptor: every call that makes one fails with EMFILE. */
export function withoutDescriptors(work: () => void): void {
  withLimit(RESOURCE.RLIMIT_NOFILE, 0n, work);
}

/** Does something under another limit of this process. setrlimit(2) */
export function withLimit(resource: number, current: bigint, work: () => void): void {
  const before = new Uint8Array(RLIMIT.size);
  libc.getrlimit(resource, before);
  const changed = before.slice();
  new DataView(changed.buffer).setBigUint64(RLIMIT.rlim_cur, current, true);
  libc.setrlimit(resource, changed);
  try {
    work();
  } finally {
    libc.setrlimit(resource, before);
  }
}
