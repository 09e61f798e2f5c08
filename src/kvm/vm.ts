import type { MsiMessage } from "../base/signals.ts";
import { allOrNothing } from "../base/undo-stack.ts";
import { type Fd, fd, type Gpa, type Gsi, type Hva, hex } from "../base/units.ts";
import { type CausesByErrno, check, ERRNO, errnoName, SyscallError } from "../host/errors.ts";
import { libc } from "../host/libc.ts";
import {
  type CapabilityName,
  IOCTL,
  KVM_CAP,
  KVM_IOEVENTFD_FLAG_DEASSIGN,
  KVM_IRQCHIP_PIC_MASTER,
  KVM_IRQCHIP_PIC_SLAVE,
  KVM_IRQFD_FLAG_DEASSIGN,
  KVM_IRQFD_FLAG_RESAMPLE,
  KVM_MEM_READONLY,
  KVM_PIT_SPEAKER_DUMMY,
} from "./abi.ts";
import {
  COALESCED_ZONE,
  CREATE_DEVICE,
  IOEVENTFD,
  IRQ_LEVEL,
  IRQCHIP,
  IRQFD,
  MEMORY_REGION,
  MSI,
  PIT_CONFIG,
  REINJECT_CONTROL,
} from "./abi-structs.ts";

/**
 * Guest-physical addresses that KVM needs for itself on Intel hosts: three pages and one, below 4 GiB, where nothing
 * else is.
 */
export interface VmAddresses {
  readonly tss: Gpa;
  readonly identityMap: Gpa;
}

const SLOT_CAUSES: CausesByErrno = {
  otherwise: "TSVMM_KVM_REFUSED",
  EEXIST: ["TSVMM_KVM_REFUSED", "another slot overlaps it"],
};

const DOORBELL_CAUSES: CausesByErrno = {
  otherwise: "TSVMM_KVM_REFUSED",
  EEXIST: ["TSVMM_KVM_REFUSED", "another doorbell is there"],
  ENOSPC: ["TSVMM_KVM_REFUSED", "the host allows 1000 a machine"],
};

/** First vector of each PIC as a BIOS leaves it. */
const BIOS_VECTORS: readonly (readonly [chip: number, vector: number])[] = [
  [KVM_IRQCHIP_PIC_MASTER, 0x08],
  [KVM_IRQCHIP_PIC_SLAVE, 0x70],
];

/**
 * A struct for one kind of ioctl, made once: the calls below happen often enough for an allocation each to be waste.
 */
function structOf(sizeBytes: number): { readonly bytes: Uint8Array; readonly view: DataView } {
  const bytes = new Uint8Array(sizeBytes);
  return { bytes, view: new DataView(bytes.buffer) };
}

/**
 * A virtual machine: its memory slots, interrupt controllers and vCPUs, all by one descriptor. Each thread wraps the
 * descriptor for itself; KVM does the locking. Every method throws SyscallError when KVM refuses.
 */
export class Vm implements Disposable {
  readonly fd: Fd;
  readonly #memoryRegion = structOf(MEMORY_REGION.size);
  readonly #irqfd = structOf(IRQFD.size);
  readonly #irqLevel = structOf(IRQ_LEVEL.size);
  readonly #ioeventfd = structOf(IOEVENTFD.size);
  readonly #msi = structOf(MSI.size);

  /** Wraps a descriptor that {@link create} made, perhaps on another thread. */
  constructor(file: Fd) {
    this.fd = file;
  }

  /**
   * Makes a machine with PIC, I/O APIC, local APICs and PIT in the kernel, and no memory.
   *
   * @param kvm /dev/kvm, from KvmSystem.
   */
  static create(kvm: Fd, addresses: VmAddresses): Vm {
    return allOrNothing((undo) => {
      const vm = undo.own(new Vm(fd(createVm(kvm))));
      vm.#setUp(addresses);
      return vm;
    });
  }

