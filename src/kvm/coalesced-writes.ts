import { type Fd, PAGE_SIZE, type Width } from "../base/units.ts";
import { HostMapping } from "../host/memory/mapping.ts";
import { KVM_COALESCED_MMIO_PAGE_OFFSET } from "./abi.ts";
import { COALESCED_RING, COALESCED_WRITE } from "./abi-structs.ts";
import type { Vm } from "./vm.ts";

/** What {@link CoalescedWrites} needs of a VM. */
export type CoalescingVm = Pick<Vm, "coalescePortWrites">;

/** The part of {@link CoalescedWrites} that the board uses. */
export type CoalescedRing = Pick<CoalescedWrites, "coalesce" | "drain" | "close">;

/** Entries of the ring. One stays free: with a full ring KVM exits for the write. */
const CAPACITY: number = Math.floor((PAGE_SIZE - COALESCED_RING.size) / COALESCED_WRITE.size);

/**
 * Coalesced PIO: KVM puts writes to the chosen ports into a ring instead of exiting. KVM API §4.116
 *
 * It suits registers that only select what the next access is about. The device thread drains the ring before each
 * access of the guest, in the ring's order. KVM gives no other sign of a coalesced write. So a register whose write
 * has an effect by itself must not be coalesced. Device thread only.
 */
export class CoalescedWrites implements Disposable {
  readonly #vm: CoalescingVm;
  readonly #mapping: HostMapping;
  readonly #ring: DataView;
  readonly #counters: Uint32Array; // first, last

  /**
   * @param vcpu Any vCPU of the VM: the ring is mapped through its descriptor.
   * @throws SyscallError
   */
  constructor(vm: CoalescingVm, vcpu: Fd) {
    this.#vm = vm;
    this.#mapping = HostMapping.ofFile(
      "ring of coalesced writes",
      vcpu,
      KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE,
      PAGE_SIZE,
    );
    const page = this.#mapping.view(0, PAGE_SIZE);
    this.#ring = new DataView(page);
    this.#counters = new Uint32Array(page, COALESCED_RING.first, 2);
  }

  /** Coalesces writes that lie completely inside `sizeBytes` ports from `port` on. @throws SyscallError */
  coalesce(port: number, sizeBytes: number): void {
    this.#vm.coalescePortWrites(port, sizeBytes);
  }

  /**
   * Passes on the writes in the ring, oldest first. An empty ring costs two loads. Writes that other vCPUs add
   * meanwhile wait for the next call: they may come as fast as this loop reads.
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

  /** Unmaps the ring. The mapping references the VM, so this comes before the VM's end. */
  close(): void {
    this.#mapping.unmap();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
