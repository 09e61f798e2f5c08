import type { HostError } from "./errors.ts";
import type { Fd, Gpa, Hva, Iova } from "./units.ts";

/** Undoes one mapping; calling it twice is harmless. */
export interface Mapping {
  unmap(): void;
}

/** Memory of this process, in whole pages. */
export interface HostMemory extends Mapping {
  readonly address: Hva;
  /** Its bytes, until {@link unmap}. */
  view(): ArrayBuffer;
}

/** Puts host memory into the guest-physical space, so that the guest reaches it without an exit (KVM memory slots). */
export interface SlotMapper {
  /**
   * All three are multiples of the page size. The pages must stay mapped in this process until `unmap` has returned.
   *
   * @throws SyscallError when KVM refuses, for example because another slot overlaps: ask the bus first.
   */
  mapSlot(name: string, address: Gpa, host: Hva, sizeBytes: number, isReadOnly: boolean): Mapping;
}

/** I/O virtual addresses that may be mapped; `end` is the last byte. */
export interface IovaRange {
  readonly start: number;
  readonly end: number;
}

/** Lets a device reach host memory by DMA (an IOMMU domain). */
export interface DmaMapper {
  /** @throws SyscallError with advice on the memory lock limit, the IOVA width or whatever else stands in the way. */
  mapDma(name: string, address: Iova, host: Hva, sizeBytes: number): Mapping;
}

/** A range that peers reach, now or soon. */
export interface PeerMapping extends Mapping {
  /** As {@link unmap}, done when it returns, however long it takes. */
  unmapNow(): void;
  /** Nothing of it is left. */
  readonly isGone: boolean;
}

/** Lets the machine's other devices reach a function's BARs by DMA. */
export interface PeerMapper {
  /**
   * Neither this nor `unmap` takes longer than some milliseconds: what is left is done in later turns of the device
   * thread, in order.
   *
   * @param onFailure Called, now or later, when the range cannot be mapped; no part of it stays mapped.
   */
  mapPeer(
    name: string,
    address: Iova,
    host: Hva,
    sizeBytes: number,
    onFailure: (error: HostError) => void,
  ): PeerMapping;
}

/** Tells KVM which VFIO files a machine holds (the KVM VFIO device), so that it treats their DMA coherence right. */
export interface VfioFiles {
  addFile(file: Fd): void;
  removeFile(file: Fd): void;
}
