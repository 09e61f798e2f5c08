import type { CpuStart } from "../base/cpu-state.ts";
import { adviceOf, HostError } from "../base/errors.ts";
import { type Fd, hex } from "../base/units.ts";
import { MMAN } from "../host/constants.ts";
import { check, ERRNO, errnoName, SyscallError } from "../host/errors.ts";
import { libc } from "../host/libc.ts";
import { IOCTL } from "./abi.ts";
import { FPU, LAPIC_STATE, MSR_ENTRY, MSRS, REGS, SIGNAL_MASK, SREGS } from "./abi-structs.ts";
import { type CpuidEntry, encodeCpuid } from "./cpuid.ts";
import { decodeRegisters, describeRegisters, encodeRegs, patchSregs, type VcpuRegisters } from "./registers.ts";
import { RunPage } from "./run-page.ts";

/** Intel SDM vol. 4, architectural MSRs */
const IA32_MISC_ENABLE = 0x1a0;
const IA32_MISC_ENABLE_FAST_STRING = 1n;
const IA32_MTRR_DEF_TYPE = 0x2ff;
/**
 * MTRRs on, default type write-back. With the reset value a guest behind a non-coherent IOMMU runs uncached for its
 * first seconds.
 */
const MTRRS_ON_WRITE_BACK = 0x806n;

/** x87 and SSE control words after FNINIT and at reset. Intel SDM vol. 1 §8.1.5, §10.2.3 */
const FCW_INITIAL = 0x37f;
const MXCSR_INITIAL = 0x1f80;

/**
 * Local vector table, as after a PC's firmware: LINT0 is the PIC, LINT1 is NMI. Intel SDM vol. 3 §11.5.1,
 * MultiProcessor Spec 1.4 §3.6.2.2
 */
const APIC_LVT0 = 0x350;
const APIC_LVT1 = 0x360;
const DELIVERY_EXTINT = 0x700;
const DELIVERY_NMI = 0x400;

/** The kernel's signal sets are 8 bytes. */
const KERNEL_SIGSET_BYTES = 8;

/**
 * One vCPU, in the hands of the thread that runs it: its descriptor and its run page, whose getters say what the last
 * exit was. All methods but the setter `immediateExit` are that thread's alone, and block while another thread is in
 * KVM_RUN on it.
 */
export class Vcpu extends RunPage implements Disposable {
  readonly id: number;
  readonly #fd: Fd;
  readonly #mapping: number;
  readonly #mappingSize: number;
  /** It has a state to run in and has not run yet. */
  #isFresh = false;

  private constructor(id: number, file: Fd, mapping: number, mappingSize: number) {
    super(libc.view(mapping, mappingSize));
    this.id = id;
    this.#fd = file;
    this.#mapping = mapping;
    this.#mappingSize = mappingSize;
  }

  /**
   * Maps a vCPU's run page.
   *
   * @param file From Vm.createVcpu, perhaps on another thread; it stays the caller's.
   * @param mmapSize KvmSystem.vcpuMmapSize.
   * @throws SyscallError
   */
  static open(id: number, file: Fd, mmapSize: number): Vcpu {
    const mapping = check(
      libc.mmap(0, mmapSize, MMAN.PROT_READ | MMAN.PROT_WRITE, MMAN.MAP_SHARED, file, 0),
      `map vCPU ${id}`,
      "mmap",
      "TSVMM_KVM_REFUSED",
    );
    return new Vcpu(id, file, mapping, mmapSize);
  }

  /**
   * Gives the vCPU its features and the state every CPU has after firmware. To be called once, before the first
   * {@link run}.
   *
   * @param cpuid From guestCpuid.
   * @throws SyscallError, HostError
   */
  setUp(cpuid: readonly CpuidEntry[]): void {
    this.#struct(IOCTL.KVM_SET_CPUID2, "KVM_SET_CPUID2", encodeCpuid(cpuid), "set the CPU features");
    this.#setMsr(IA32_MISC_ENABLE, this.#getMsr(IA32_MISC_ENABLE) | IA32_MISC_ENABLE_FAST_STRING);
    this.#setMsr(IA32_MTRR_DEF_TYPE, MTRRS_ON_WRITE_BACK);
    const fpu = new Uint8Array(FPU.size);
    const view = new DataView(fpu.buffer);
    view.setUint16(FPU.fcw, FCW_INITIAL, true);
    view.setUint32(FPU.mxcsr, MXCSR_INITIAL, true);
    this.#struct(IOCTL.KVM_SET_FPU, "KVM_SET_FPU", fpu, "set the floating-point state");
  }

  /**
   * Puts the boot processor at its first instruction; the others wait for INIT and SIPI, which resets whatever was set
   * here.
   *
   * @throws SyscallError
   */
  applyStart(start: CpuStart): void {
    const sregs = new Uint8Array(SREGS.size);
    this.#struct(IOCTL.KVM_GET_SREGS, "KVM_GET_SREGS", sregs, "read the segments");
    patchSregs(sregs, start);
    this.#struct(IOCTL.KVM_SET_SREGS, "KVM_SET_SREGS", sregs, "set the segments");
    this.#struct(IOCTL.KVM_SET_REGS, "KVM_SET_REGS", encodeRegs(start), "set the registers");
    const lapic = new Uint8Array(LAPIC_STATE.size);
    this.#struct(IOCTL.KVM_GET_LAPIC, "KVM_GET_LAPIC", lapic, "read the local APIC");
    const view = new DataView(lapic.buffer);
    view.setUint32(LAPIC_STATE.regs + APIC_LVT0, DELIVERY_EXTINT, true);
    view.setUint32(LAPIC_STATE.regs + APIC_LVT1, DELIVERY_NMI, true);
    this.#struct(IOCTL.KVM_SET_LAPIC, "KVM_SET_LAPIC", lapic, "set the local APIC");
    this.#isFresh = true;
  }

