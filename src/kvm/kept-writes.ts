import { type Fd, PAGE_SIZE, type Width } from "../base/units.ts";
import { HostMapping } from "../host/memory/mapping.ts";
import { KVM_COALESCED_MMIO_PAGE_OFFSET } from "./abi.ts";
import { COALESCED_RING, COALESCED_WRITE } from "./abi-structs.ts";
import type { Vm } from "./vm.ts";

/** What {@link KeptWrites} asks of a machine. */
export type KeptWritePort = Pick<Vm, "keepPortWrites">;

/** What devices' side sees of them. */
export type PostponedWrites = Pick<KeptWrites, "keep" | "drain" | "close">;

/** Writes the ring holds, less one: a full one exits at once. */
const CAPACITY: number = Math.floor((PAGE_SIZE - COALESCED_RING.size) / COALESCED_WRITE.size);

/**
 * Port writes that KVM keeps in a ring instead of exiting, for registers that only choose what a later access is about.
 * Every access of the guest does these first: they came before it, in this order. KVM API §4.116
 *
 * There is no other sign of a kept write: a register whose write does something by itself must not be among them.
 * Device thread only.
 */
export class KeptWrites implements Disposable {
  readonly #vm: KeptWritePort;
  readonly #mapping: HostMapping;
  readonly #ring: DataView;
  readonly #counters: Uint32Array; // first, last

  /**
   * @param vcpu Any of the machine's: its descriptor leads to the ring.
   * @throws SyscallError
   */
  constructor(vm: KeptWritePort, vcpu: Fd) {
    this.#vm = vm;
    this.#mapping = HostMapping.ofFile(
      "ring of kept writes",
      vcpu,
      KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE,
      PAGE_SIZE,
    );
    const page = this.#mapping.view(0, PAGE_SIZE);
    this.#ring = new DataView(page);
    this.#counters = new Uint32Array(page, COALESCED_RING.first, 2);
  }

  /** Keeps writes that lie whole inside `sizeBytes` ports from `port` on. @throws SyscallError */
  keep(port: number, sizeBytes: number): void {
    this.#vm.keepPortWrites(port, sizeBytes);
  }

  /**
   * Hands over what was kept until now, oldest first; nothing to do costs two loads. What other vCPUs write meanwhile
   * waits: together they may be as fast as this.
   */
  drain(write: (port: number, width: Width, value: number) => void): void {
    const last = Atomics.load(this.#counters, 1);
    for (let first = Atomics.load(this.#counters, 0); first !== last; first = (first + 1) % CAPACITY) {
      const at = COALESCED_RING.coalesced_mmio + (first % CAPACITY) * COALESCED_WRITE.size;
      const port = this.#ring.getUint32(at + COALESCED_WRITE.phys_addr, true);
      // Cast: KVM decodes port accesses of 1, 2 and 4 bytes; there are no others.
      const width = this.#ring.getUint32(at + COALESCED_WRITE.len, true) as Width;
      const data = at + COALESCED_WRITE.data;
      const value =
        width === 4
          ? this.#ring.getUint32(data, true)
          : width === 2
            ? this.#ring.getUint16(data, true)
            : this.#ring.getUint8(data);
      // Only now may KVM write there again.
      Atomics.store(this.#counters, 0, (first + 1) % CAPACITY);
      write(port, width, value);
    }
  }

  /** The mapping holds the machine: to be called before it is closed. */
  close(): void {
    this.#mapping.unmap();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
