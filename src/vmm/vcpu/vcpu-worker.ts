import { parentPort, workerData } from "node:worker_threads";
import { HostError } from "../../base/errors.ts";
import type { Width } from "../../base/units.ts";
import { EventFd } from "../../host/eventfd.ts";
import { blockKickSignal, currentThreadId, drainKickSignals, pinThread, setThreadName } from "../../host/thread.ts";
import { KVM_EXIT } from "../../kvm/abi-run.ts";
import { describeExit } from "../../kvm/exit.ts";
import type { RunPage } from "../../kvm/run-page.ts";
import { Vcpu } from "../../kvm/vcpu.ts";
import { ACCESS, MailboxClient } from "../shared/mailbox.ts";
import {
  announceStage,
  type FromVcpu,
  type LoadingWorker,
  STAGE,
  type ToVcpu,
  type VcpuStop,
  type VcpuWorkerData,
} from "../shared/messages.ts";
import { toPlainError } from "../shared/plain-error.ts";
import {
  COUNT_HALT,
  COUNT_INTERRUPTED,
  COUNT_MMIO_READ,
  COUNT_MMIO_WRITE,
  COUNT_OTHER,
  COUNT_PORT_READ,
  COUNT_PORT_WRITE,
  VcpuControl,
} from "../shared/vcpu-control.ts";

/*
 * Entry file of a vCPU thread. Between power cycles it waits for messages on its event loop. Within one it is in
 * `runLoop`. That returns only when the machine stops, the guest triple-faults or KVM fails.
 */

// Casts: the control thread makes this worker with exactly these data, and a worker has a parent port.
const data = workerData as VcpuWorkerData & LoadingWorker;
const port = parentPort as NonNullable<typeof parentPort>;

announceStage(data, STAGE.loaded);

const post = (message: FromVcpu): void => port.postMessage(message);
const log = (level: "debug" | "warn", text: string, details: Readonly<Record<string, unknown>>): void =>
  post({ kind: "log", level, text, details: { vcpu: data.index, ...details } });

const control = new VcpuControl(data.controls, data.index);
const doorbell = EventFd.attach(data.doorbell);
const mailbox = new MailboxClient(
  data.mailboxes,
  data.index,
  data.spins,
  () => doorbell.signal(),
  () => control.isStopping,
  (kind, address, width, seconds) =>
    log("warn", "an access is not answered yet", { kind, address: `0x${address.toString(16)}`, width, seconds }),
);

setThreadName(`vcpu${data.index}`);
const maskInGuest = blockKickSignal();
// Only now may anybody kick this thread: an unblocked real-time signal would end the process.
control.publishTid(currentThreadId());

port.on("message", (message: ToVcpu) => {
  if (message.kind === "stop") {
    port.close(); // nothing else keeps the thread alive
    return;
  }
  let reason: VcpuStop;
  let vcpu: Vcpu | undefined;
  try {
    if (message.hostCpus !== undefined) pinThread(`vCPU ${data.index}`, message.hostCpus);
    vcpu = Vcpu.open(data.index, message.vcpuFd, message.mmapSize);
    vcpu.setUp(message.cpuid);
    vcpu.setSignalMask(maskInGuest);
    if (message.start !== undefined) vcpu.applyStart(message.start);
    reason = runLoop(vcpu);
  } catch (error) {
    reason = { kind: "failed", error: toPlainError(error) };
  } finally {
    vcpu?.close();
  }
  drainKickSignals();
  post({ kind: "stopped", reason });
});

function runLoop(vcpu: Vcpu): VcpuStop {
  let withdrawals = 0; // of device memory, as this thread knows them
  for (;;) {
    if (control.isStopping) {
      log("debug", "stopped here", { registers: vcpu.describeRegisters() });
      return { kind: "asked" };
    }
    const outcome = vcpu.run();
    if (outcome === "fault") {
      control.count(COUNT_OTHER);
      const now = mailbox.access(ACCESS.memoryFault, 0, 4, 0);
      if (now === withdrawals && !control.isStopping) throw vcpu.memoryFault();
      withdrawals = now;
      continue;
    }
    if (outcome === "interrupted") {
      // Interrupted. The kick was either for a stop, seen above, or late: pending ones would end the next KVM_RUN at
      // once.
      control.count(COUNT_INTERRUPTED);
      drainKickSignals();
      continue;
    }
    switch (vcpu.exitReason) {
      case KVM_EXIT.IO:
        portAccess(vcpu);
        break;
      case KVM_EXIT.MMIO:
        mmioAccess(vcpu);
        break;
      case KVM_EXIT.HLT: // never with the in-kernel local APIC
        control.count(COUNT_HALT);
        break;
      case KVM_EXIT.SHUTDOWN:
        control.count(COUNT_OTHER);
        return { kind: "tripleFault" };
      default: {
        control.count(COUNT_OTHER);
        const error = new HostError(
          "TSVMM_VCPU_FAILED",
          `Cannot go on with vCPU ${data.index}: ${describeExit(vcpu)}`,
          undefined,
          vcpu.describeRegisters(),
        );
        return { kind: "failed", error: toPlainError(error) };
      }
    }
  }
}

function portAccess(page: RunPage): void {
  const port = page.ioPort;
  const width = page.ioWidth;
  const count = page.ioCount;
  if (page.ioIsWrite) {
    control.count(COUNT_PORT_WRITE);
    for (let i = 0; i < count; i++) mailbox.access(ACCESS.portWrite, port, width, page.ioData(i));
  } else {
    control.count(COUNT_PORT_READ);
    for (let i = 0; i < count; i++) page.setIoData(i, mailbox.access(ACCESS.portRead, port, width, 0));
  }
}

/** Odd lengths go byte by byte. */
function mmioAccess(page: RunPage): void {
  const address = page.mmioAddress;
  const length = page.mmioLength;
  const low = page.mmioDataLow;
  const high = page.mmioDataHigh;
  if (page.mmioIsWrite) {
    control.count(COUNT_MMIO_WRITE);
    if (length === 1 || length === 2 || length === 4) mailbox.access(ACCESS.mmioWrite, address, length, low);
    else if (length === 8) mailbox.writeWide(address, { low, high });
    else {
      for (let i = 0; i < length; i++) {
        mailbox.access(ACCESS.mmioWrite, address + i, 1, ((i < 4 ? low : high) >>> (8 * (i % 4))) & 0xff);
      }
    }
    return;
  }
  control.count(COUNT_MMIO_READ);
  if (length === 1 || length === 2 || length === 4) {
    page.setMmioData(mailbox.access(ACCESS.mmioRead, address, length, 0), 0);
  } else if (length === 8) {
    const value = mailbox.readWide(address);
    page.setMmioData(value.low, value.high);
  } else {
    const halves: [number, number] = [0, 0];
    for (let i = 0; i < length; i++) {
      const byte: number = mailbox.access(ACCESS.mmioRead, address + i, 1 satisfies Width, 0);
      halves[i < 4 ? 0 : 1] += byte * 2 ** (8 * (i % 4));
    }
    page.setMmioData(halves[0], halves[1]);
  }
}