  /**
   * Says which signals are blocked while the guest runs, instead of the thread's own mask. One that is blocked outside
   * and not in here ends KVM_RUN without ever having a handler. KVM API §4.21
   *
   * @param blocked 8 bytes, bit n - 1 for signal n.
   */
  setSignalMask(blocked: Uint8Array): void {
    const bytes = new Uint8Array(SIGNAL_MASK.size + KERNEL_SIGSET_BYTES);
    new DataView(bytes.buffer).setUint32(SIGNAL_MASK.len, KERNEL_SIGSET_BYTES, true);
    bytes.set(blocked.subarray(0, KERNEL_SIGSET_BYTES), SIGNAL_MASK.sigset);
    this.#struct(IOCTL.KVM_SET_SIGNAL_MASK, "KVM_SET_SIGNAL_MASK", bytes, "set the signal mask");
  }

  /**
   * Runs the guest until it needs this process; allocates nothing.
   *
   * - "exit": the getters say why it came back.
   * - "interrupted": a signal, `immediateExit`, INIT or SIPI brought it back. Look whether to stop, drain the kick
   *   signal, run again.
   * - "fault": the memory behind a slot could not be reached. The next run makes the access again, which helps only
   *   when the slots have changed. {@link memoryFault} is the error otherwise.
   *
   * @throws SyscallError with the registers when KVM cannot run it.
   */
  run(): "exit" | "interrupted" | "fault" {
    if (libc.ioctl(this.#fd, IOCTL.KVM_RUN, 0) >= 0) {
      this.#isFresh = false;
      return "exit";
    }
    const errno = libc.errno();
    // One that waits for INIT or SIPI comes back so. The boot processor does not wait: KVM could not make its thread
    // for this machine in the first KVM_RUN (kvm_mmu_post_init_vm, arch/x86/kvm/mmu/mmu.c). It would answer so again
    // and again.
    if (errno === ERRNO.EAGAIN && this.#isFresh) {
      const advice = `KVM needs a thread of its own: ${adviceOf("TSVMM_THREAD_LIMIT")}`;
      throw new SyscallError(["TSVMM_THREAD_LIMIT", advice], `run vCPU ${this.id}`, "KVM_RUN", "EAGAIN");
    }
    if (errno === ERRNO.EINTR || errno === ERRNO.EAGAIN) return "interrupted";
    if (errno === ERRNO.EFAULT) return "fault";
    const name = errnoName(errno);
    throw new SyscallError("TSVMM_VCPU_FAILED", `run vCPU ${this.id}`, "KVM_RUN", name, this.describeRegisters());
  }

  /** The error of a {@link run} that met a "fault" which cannot be resolved. */
  memoryFault(): SyscallError {
    const action = `run vCPU ${this.id}`;
    return new SyscallError("TSVMM_GUEST_MEMORY_LOST", action, "KVM_RUN", "EFAULT", this.describeRegisters());
  }

  /** General and control registers, for diagnostics. @throws SyscallError */
  readRegisters(): VcpuRegisters {
    const regs = new Uint8Array(REGS.size);
    const sregs = new Uint8Array(SREGS.size);
    this.#struct(IOCTL.KVM_GET_REGS, "KVM_GET_REGS", regs, "read the registers");
    this.#struct(IOCTL.KVM_GET_SREGS, "KVM_GET_SREGS", sregs, "read the segments");
    return decodeRegisters(regs, sregs);
  }

  /** {@link readRegisters} as lines of text, or why that failed. */
  describeRegisters(): string {
    try {
      return describeRegisters(this.readRegisters());
    } catch (error) {
      return `registers unknown: ${String(error)}`;
    }
  }

  /** Unmaps the run page; no getter may be used afterwards. The descriptor stays open. */
  close(): void {
    check(libc.munmap(this.#mapping, this.#mappingSize), `unmap vCPU ${this.id}`, "munmap", "TSVMM_KVM_REFUSED");
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #struct(request: number, call: string, bytes: Uint8Array, what: string): void {
    check(libc.ioctlStruct(this.#fd, request, bytes), `${what} of vCPU ${this.id}`, call, "TSVMM_KVM_REFUSED");
  }

  #getMsr(index: number): bigint {
    return this.#msr(IOCTL.KVM_GET_MSRS, "KVM_GET_MSRS", index, 0n);
  }

  #setMsr(index: number, value: bigint): void {
    this.#msr(IOCTL.KVM_SET_MSRS, "KVM_SET_MSRS", index, value);
  }

  /** Both requests answer how many they did, so an MSR that is not there is no errno. */
  #msr(request: number, call: string, index: number, value: bigint): bigint {
    const bytes = new Uint8Array(MSRS.size + MSR_ENTRY.size);
    const view = new DataView(bytes.buffer);
    view.setUint32(MSRS.nmsrs, 1, true);
    view.setUint32(MSRS.entries + MSR_ENTRY.index, index, true);
    view.setBigUint64(MSRS.entries + MSR_ENTRY.data, value, true);
    const action = `use MSR ${hex(index)} of vCPU ${this.id}`;
    if (check(libc.ioctlStruct(this.#fd, request, bytes), action, call, "TSVMM_KVM_REFUSED") !== 1) {
      throw new HostError("TSVMM_KVM_REFUSED", `Cannot ${action}: ${call} does not know it`);
    }
    return view.getBigUint64(MSRS.entries + MSR_ENTRY.data, true);
  }
}
