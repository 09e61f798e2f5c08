/** A segment register with its hidden part. Intel SDM vol. 3 §3.4.5; field names as struct kvm_segment. */
export interface SegmentState {
  readonly selector: number;
  readonly base: number;
  readonly limit: number;
  readonly type: number;
  readonly present: 0 | 1;
  readonly dpl: number;
  readonly db: 0 | 1;
  readonly s: 0 | 1;
  readonly l: 0 | 1;
  readonly g: 0 | 1;
}

/** General registers a boot protocol sets; all others start at zero. */
export type GeneralRegister =
  | "rax"
  | "rbx"
  | "rcx"
  | "rdx"
  | "rsi"
  | "rdi"
  | "rsp"
  | "rbp"
  | "r8"
  | "r9"
  | "r10"
  | "r11"
  | "r12"
  | "r13"
  | "r14"
  | "r15"
  | "rip"
  | "rflags";

/**
 * What the boot processor holds before its first instruction, as the boot protocol demands. Application processors are
 * not in it: they wait for INIT and SIPI in the in-kernel local APIC.
 */
export interface CpuStart {
  readonly registers: Readonly<Partial<Record<GeneralRegister, number>>>;
  readonly cr0: number;
  readonly cr3: number;
  readonly cr4: number;
  readonly efer: number;
  readonly cs: SegmentState;
  /** ds, es, fs, gs and ss. */
  readonly data: SegmentState;
  readonly tr: SegmentState;
  readonly gdt: { readonly base: number; readonly limit: number };
  readonly idt: { readonly base: number; readonly limit: number };
}
