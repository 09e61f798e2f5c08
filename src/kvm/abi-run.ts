/*
 * struct kvm_run: the page a vCPU shares with the thread that runs it. KVM API §5. Checked in test/abi/kvm.test.ts.
 */

/** Offsets in struct kvm_run; a union starts at 32, and its members are named as in C. */
export const RUN = {
  immediate_exit: 1,
  exit_reason: 8,
  "fail_entry.hardware_entry_failure_reason": 32,
  "fail_entry.cpu": 40,
  "io.direction": 32,
  "io.size": 33,
  "io.port": 34,
  "io.count": 36,
  "io.data_offset": 40,
  "mmio.phys_addr": 32,
  "mmio.data": 40,
  "mmio.len": 48,
  "mmio.is_write": 52,
  "internal.suberror": 32,
  "internal.ndata": 36,
  "internal.data": 40,
  "emulation_failure.flags": 40,
  "emulation_failure.insn_size": 48,
  "emulation_failure.insn_bytes": 49,
  "system_event.type": 32,
} as const;

/** Why KVM_RUN came back, without the prefix KVM_EXIT_. */
export const KVM_EXIT = {
  UNKNOWN: 0,
  EXCEPTION: 1,
  IO: 2,
  HYPERCALL: 3,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  SET_TPR: 11,
  TPR_ACCESS: 12,
  NMI: 16,
  INTERNAL_ERROR: 17,
  SYSTEM_EVENT: 24,
  IOAPIC_EOI: 26,
  HYPERV: 27,
  X86_RDMSR: 29,
  X86_WRMSR: 30,
  DIRTY_RING_FULL: 31,
  X86_BUS_LOCK: 33,
  NOTIFY: 37,
} as const;

/** `io.direction` of a guest write. */
export const KVM_EXIT_IO_OUT = 1;

/** `internal.suberror`, without the prefix KVM_INTERNAL_ERROR_. */
export const KVM_INTERNAL_ERROR = {
  EMULATION: 1,
  SIMUL_EX: 2,
  DELIVERY_EV: 3,
  UNEXPECTED_EXIT_REASON: 4,
} as const;

/** `emulation_failure.flags`: the instruction's bytes are there. */
export const KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 1;

/** `system_event.type`, without the prefix KVM_SYSTEM_EVENT_. */
export const KVM_SYSTEM_EVENT = {
  SHUTDOWN: 1,
  RESET: 2,
  CRASH: 3,
} as const;