  #setUp({ tss, identityMap }: VmAddresses): void {
    check(
      libc.ioctl(this.fd, IOCTL.KVM_SET_TSS_ADDR, tss),
      "set KVM's TSS address",
      "KVM_SET_TSS_ADDR",
      "TSVMM_KVM_REFUSED",
    );
    const address = structOf(8);
    address.view.setBigUint64(0, BigInt(identityMap), true);
    check(
      libc.ioctlStruct(this.fd, IOCTL.KVM_SET_IDENTITY_MAP_ADDR, address.bytes),
      "set KVM's identity map address",
      "KVM_SET_IDENTITY_MAP_ADDR",
      "TSVMM_KVM_REFUSED",
    );
    // Before the first vCPU: its local APIC is made with it.
    check(
      libc.ioctl(this.fd, IOCTL.KVM_CREATE_IRQCHIP, 0),
      "make the interrupt controllers",
      "KVM_CREATE_IRQCHIP",
      "TSVMM_KVM_REFUSED",
    );
    for (const [chip, vector] of BIOS_VECTORS) this.#setPicVector(chip, vector);
    const pit = structOf(PIT_CONFIG.size);
    pit.view.setUint32(PIT_CONFIG.flags, KVM_PIT_SPEAKER_DUMMY, true);
    check(
      libc.ioctlStruct(this.fd, IOCTL.KVM_CREATE_PIT2, pit.bytes),
      "make the interval timer",
      "KVM_CREATE_PIT2",
      "TSVMM_KVM_REFUSED",
    );
    // KVM's default timer repeats the ticks that a guest missed. That inhibits AVIC for the machine's life, and with it
    // posted interrupts of the IOMMU (APICV_INHIBIT_REASON_PIT_REINJ).
    const reinject = structOf(REINJECT_CONTROL.size);
    reinject.view.setUint8(REINJECT_CONTROL.pit_reinject, 0);
    check(
      libc.ioctlStruct(this.fd, IOCTL.KVM_REINJECT_CONTROL, reinject.bytes),
      "keep the interval timer from repeating ticks",
      "KVM_REINJECT_CONTROL",
      "TSVMM_KVM_REFUSED",
    );
  }

  /**
   * Does a BIOS's part, for kernels that use a PIC without programming it: KVM's have vector 0 and no pin masked.
   * Multiboot 0.6.96 §3.2
   */
  #setPicVector(chip: number, vector: number): void {
    const { bytes, view } = structOf(IRQCHIP.size);
    view.setUint32(IRQCHIP.chip_id, chip, true);
    const action = `program PIC ${chip}`;
    check(libc.ioctlStruct(this.fd, IOCTL.KVM_GET_IRQCHIP, bytes), action, "KVM_GET_IRQCHIP", "TSVMM_KVM_REFUSED");
    view.setUint8(IRQCHIP["chip.pic.irq_base"], vector);
    check(libc.ioctlStruct(this.fd, IOCTL.KVM_SET_IRQCHIP, bytes), action, "KVM_SET_IRQCHIP", "TSVMM_KVM_REFUSED");
  }

  /** 0 when the capability is missing, else 1 or its own figure. */
  checkExtension(name: CapabilityName): number {
    return check(
      libc.ioctl(this.fd, IOCTL.KVM_CHECK_EXTENSION, KVM_CAP[name]),
      `ask for ${name}`,
      "KVM_CHECK_EXTENSION",
      "TSVMM_KVM_REFUSED",
    );
  }

  /**
   * Makes a vCPU; the caller owns the descriptor. Number 0 is the boot processor, the others wait for INIT and SIPI.
   *
   * @param id Its APIC id too.
   */
  createVcpu(id: number): Fd {
    const causes: CausesByErrno = {
      otherwise: "TSVMM_KVM_REFUSED",
      EINVAL: ["TSVMM_TOO_MANY_CPUS", "the host allows fewer vCPUs"],
      EEXIST: ["TSVMM_KVM_REFUSED", "the number is taken"],
    };
    return fd(check(libc.ioctl(this.fd, IOCTL.KVM_CREATE_VCPU, id), `make vCPU ${id}`, "KVM_CREATE_VCPU", causes));
  }

  /** Sets a memory slot; a size of 0 deletes it. KVM API §4.35 */
  setMemoryRegion(slot: number, address: Gpa, host: Hva, sizeBytes: number, isReadOnly: boolean): void {
    const { bytes, view } = this.#memoryRegion;
    view.setUint32(MEMORY_REGION.slot, slot, true);
    view.setUint32(MEMORY_REGION.flags, isReadOnly ? KVM_MEM_READONLY : 0, true);
    view.setBigUint64(MEMORY_REGION.guest_phys_addr, BigInt(address), true);
    view.setBigUint64(MEMORY_REGION.memory_size, BigInt(sizeBytes), true);
    view.setBigUint64(MEMORY_REGION.userspace_addr, BigInt(host), true);
    const action = `${sizeBytes === 0 ? "delete" : "set"} memory slot ${slot} at ${hex(address)}+${hex(sizeBytes)}`;
    const result = libc.ioctlStruct(this.fd, IOCTL.KVM_SET_USER_MEMORY_REGION, bytes);
    check(result, action, "KVM_SET_USER_MEMORY_REGION", SLOT_CAUSES);
  }

  /** Makes KVM put port writes into the ring of {@link CoalescedWrites} instead of exiting. KVM API §4.116 */
  coalescePortWrites(port: number, sizeBytes: number): void {
    const { bytes, view } = structOf(COALESCED_ZONE.size);
    view.setBigUint64(COALESCED_ZONE.addr, BigInt(port), true);
    view.setUint32(COALESCED_ZONE.zone_size, sizeBytes, true);
    view.setUint32(COALESCED_ZONE.pio, 1, true);
    check(
      libc.ioctlStruct(this.fd, IOCTL.KVM_REGISTER_COALESCED_MMIO, bytes),
      `coalesce writes to port ${hex(port)}`,
      "KVM_REGISTER_COALESCED_MMIO",
      "TSVMM_KVM_REFUSED",
    );
  }

  /** Replaces the whole interrupt routing table: a struct kvm_irq_routing with its entries. KVM API §4.52 */
  setGsiRouting(table: Uint8Array): void {
    check(
      libc.ioctlStruct(this.fd, IOCTL.KVM_SET_GSI_ROUTING, table),
      "set the interrupt routes",
      "KVM_SET_GSI_ROUTING",
      "TSVMM_KVM_REFUSED",
    );
  }

  /**
   * Makes an eventfd raise an interrupt. With `resample`, the pin stays high until the guest has handled it; KVM then
   * lowers it and signals `resample`. A signal that is already in the eventfd is raised at once. KVM API §4.75
   */
  assignIrqfd(trigger: Fd, gsi: Gsi, resample?: Fd): void {
    this.#setIrqfd(trigger, gsi, resample === undefined ? 0 : KVM_IRQFD_FLAG_RESAMPLE, resample ?? 0, "connect");
  }

  /**
   * Undoes {@link assignIrqfd}. When it returns, every signal given before is raised, and the eventfd is empty of them.
   */
  deassignIrqfd(trigger: Fd, gsi: Gsi): void {
    this.#setIrqfd(trigger, gsi, KVM_IRQFD_FLAG_DEASSIGN, 0, "disconnect");
  }

  #setIrqfd(trigger: Fd, gsi: Gsi, flags: number, resample: number, verb: string): void {
    const { bytes, view } = this.#irqfd;
    view.setUint32(IRQFD.fd, trigger, true);
    view.setUint32(IRQFD.gsi, gsi, true);
    view.setUint32(IRQFD.flags, flags, true);
    view.setUint32(IRQFD.resamplefd, resample, true);
    check(
      libc.ioctlStruct(this.fd, IOCTL.KVM_IRQFD, bytes),
      `${verb} an eventfd and GSI ${gsi}`,
      "KVM_IRQFD",
      "TSVMM_KVM_REFUSED",
    );
  }

  /**
   * Makes guest writes of `width` bytes (0 for any) to an MMIO address signal an eventfd, without an exit. KVM API
   * §4.59
   */
  assignIoeventfd(file: Fd, address: Gpa, width: number): void {
    this.#setIoeventfd(file, address, width, 0, "register");
  }

  deassignIoeventfd(file: Fd, address: Gpa, width: number): void {
    this.#setIoeventfd(file, address, width, KVM_IOEVENTFD_FLAG_DEASSIGN, "unregister");
  }

  #setIoeventfd(file: Fd, address: Gpa, width: number, flags: number, verb: string): void {
    const { bytes, view } = this.#ioeventfd;
    view.setBigUint64(IOEVENTFD.addr, BigInt(address), true);
    view.setUint32(IOEVENTFD.len, width, true);
    view.setUint32(IOEVENTFD.fd, file, true);
    view.setUint32(IOEVENTFD.flags, flags, true);
    const action = `${verb} a doorbell at ${hex(address)}`;
    check(libc.ioctlStruct(this.fd, IOCTL.KVM_IOEVENTFD, bytes), action, "KVM_IOEVENTFD", DOORBELL_CAUSES);
  }

  /**
   * Sets a pin's level for everything that has no eventfd; all its callers together are one wire, so see IrqLines. KVM
   * API §4.25
   */
  setIrqLine(gsi: Gsi, isHigh: boolean): void {
    const { bytes, view } = this.#irqLevel;
    view.setUint32(IRQ_LEVEL.irq, gsi, true);
    view.setUint32(IRQ_LEVEL.level, isHigh ? 1 : 0, true);
    check(
      libc.ioctlStruct(this.fd, IOCTL.KVM_IRQ_LINE, bytes),
      `set the level of GSI ${gsi}`,
      "KVM_IRQ_LINE",
      "TSVMM_KVM_REFUSED",
    );
  }

  /**
   * Delivers one message without a route. KVM API §4.70
   *
   * @returns False when the guest blocked it, for instance because no local APIC listens to that destination.
   */
  signalMsi(message: MsiMessage): boolean {
    const { bytes, view } = this.#msi;
    view.setUint32(MSI.address_lo, message.addressLow, true);
    view.setUint32(MSI.address_hi, message.addressHigh, true);
    view.setUint32(MSI.data, message.data, true);
    const result = libc.ioctlStruct(this.fd, IOCTL.KVM_SIGNAL_MSI, bytes);
    // KVM answers -1 for "no APIC took it", which errno shows as EPERM. The guest chooses the message, so that is no
    // error of ours.
    if (result < 0 && libc.errno() === ERRNO.EPERM) return false;
    return check(result, "deliver a message-signalled interrupt", "KVM_SIGNAL_MSI", "TSVMM_KVM_REFUSED") > 0;
  }

  /** Makes an in-kernel device; the caller owns the descriptor. KVM API §4.79 */
  createDevice(type: number, name: string): Fd {
    const { bytes, view } = structOf(CREATE_DEVICE.size);
    view.setUint32(CREATE_DEVICE.type, type, true);
    check(libc.ioctlStruct(this.fd, IOCTL.KVM_CREATE_DEVICE, bytes), `make KVM's ${name} device`, "KVM_CREATE_DEVICE", {
      otherwise: "TSVMM_KVM_REFUSED",
      ENODEV: ["TSVMM_KVM_TOO_OLD", "the host kernel was built without it"],
    });
    return fd(view.getUint32(CREATE_DEVICE.fd, true));
  }

  /** Gives this descriptor back; the machine ends when its vCPUs' and devices' are closed too. */
  close(): void {
    libc.close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** KVM_CREATE_VM, again when a signal came in between: registering with the memory manager can be interrupted. */
function createVm(kvm: Fd): number {
  const causes: CausesByErrno = {
    otherwise: "TSVMM_KVM_REFUSED",
    EBUSY: "TSVMM_KVM_BUSY",
    ENOMEM: ["TSVMM_NO_MEMORY", "the host has too little memory"],
  };
  for (;;) {
    const result = libc.ioctl(kvm, IOCTL.KVM_CREATE_VM, 0);
    if (result >= 0) return result;
    const errno = libc.errno();
    if (errno === ERRNO.EINTR) continue;
    throw new SyscallError(causes, "make a virtual machine", "KVM_CREATE_VM", errnoName(errno));
  }
}
