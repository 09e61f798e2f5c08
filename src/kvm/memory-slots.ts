import { HostError } from "../base/errors.ts";
import type { Mapping, SlotMapper } from "../base/mappings.ts";
import { type Gpa, type Hva, hex, hva } from "../base/units.ts";
import type { Vm } from "./vm.ts";

/** What {@link MemorySlots} asks of a machine. */
export type SlotPort = Pick<Vm, "setMemoryRegion">;

/** A slot in use, for `inspect` and logs. */
export interface MemorySlot {
  readonly slot: number;
  readonly name: string;
  readonly address: Gpa;
  readonly sizeBytes: number;
  readonly isReadOnly: boolean;
}

/**
 * KVM's memory slots: RAM and whatever device memory the guest may reach without an exit. Numbers are handed out from 0
 * and reused. Only the device thread may call it: the table of free numbers is here, not in KVM.
 */
export class MemorySlots implements SlotMapper {
  readonly #vm: SlotPort;
  readonly #limit: number;
  readonly #slots = new Map<number, MemorySlot>();

  /** @param limit How many slots KVM has: KVM_CAP_NR_MEMSLOTS. */
  constructor(vm: SlotPort, limit: number) {
    this.#vm = vm;
    this.#limit = limit;
  }

  /** Slots in use, in order of their numbers. */
  get slots(): readonly MemorySlot[] {
    return [...this.#slots.values()].sort((a, b) => a.slot - b.slot);
  }

  /**
   * Implements SlotMapper.
   *
   * @throws HostError when all slots are taken.
   */
  mapSlot(name: string, address: Gpa, host: Hva, sizeBytes: number, isReadOnly: boolean): Mapping {
    const slot = this.#freeSlot();
    if (slot === undefined) {
      throw new HostError(
        "TSVMM_KVM_SLOTS",
        `Cannot map ${name} at ${hex(address)}: all ${this.#limit} memory slots of the host's KVM are taken`,
      );
    }
    this.#vm.setMemoryRegion(slot, address, host, sizeBytes, isReadOnly);
    this.#slots.set(slot, { slot, name, address, sizeBytes, isReadOnly });
    let isMapped = true;
    return {
      unmap: () => {
        if (!isMapped) return;
        isMapped = false;
        this.#vm.setMemoryRegion(slot, address, hva(0), 0, false); // size 0 deletes
        this.#slots.delete(slot);
      },
    };
  }

  #freeSlot(): number | undefined {
    for (let slot = 0; slot < this.#limit; slot++) if (!this.#slots.has(slot)) return slot;
    return undefined;
  }
}
