import type { Width } from "../base/units.ts";
import { TWO_POW_32 } from "../base/units.ts";
import { KVM_EXIT_IO_OUT, RUN } from "./abi-run.ts";

/**
 * The pages a vCPU shares with the thread that runs it, decoded in place: no getter allocates, so that an exit costs
 * nanoseconds.
 *
 * What a getter answers holds until the next KVM_RUN, and only for the exit reason in its name. Data set for a read
 * reaches the guest at the next KVM_RUN. KVM API §5
 */
export class RunPage {
  readonly #view: DataView;

  /** @param memory struct kvm_run and what follows it: the PIO page among others. */
  constructor(memory: ArrayBuffer) {
    this.#view = new DataView(memory);
  }

  /** One of KVM_EXIT. */
  get exitReason(): number {
    return this.#view.getUint32(RUN.exit_reason, true);
  }

  /**
   * Makes the next KVM_RUN come back interrupted, before the guest runs but after a pending read was completed. Any
   * thread may set it.
   */
  set immediateExit(isSet: boolean) {
    this.#view.setUint8(RUN.immediate_exit, isSet ? 1 : 0);
  }

  get immediateExit(): boolean {
    return this.#view.getUint8(RUN.immediate_exit) !== 0;
  }

  get ioPort(): number {
    return this.#view.getUint16(RUN["io.port"], true);
  }

  /** Bytes of one element. Cast: KVM decodes in and out of 1, 2 and 4 bytes; there are no others. */
  get ioWidth(): Width {
    return this.#view.getUint8(RUN["io.size"]) as Width;
  }

  get ioIsWrite(): boolean {
    return this.#view.getUint8(RUN["io.direction"]) === KVM_EXIT_IO_OUT;
  }

  /** Elements: 1, or more for a string instruction, each to the same port. */
  get ioCount(): number {
    return this.#view.getUint32(RUN["io.count"], true);
  }

  /** What the guest writes with element `index`, unsigned. */
  ioData(index: number): number {
    const width = this.ioWidth;
    const offset = this.#ioOffset(index, width);
    if (width === 1) return this.#view.getUint8(offset);
    return width === 2 ? this.#view.getUint16(offset, true) : this.#view.getUint32(offset, true);
  }

  /** Answers element `index` of a guest read; what does not fit the width is cut off. */
  setIoData(index: number, value: number): void {
    const width = this.ioWidth;
    const offset = this.#ioOffset(index, width);
    if (width === 1) this.#view.setUint8(offset, value);
    else if (width === 2) this.#view.setUint16(offset, value, true);
    else this.#view.setUint32(offset, value, true);
  }

  /** Guest-physical; at most 52 bits, so a number is exact. */
  get mmioAddress(): number {
    const low = this.#view.getUint32(RUN["mmio.phys_addr"], true);
    return this.#view.getUint32(RUN["mmio.phys_addr"] + 4, true) * TWO_POW_32 + low;
  }

  /** 1 to 8 bytes. Mostly a power of two; an access across a page boundary comes in two parts of any length. */
  get mmioLength(): number {
    return this.#view.getUint32(RUN["mmio.len"], true);
  }

  get mmioIsWrite(): boolean {
    return this.#view.getUint8(RUN["mmio.is_write"]) !== 0;
  }

  /** The first four bytes of what the guest writes; bytes beyond the length are zero. */
  get mmioDataLow(): number {
    return this.#mmioBytes(0);
  }

  /** Bytes five to eight, likewise. */
  get mmioDataHigh(): number {
    return this.#mmioBytes(4);
  }

  /** Answers a guest read; bytes beyond the length do no harm. */
  setMmioData(low: number, high: number): void {
    this.#view.setUint32(RUN["mmio.data"], low, true);
    this.#view.setUint32(RUN["mmio.data"] + 4, high, true);
  }

  /** `KVM_EXIT_FAIL_ENTRY`: the processor's own reason (a VMX instruction error or an SVM exit code). */
  get failEntryReason(): bigint {
    return this.#view.getBigUint64(RUN["fail_entry.hardware_entry_failure_reason"], true);
  }

  get internalSuberror(): number {
    return this.#view.getUint32(RUN["internal.suberror"], true);
  }

  /** `KVM_EXIT_INTERNAL_ERROR`: words whose meaning depends on the suberror and the kernel. */
  internalData(): bigint[] {
    const count = Math.min(this.#view.getUint32(RUN["internal.ndata"], true), 16);
    return Array.from({ length: count }, (_, index) => this.#view.getBigUint64(RUN["internal.data"] + 8 * index, true));
  }

  /** The union as bytes, for what is decoded only when something went wrong. */
  bytes(offset: number, sizeBytes: number): Uint8Array {
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + offset, sizeBytes).slice();
  }

  /** `KVM_EXIT_SYSTEM_EVENT`: one of KVM_SYSTEM_EVENT. */
  get systemEventType(): number {
    return this.#view.getUint32(RUN["system_event.type"], true);
  }

  /** Within the mapping: `data_offset` is KVM's, and KVM bounds `count` so that the elements fit one page. */
  #ioOffset(index: number, width: Width): number {
    return this.#view.getUint32(RUN["io.data_offset"], true) + index * width;
  }

  #mmioBytes(from: number): number {
    const start = RUN["mmio.data"] + from;
    const length = this.mmioLength - from;
    if (length >= 4) return this.#view.getUint32(start, true);
    let value = 0;
    for (let byte = 0; byte < length; byte++) value |= this.#view.getUint8(start + byte) << (8 * byte);
    return value; // at most three bytes, so never negative
  }
}
