import { performance } from "node:perf_hooks";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { HostError } from "../../base/errors.ts";
import { ReportLimit } from "../../base/report-limit.ts";
import { allOnes } from "../../base/units.ts";
import { type EntropySource, openEntropySource } from "../../host/entropy/entropy-source.ts";
import { EpollLoop } from "../../host/epoll.ts";
import { EventFd } from "../../host/eventfd.ts";
import { libc } from "../../host/libc.ts";
import { GuestRam } from "../../host/memory/guest-ram.ts";
import { currentThreadId, setThreadName } from "../../host/thread.ts";
import { ACCESS, type AccessHandler, MailboxServer } from "../shared/mailbox.ts";
import {
  announceStage,
  type DeviceWorkerData,
  type FromDeviceThread,
  type LoadingWorker,
  STAGE,
  type ToDeviceThread,
} from "../shared/messages.ts";
import { toPlainError } from "../shared/plain-error.ts";
import type { RequestHandlers } from "../shared/requests.ts";
import type { DeviceStatistics } from "../shared/statistics.ts";
import { announceStep, announceThread } from "../shared/thread-progress.ts";
import { Board } from "./board.ts";
import { CharDevices } from "./char-devices.ts";
import { Turns } from "./deferral.ts";
import { runDeviceLoop } from "./device-loop.ts";
import { Disks } from "./disks.ts";
import type { AnyDeviceKind } from "./kinds/device-kind.ts";
import { DEVICE_KINDS } from "./kinds/list.ts";
import { calibrateWindow, PollWindow } from "./polling.ts";
import { answerRequest } from "./request-server.ts";
import { traceAccesses } from "./trace.ts";
import { Tracer } from "./tracer.ts";

/*
 * Entry file of the device thread. Once it serves, its event loop never turns: everything happens in runDeviceLoop,
 * which waits in epoll. Messages of the control thread come with a ring of the doorbell and are taken off the port by
 * hand; `postMessage` needs no loop.
 *
 * The character devices (terminal, sockets, ptys) and the disks' images live as long as the thread; the board as long
 * as a power cycle.
 */

// Casts: the control thread makes this worker with exactly these data, and a worker has a parent port.
const data = workerData as DeviceWorkerData & LoadingWorker;
const port = parentPort as NonNullable<typeof parentPort>;

announceStage(data, STAGE.loaded);

const post = (message: FromDeviceThread): void => port.postMessage(message);
const limit = new ReportLimit((level, text, details) =>
  post({ kind: "log", level, text, ...(details === undefined ? {} : { details }) }),
);
const { report } = limit;

const tracer = new Tracer((event) => post({ kind: "trace", event }));

setThreadName("devices");
announceThread(data.stage, currentThreadId());
const epoll = new EpollLoop();
const turns = new Turns(epoll);
const doorbell = EventFd.attach(data.doorbell);
const mailboxes = new MailboxServer(data.mailboxes);
let characters: CharDevices | undefined;
let disks: Disks | undefined;
let entropy: EntropySource | undefined;
let board: Board | undefined;
let isDone = false;
/** What all devices together may still wait for other processes once the machine stops, in milliseconds. */
const LAST_WAITS_MS = 1000;
let stopSeenAt: number | undefined;
/** A time of `performance.now()` after which nothing waits for another process. */
const cutOff = (): number => {
  if (Atomics.load(data.stopping, 0) === 0) return Number.POSITIVE_INFINITY;
  stopSeenAt ??= performance.now();
  return stopSeenAt + LAST_WAITS_MS;
};
/** Those of this program, then those that a program has added. */
const kinds: AnyDeviceKind[] = [...DEVICE_KINDS];
/** A board was made before: the next one is for a guest that was reset. */
let isRestart = false;

/** How long the end waits for the worker of a slow random source, which may be in the middle of a read. */
const ENTROPY_CLOSE_MS = 10_000;

const NO_STATISTICS: DeviceStatistics = { accesses: {}, functions: [] };

epoll.watchRings(doorbell.fd, () => {
  for (let envelope = receiveMessageOnPort(port); envelope !== undefined; envelope = receiveMessageOnPort(port)) {
    try {
      // Cast: the control thread sends nothing else.
      take(envelope.message as ToDeviceThread);
    } catch (error) {
      fail(error); // the other messages are taken all the same
    }
  }
  characters?.resumeOutput();
});

function take(message: ToDeviceThread): void {
  switch (message.kind) {
    case "request":
      return post(answerRequest(handlers, message));
    case "stop":
      isDone = true;
      return undefined;
    case "input":
      return characters?.input(message.channel, message.bytes);
    case "powerButton":
      return board?.pressPowerButton();
    case "examine":
      return board?.examine(message.device);
    case "resize":
      return board?.resize(message.columns, message.rows);
    default:
      return message satisfies never;
  }
}

