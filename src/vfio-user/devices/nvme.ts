import { RegisterBank, type RegisterHandler } from "../../base/registers.ts";
import { gpaFromHalves, KIB, type Width } from "../../base/units.ts";
import type { PciIdentity } from "../../pci/config-space.ts";
import type { DeviceBar, DeviceHost, DeviceInterrupts, UserPciDevice } from "../server/device.ts";
import * as abi from "./nvme-abi.ts";
import { NvmeAdmin, type NvmeQueues } from "./nvme-admin.ts";
import { NvmeIo } from "./nvme-io.ts";
import { type Completion, CompletionQueue, SubmissionQueue } from "./nvme-queues.ts";
import type { NvmeStore } from "./nvme-store.ts";

/** Names of the controller registers. NVM Express 1.4 §3.1 */
export type NvmeRegister =
  | "capLow"
  | "capHigh"
  | "vs"
  | "intms"
  | "intmc"
  | "cc"
  | "csts"
  | "aqa"
  | `${"asq" | "acq"}${"Low" | "High"}`;

/** Controller registers. NVMe 1.4 §3.1 */
const REGISTERS: RegisterBank<NvmeRegister> = new RegisterBank("nvme", 0x40, [
  [0x00, 4, "capLow", "ro"],
  [0x04, 4, "capHigh", "ro"],
  [0x08, 4, "vs", "ro"],
  [0x0c, 4, "intms", "w1"],
  [0x10, 4, "intmc", "w1"],
  [0x14, 4, "cc", "rw"],
  [0x1c, 4, "csts", "ro"],
  [0x24, 4, "aqa", "rw"],
  [0x28, 4, "asqLow", "rw"],
  [0x2c, 4, "asqHigh", "rw"],
  [0x30, 4, "acqLow", "rw"],
  [0x34, 4, "acqHigh", "rw"],
]);

const MAX_ENTRIES = 1024;
const IO_QUEUES = 16;
/** One a queue. */
const VECTORS: number = IO_QUEUES + 1;
/** MQES; CQR, queues are contiguous; TO, ready within 10 s. */
const CAP_LOW: number = ((20 << 24) | (1 << 16) | (MAX_ENTRIES - 1)) >>> 0;
/** CSS: the NVM command set; DSTRD, MPSMIN and MPSMAX 0: doorbells of 4 bytes, pages of 4 KiB. */
const CAP_HIGH: number = 1 << 5;
const VERSION_1_4 = 0x0001_0400;
const MSIX_TABLE = 0x2000;
const MSIX_PBA = 0x3000;
/**
 * How long commands may take in a turn of the event loop, in milliseconds: others, a signal too, are to have theirs.
 */
const TURN_MS = 20;
const DOORBELLS_END: number = abi.DOORBELLS + 8 * VECTORS;

/**
 * NVMe 1.4 controller with one namespace and the mandatory features only. Commands run at the doorbell write, in
 * submission order, some milliseconds a turn.
 */
export class NvmeDevice implements UserPciDevice, RegisterHandler<NvmeRegister> {
  readonly name = "nvme";
  readonly identity: PciIdentity = {
    ...{ vendorId: 0x1b36, deviceId: 0x0010, revision: 0x02, classCode: 0x010802 },
    ...{ subsystemVendorId: 0x1af4, subsystemId: 0x1100 },
  };
  readonly bars: readonly DeviceBar[] = [
    { request: { kind: "mem64", index: 0, sizeBytes: 16 * KIB, isPrefetchable: false }, registers: this },
  ];
  readonly interrupts: DeviceInterrupts = {
    msix: { vectors: VECTORS, table: { bar: 0, offset: MSIX_TABLE }, pba: { bar: 0, offset: MSIX_PBA } },
  };

  readonly #host: DeviceHost;
  readonly #queues: NvmeQueues = { submission: new Map(), completion: new Map() };
  readonly #admin: NvmeAdmin;
  readonly #io: NvmeIo;
  readonly #values: Map<NvmeRegister, number> = new Map();
  readonly #reported: Set<string> = new Set();
  /** Queues whose commands go on in the next turn of the event loop. */
  readonly #paused: Set<SubmissionQueue> = new Set();
  #turnEnd: number | undefined;
  readonly #now: () => number;

