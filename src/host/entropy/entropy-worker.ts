import { workerData } from "node:worker_threads";
import { type Fd, fd } from "../../base/units.ts";
import { POLL, POLLFD } from "../constants.ts";
import { ERRNO } from "../errors.ts";
import { EventFd } from "../eventfd.ts";
import { libc } from "../libc.ts";
import { setThreadName } from "../thread.ts";
import { ENTROPY_BUFFER_BYTES, EntropyBuffer, type EntropyBufferMemory } from "./entropy-buffer.ts";

/** What an entropy worker starts with. */
export interface EntropyWorkerData {
  readonly memory: EntropyBufferMemory;
  /** A nonblocking descriptor. */
  readonly source: number;
  /** Eventfds: the device thread wakes the worker; the worker tells that a piece, or the end, is there. */
  readonly wake: number;
  readonly ready: number;
}

/** A device without poll that has no bytes now is asked again after so many milliseconds. */
const RETRY_MS = 20;

/** Reads pieces when they are wanted, until the source ends or the device thread says stop. */
function serve(data: EntropyWorkerData): void {
  setThreadName("tsvmm-entropy");
  const buffer = new EntropyBuffer(data.memory);
  buffer.begin();
  const wake = EventFd.attach(fd(data.wake));
  const ready = EventFd.attach(fd(data.ready));
  // A buffer of its own: small typed arrays without one can be moved by V8, and the kernel writes to an address.
  const bytes = new Uint8Array(new ArrayBuffer(ENTROPY_BUFFER_BYTES));
  let isEmpty = false;
  while (!buffer.isStopped && buffer.endErrno === undefined) {
    const wanted = buffer.wanted;
    const events = pollBoth(fd(wanted > 0 && !isEmpty ? data.source : -1), wake.fd, isEmpty ? RETRY_MS : -1);
    wake.drain();
    isEmpty = false;
    if (events === 0 || wanted === 0) continue;
    const count = (events & POLL.POLLIN) === 0 ? 0 : libc.read(fd(data.source), bytes, wanted);
    const errno = count < 0 ? libc.errno() : 0;
    isEmpty = errno === ERRNO.EAGAIN;
    if (isEmpty || errno === ERRNO.EINTR) continue;
    if (count > 0) buffer.fill(bytes.subarray(0, count));
    else buffer.end(errno);
    ready.signal();
  }
  buffer.finish(); // the other side may close the descriptors now
}

/** Sleeps until one of two descriptors is readable; -1 is never. @returns What poll says of the first. poll(2) */
function pollBoth(source: Fd, wake: Fd, timeoutMs: number): number {
  const request = new DataView(new ArrayBuffer(2 * POLLFD.size));
  for (const [index, descriptor] of [source, wake].entries()) {
    request.setInt32(index * POLLFD.size + POLLFD.fd, descriptor, true);
    request.setInt16(index * POLLFD.size + POLLFD.events, POLL.POLLIN, true);
  }
  libc.poll(new Uint8Array(request.buffer), 2, timeoutMs);
  return request.getInt16(POLLFD.revents, true);
}

serve(workerData as EntropyWorkerData); // SlowSource is the only one who starts this file
