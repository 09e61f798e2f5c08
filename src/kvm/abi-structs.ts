/*
 * Layouts of the structs that KVM's requests take, x86-64: `size`, then the offset of each field we use under its C
 * name. Checked against the C headers in test/abi/kvm.test.ts.
 */

/** struct kvm_userspace_memory_region, KVM API §4.35 */
export const MEMORY_REGION = {
  size: 32,
  slot: 0,
  flags: 4,
  guest_phys_addr: 8,
  memory_size: 16,
  userspace_addr: 24,
} as const;

/** struct kvm_pit_config, KVM API §4.71 */
export const PIT_CONFIG = { size: 64, flags: 0 } as const;

/** struct kvm_reinject_control, KVM API §4.59 */
export const REINJECT_CONTROL = { size: 32, pit_reinject: 0 } as const;

/** struct kvm_irqchip, KVM API §4.26: of the union, what is used of struct kvm_pic_state. */
export const IRQCHIP = { size: 520, chip_id: 0, "chip.pic.irq_base": 13 } as const;

/** struct kvm_irq_level, KVM API §4.25 */
export const IRQ_LEVEL = { size: 8, irq: 0, level: 4 } as const;

/** struct kvm_irqfd, KVM API §4.75 */
export const IRQFD = { size: 32, fd: 0, gsi: 4, flags: 8, resamplefd: 12 } as const;

/** struct kvm_ioeventfd, KVM API §4.59 */
export const IOEVENTFD = { size: 64, datamatch: 0, addr: 8, len: 16, fd: 20, flags: 24 } as const;

/** struct kvm_coalesced_mmio_zone, KVM API §4.116 */
export const COALESCED_ZONE = { size: 16, addr: 0, zone_size: 8, pio: 12 } as const;

/** struct kvm_coalesced_mmio_ring; its entries fill the page. */
export const COALESCED_RING = { size: 8, first: 0, last: 4, coalesced_mmio: 8 } as const;

/** struct kvm_coalesced_mmio */
export const COALESCED_WRITE = { size: 24, phys_addr: 0, len: 8, pio: 12, data: 16 } as const;

/** struct kvm_irq_routing; its entries follow. KVM API §4.52 */
export const IRQ_ROUTING = { size: 8, nr: 0, flags: 4, entries: 8 } as const;

/** struct kvm_irq_routing_entry */
export const IRQ_ROUTING_ENTRY = {
  size: 48,
  gsi: 0,
  type: 4,
  flags: 8,
  "u.irqchip.irqchip": 16,
  "u.irqchip.pin": 20,
  "u.msi.address_lo": 16,
  "u.msi.address_hi": 20,
  "u.msi.data": 24,
} as const;

/** struct kvm_msi, KVM API §4.70 */
export const MSI = { size: 32, address_lo: 0, address_hi: 4, data: 8, flags: 12 } as const;

/** struct kvm_create_device, KVM API §4.79 */
export const CREATE_DEVICE = { size: 12, type: 0, fd: 4, flags: 8 } as const;

/** struct kvm_device_attr, KVM API §4.80 */
export const DEVICE_ATTR = { size: 24, flags: 0, group: 4, attr: 8, addr: 16 } as const;

/** struct kvm_cpuid2; its entries follow. KVM API §4.46 */
export const CPUID2 = { size: 8, nent: 0, entries: 8 } as const;

/** struct kvm_cpuid_entry2 */
export const CPUID_ENTRY2 = { size: 40, function: 0, index: 4, flags: 8, eax: 12, ebx: 16, ecx: 20, edx: 24 } as const;

/** struct kvm_regs, KVM API §4.11 */
export const REGS = {
  size: 144,
  rax: 0,
  rbx: 8,
  rcx: 16,
  rdx: 24,
  rsi: 32,
  rdi: 40,
  rsp: 48,
  rbp: 56,
  r8: 64,
  r9: 72,
  r10: 80,
  r11: 88,
  r12: 96,
  r13: 104,
  r14: 112,
  r15: 120,
  rip: 128,
  rflags: 136,
} as const;

/** struct kvm_segment */
export const SEGMENT = {
  size: 24,
  base: 0,
  limit: 8,
  selector: 12,
  type: 14,
  present: 15,
  dpl: 16,
  db: 17,
  s: 18,
  l: 19,
  g: 20,
  avl: 21,
  unusable: 22,
} as const;

/** struct kvm_dtable */
export const DTABLE = { size: 16, base: 0, limit: 8 } as const;

/** struct kvm_sregs, KVM API §4.13 */
export const SREGS = {
  size: 312,
  cs: 0,
  ds: 24,
  es: 48,
  fs: 72,
  gs: 96,
  ss: 120,
  tr: 144,
  ldt: 168,
  gdt: 192,
  idt: 208,
  cr0: 224,
  cr2: 232,
  cr3: 240,
  cr4: 248,
  efer: 264,
} as const;

/** struct kvm_fpu, KVM API §4.22 */
export const FPU = { size: 416, fcw: 128, mxcsr: 408 } as const;

/** struct kvm_lapic_state: the registers as memory. KVM API §4.57 */
export const LAPIC_STATE = { size: 1024, regs: 0 } as const;

/** struct kvm_msrs; its entries follow. KVM API §4.18 */
export const MSRS = { size: 8, nmsrs: 0, entries: 8 } as const;

/** struct kvm_msr_entry */
export const MSR_ENTRY = { size: 16, index: 0, data: 8 } as const;

/** struct kvm_signal_mask; `len` is the kernel's sigset size, 8. KVM API §4.21 */
export const SIGNAL_MASK = { size: 4, len: 0, sigset: 4 } as const;
