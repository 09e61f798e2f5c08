/*
 * Numbers of the KVM API that this program uses, from <linux/kvm.h> and <asm/kvm.h>, x86-64. test/abi/kvm.test.ts asks
 * a C compiler for every one of them. Struct layouts are in abi-structs.ts, struct kvm_run in abi-run.ts.
 */

/** What KVM_GET_API_VERSION must answer; it has since Linux 2.6.22. */
export const KVM_API_VERSION = 12;

/**
 * Requests. Those with bit 31 set are passed unsigned; the struct's size is part of the number, so a wrong size is
 * ENOTTY.
 */
export const IOCTL = {
  // on /dev/kvm
  KVM_GET_API_VERSION: 0xae00,
  KVM_CREATE_VM: 0xae01,
  KVM_CHECK_EXTENSION: 0xae03, // on a VM too
  KVM_GET_VCPU_MMAP_SIZE: 0xae04,
  KVM_GET_SUPPORTED_CPUID: 0xc008_ae05,
  // on a VM
  KVM_CREATE_VCPU: 0xae41,
  KVM_SET_USER_MEMORY_REGION: 0x4020_ae46,
  KVM_SET_TSS_ADDR: 0xae47,
  KVM_SET_IDENTITY_MAP_ADDR: 0x4008_ae48,
  KVM_CREATE_IRQCHIP: 0xae60,
  KVM_IRQ_LINE: 0x4008_ae61,
  KVM_GET_IRQCHIP: 0xc208_ae62,
  KVM_SET_IRQCHIP: 0x8208_ae63,
  KVM_REGISTER_COALESCED_MMIO: 0x4010_ae67,
  KVM_SET_GSI_ROUTING: 0x4008_ae6a,
  KVM_REINJECT_CONTROL: 0xae71,
  KVM_IRQFD: 0x4020_ae76,
  KVM_CREATE_PIT2: 0x4040_ae77,
  KVM_IOEVENTFD: 0x4040_ae79,
  KVM_SIGNAL_MSI: 0x4020_aea5,
  KVM_CREATE_DEVICE: 0xc00c_aee0,
  KVM_SET_DEVICE_ATTR: 0x4018_aee1, // on a device
  // on a vCPU
  KVM_RUN: 0xae80,
  KVM_GET_REGS: 0x8090_ae81,
  KVM_SET_REGS: 0x4090_ae82,
  KVM_GET_SREGS: 0x8138_ae83,
  KVM_SET_SREGS: 0x4138_ae84,
  KVM_GET_MSRS: 0xc008_ae88,
  KVM_SET_MSRS: 0x4008_ae89,
  KVM_SET_SIGNAL_MASK: 0x4004_ae8b,
  KVM_SET_FPU: 0x41a0_ae8d,
  KVM_GET_LAPIC: 0x8400_ae8e,
  KVM_SET_LAPIC: 0x4400_ae8f,
  KVM_SET_CPUID2: 0x4008_ae90,
} as const;

/** Capabilities, without their prefix KVM_CAP_. */
export const KVM_CAP = {
  IRQCHIP: 0,
  USER_MEMORY: 3,
  SET_TSS_ADDR: 4,
  EXT_CPUID: 7,
  NR_VCPUS: 9,
  NR_MEMSLOTS: 10,
  MP_STATE: 14,
  REINJECT_CONTROL: 24,
  IRQ_ROUTING: 25,
  IRQFD: 32,
  PIT2: 33,
  IOEVENTFD: 36,
  SET_IDENTITY_MAP_ADDR: 37,
  MAX_VCPUS: 66,
  TSC_DEADLINE_TIMER: 72,
  SIGNAL_MSI: 77,
  READONLY_MEM: 81,
  IRQFD_RESAMPLE: 82,
  DEVICE_CTRL: 89,
  IOEVENTFD_ANY_LENGTH: 122,
  IMMEDIATE_EXIT: 136,
  COALESCED_PIO: 162,
} as const;

/** The C name without KVM_CAP_. */
export type CapabilityName = keyof typeof KVM_CAP;

/** Memory slot flag: guest writes exit as MMIO. */
export const KVM_MEM_READONLY = 2;

export const KVM_IRQFD_FLAG_DEASSIGN = 1;
export const KVM_IRQFD_FLAG_RESAMPLE = 2;

export const KVM_IOEVENTFD_FLAG_DEASSIGN = 4;
/** Where a vCPU's descriptor maps the VM's ring of coalesced writes, in pages. */
export const KVM_COALESCED_MMIO_PAGE_OFFSET = 2;

/** Port 0x61 is answered by the in-kernel PIT, without a speaker behind it. */
export const KVM_PIT_SPEAKER_DUMMY = 1;

/** Types of a routing entry. */
export const KVM_IRQ_ROUTING_IRQCHIP = 1;
export const KVM_IRQ_ROUTING_MSI = 2;

/** Interrupt controllers a routing entry may name. */
export const KVM_IRQCHIP_PIC_MASTER = 0;
export const KVM_IRQCHIP_PIC_SLAVE = 1;
export const KVM_IRQCHIP_IOAPIC = 2;
export const KVM_IOAPIC_NUM_PINS = 24;

/** A CPUID entry answers for one sub-leaf (ECX) only. The spelling is the header's. */
export const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1;
/** The most entries KVM takes or gives: KVM_MAX_CPUID_ENTRIES of the kernel sources, which no header exports. */
export const CPUID_ENTRIES_LIMIT = 256;

export const KVM_DEV_TYPE_VFIO = 4;
/** Called KVM_DEV_VFIO_GROUP in headers before Linux 6.6; takes group and device files alike since. */
export const KVM_DEV_VFIO_FILE = 1;
export const KVM_DEV_VFIO_FILE_ADD = 1;
export const KVM_DEV_VFIO_FILE_DEL = 2;