const handlers: RequestHandlers = {
  build: ({ machine, files, ram, layout, storage }) => {
    characters ??= new CharDevices(machine, epoll, report, post, data.outputCredit);
    disks ??= new Disks(machine.disks, storage, epoll, report);
    entropy ??= openEntropySource(machine.rng.source, epoll, report);
    board = new Board({
      machine,
      ...files,
      memory: GuestRam.attach(ram),
      layout,
      watcher: epoll,
      defer: (work) => turns.defer(work),
      characters,
      disks,
      entropy,
      kinds,
      report,
      tracer,
      onGuestEvent: (event) => post({ kind: "guest", event }),
      isRestart,
      cutOff,
      onStep: (text, allowanceSeconds) => {
        announceStep(data.stage, allowanceSeconds);
        post({ kind: "step", text });
      },
    });
    isRestart = true;
    return board.plan;
  },
  begin: () => void characters?.begin(),
  dismantle: () => {
    let last = NO_STATISTICS;
    try {
      last = statistics();
    } catch (error) {
      fail(error); // the devices go all the same
    }
    closeBoard();
    mailboxes.serve(handle); // what a vCPU has given up waiting for is not for the next board
    characters?.flush();
    return last;
  },
  statistics,
  snapshot: () => {
    if (board === undefined) throw new HostError("TSVMM_MACHINE_OFF", "Cannot look into the machine: it is off");
    return board.snapshot();
  },
  trace: (settings) => {
    tracer.set(settings);
    access = settings === undefined ? doAccess : tracedAccess;
    return undefined;
  },
};

function statistics(): DeviceStatistics {
  return board?.statistics() ?? NO_STATISTICS;
}

function closeBoard(): void {
  try {
    board?.close();
  } catch (error) {
    report("error", "a device could not be given back", { error: toPlainError(error).message });
  }
  board = undefined;
}

const doAccess: AccessHandler = (_vcpu, kind, address, width, value) => {
  if (board === undefined) return allOnes(width);
  switch (kind) {
    case ACCESS.portRead:
      return board.ports.read(address, width);
    case ACCESS.portWrite:
      board.ports.write(address, width, value);
      return value;
    case ACCESS.mmioRead:
      return board.mmio.read(address, width);
    case ACCESS.mmioWrite:
      board.mmio.write(address, width, value);
      return value;
    case ACCESS.mmioReadWide: {
      const { low, high } = board.mmio.readWide(address);
      mailboxes.highHalf = high;
      return low;
    }
    case ACCESS.mmioWriteWide:
      board.mmio.writeWide(address, { low: value, high: mailboxes.highHalf });
      return value;
    case ACCESS.memoryFault:
      return board.memoryFault();
    default:
      return kind satisfies never;
  }
};
const tracedAccess = traceAccesses(
  doAccess,
  () => board,
  tracer,
  () => mailboxes.highHalf,
);
let access = doAccess;

/**
 * An unexpected exception in a device answers all ones and stops the machine in order; later accesses go unanswered the
 * same way.
 */
let hasFailed = false;
/** Reported once: the thread keeps serving, so that the vCPUs can be stopped in order. */
function fail(error: unknown): void {
  if (!hasFailed) post({ kind: "failed", error: toPlainError(error) });
  hasFailed = true;
}

const handle: AccessHandler = (vcpu, kind, address, width, value) => {
  if (board === undefined || hasFailed) return allOnes(width);
  try {
    board.catchUp();
    return access(vcpu, kind, address, width, value);
  } catch (error) {
    fail(error);
    return allOnes(width);
  }
};

const now = (): number => performance.now() * 1000;

function pollWindow(): PollWindow {
  const choice = data.pollMicroseconds;
  if (choice === "never") return new PollWindow(0, true);
  if (choice === "auto")
    return new PollWindow(
      calibrateWindow(() => mailboxes.serve(handle), now),
      false,
    );
  return new PollWindow(choice, true);
}

/** Serves until the machine's end. It is synchronous but for the loading of added kinds. */
async function serve(): Promise<void> {
  try {
    // Cast: the control thread names modules with a factory.
    for (const url of data.addedKinds) kinds.push(((await import(url)) as { readonly default: AnyDeviceKind }).default);
  } catch (error) {
    fail(error);
  }
  const window = pollWindow();
  for (;;) {
    try {
      runDeviceLoop({
        mailboxes,
        waiter: turns,
        handle,
        flush: () => {
          if (!hasFailed) board?.flush();
        },
        isDone: () => isDone,
        window,
        yieldProcessor: libc.schedYield,
        now,
      });
      break;
    } catch (error) {
      fail(error); // a callback of epoll or a flush threw
    }
  }

  closeBoard();
  disks?.close();
  characters?.close();
  entropy?.close(ENTROPY_CLOSE_MS);
  limit.settle();
  epoll.close();
  announceStage(data, STAGE.finished);
  port.close();
}

void serve();