  /**
   * @param serial At most 20 ASCII characters; it names the namespace too.
   * @param now The clock that bounds a turn of the event loop, in milliseconds.
   */
  constructor(host: DeviceHost, store: NvmeStore, serial: string, now: () => number = () => performance.now()) {
    this.#host = host;
    this.#now = now;
    this.#io = new NvmeIo(host.memory, store, host.report, () => this.#admin.isWriteCacheOn);
    this.#admin = new NvmeAdmin({
      memory: host.memory,
      identity: { serial, blocks: store.blocks, ioQueues: IO_QUEUES, isReadOnly: store.isReadOnly },
      queues: this.#queues,
      maxEntries: MAX_ENTRIES,
      vectors: VECTORS,
      counters: () => this.#io.counters,
      flush: () => this.#io.flush(),
      complete: (cid, completion) => this.#completeLater(cid, completion),
    });
  }

  read(offset: number, width: Width): number {
    return offset + width <= REGISTERS.sizeBytes ? REGISTERS.read(this, offset, width) : 0;
  }

  write(offset: number, width: Width, value: number): void {
    if (offset + width <= REGISTERS.sizeBytes) REGISTERS.write(this, offset, width, value);
    else if (offset >= abi.DOORBELLS && offset < DOORBELLS_END && offset % 4 === 0 && width >= 2) {
      const index = (offset - abi.DOORBELLS) / 4;
      if (index % 2 === 0) this.#ringSubmission(index / 2, value & 0xffff);
      else this.#ringCompletion((index - 1) / 2, value & 0xffff);
    }
  }

  readRegister(name: NvmeRegister): number {
    switch (name) {
      case "capLow":
        return CAP_LOW;
      case "capHigh":
        return CAP_HIGH;
      case "vs":
        return VERSION_1_4;
      case "intmc":
        return this.#get("intms");
      default:
        return this.#get(name);
    }
  }

  writeRegister(name: NvmeRegister, value: number): void {
    if (name === "intms") this.#values.set("intms", (this.#get("intms") | value) >>> 0);
    else if (name === "intmc") this.#values.set("intms", (this.#get("intms") & ~value) >>> 0);
    else if (name === "cc") this.#configure(value);
    // While the controller runs its admin queues stay where they are.
    else if ((this.#get("cc") & abi.CC_EN) === 0) this.#values.set(name, value);
  }

  reset(): void {
    this.#disable();
    this.#values.clear();
  }

  #get(name: NvmeRegister): number {
    return this.#values.get(name) ?? 0;
  }

  #configure(value: number): void {
    const wasEnabled = (this.#get("cc") & abi.CC_EN) !== 0;
    const isEnabled = (value & abi.CC_EN) !== 0;
    const isShutdown = (value & abi.CC_SHN) !== 0 && (this.#get("cc") & abi.CC_SHN) === 0;
    this.#values.set("cc", value);
    if (wasEnabled && !isEnabled) this.#disable();
    if (!wasEnabled && isEnabled) this.#values.set("csts", this.#enable(value) ? abi.CSTS_RDY : abi.CSTS_CFS);
    if (isShutdown) this.#shutDown();
  }

  /** @returns False for settings that this controller does not have. */
  #enable(cc: number): boolean {
    const aqa = this.#get("aqa");
    const [submissions, completions] = [(aqa & 0xfff) + 1, ((aqa >>> 16) & 0xfff) + 1];
    const asq = gpaFromHalves(this.#get("asqLow"), this.#get("asqHigh"));
    const acq = gpaFromHalves(this.#get("acqLow"), this.#get("acqHigh"));
    const isSupported = (cc & (abi.CC_CSS | abi.CC_MPS)) === 0;
    // Entry sizes of I/O queues may come later than this; 0 says so.
    const ioSizes = cc & (abi.CC_IOSQES | abi.CC_IOCQES);
    const areSizesRight = ioSizes === 0 || ioSizes === (abi.CC_IOSQES_64 | abi.CC_IOCQES_16);
    if (!isSupported || !areSizesRight || submissions < 2 || completions < 2) return false;
    if (asq === undefined || acq === undefined || asq % abi.NVME_PAGE !== 0 || acq % abi.NVME_PAGE !== 0) return false;
    const queue = new CompletionQueue(0, acq, completions, 0);
    this.#queues.completion.set(0, queue);
    this.#queues.submission.set(0, new SubmissionQueue(0, asq, submissions, queue));
    return true;
  }

  #disable(): void {
    this.#queues.submission.clear();
    this.#queues.completion.clear();
    this.#admin.reset();
    this.#values.set("csts", 0);
  }

  #shutDown(): void {
    this.#io.flush(); // a failure is reported there; the specification knows no answer that says so
    this.#values.set("csts", this.#get("csts") | abi.CSTS_SHST_COMPLETE);
  }

  #ringSubmission(id: number, tail: number): void {
    const queue = this.#queues.submission.get(id);
    if (queue?.moveTail(tail) === true) this.#run(queue);
    else this.#once(`doorbell of submission queue ${id} is rung with ${tail}`);
  }

  #ringCompletion(id: number, head: number): void {
    const queue = this.#queues.completion.get(id);
    if (queue?.moveHead(head) !== true) return this.#once(`doorbell of completion queue ${id} is rung with ${head}`);
    // There is room now for what had to wait.
    for (const waiting of this.#queues.submission.values()) {
      if (waiting.completions === queue && !waiting.isEmpty) this.#run(waiting);
    }
  }

  /** Carries out what is in a queue; what takes longer than a turn goes on in the next one. */
  #run(queue: SubmissionQueue): void {
    if (this.#paused.has(queue)) return;
    if (this.#isTurnOver()) return this.#pause(queue);
    this.#goOn(queue);
  }

  /** At least one command. */
  #goOn(queue: SubmissionQueue): void {
    const { completions } = queue;
    let hasPosted = false;
    while (!queue.isEmpty && !completions.isFull) {
      if ((this.#get("csts") & abi.CSTS_RDY) === 0) return;
      const entry = queue.take(this.#host.memory);
      if (entry === undefined) return this.#fail(`submission queue ${queue.id} is not in memory`);
      const completion = this.#execute(queue, entry);
      if (completion !== undefined) {
        hasPosted = true;
        if (!this.#post(queue, entry.getUint16(abi.SQE.cid, true), completion)) return;
      }
      if (!queue.isEmpty && this.#isTurnOver()) {
        this.#pause(queue);
        break;
      }
    }
    if (hasPosted && completions.vector !== undefined) this.#host.signal(completions.vector);
  }

  /**
   * Whether the commands of this turn of the event loop, of all queues, have taken their time. A paused queue has one
   * more then.
   */
  #isTurnOver(): boolean {
    if (this.#turnEnd === undefined) {
      this.#turnEnd = this.#now() + TURN_MS;
      setImmediate(() => {
        this.#turnEnd = undefined;
      });
    }
    return this.#now() > this.#turnEnd;
  }

  #pause(queue: SubmissionQueue): void {
    this.#paused.add(queue);
    setImmediate(() => {
      this.#paused.delete(queue);
      // It may have been deleted meanwhile, or gone with a reset.
      if (this.#queues.submission.get(queue.id) === queue) this.#goOn(queue);
    });
  }

  #execute(queue: SubmissionQueue, entry: DataView): Completion | undefined {
    if ((entry.getUint8(abi.SQE.flags) & abi.SQE_FUSE_AND_PSDT) !== 0) return { status: abi.STATUS_INVALID_FIELD };
    return queue.id === 0 ? this.#admin.run(entry) : { status: this.#io.run(entry) };
  }

  #post(queue: SubmissionQueue, cid: number, { status, result }: Completion): boolean {
    // Every failure here is for good: the same command would fail again.
    const final = status === abi.STATUS_SUCCESS ? status : status | abi.STATUS_DO_NOT_RETRY;
    const completion: Completion = result === undefined ? { status: final } : { status: final, result };
    const isPosted = queue.completions.post(this.#host.memory, queue, cid, completion);
    if (!isPosted) this.#fail(`completion queue ${queue.completions.id} is not in memory`);
    return isPosted;
  }

  /** One place stays free for the command that is being carried out. */
  #completeLater(cid: number, completion: Completion): boolean {
    const queue = this.#queues.submission.get(0);
    if (queue === undefined || queue.completions.free < 2) return false;
    return this.#post(queue, cid, completion);
  }

  #fail(what: string): void {
    this.#values.set("csts", (this.#get("csts") & ~abi.CSTS_RDY) | abi.CSTS_CFS);
    this.#once(what);
  }

  #once(what: string): void {
    if (this.#reported.has(what) || this.#reported.size >= 16) return;
    this.#reported.add(what);
    this.#host.report("warn", `nvme: ${what}`);
  }
}
