import { readFileSync } from "node:fs";
import { adviceOf, HostError } from "../base/errors.ts";
import { allOrNothing } from "../base/undo-stack.ts";
import { type Fd, fd } from "../base/units.ts";
import { FCNTL } from "../host/constants.ts";
import { type CausesByErrno, check, ERRNO } from "../host/errors.ts";
import { libc } from "../host/libc.ts";
import { type CapabilityName, CPUID_ENTRIES_LIMIT, IOCTL, KVM_API_VERSION, KVM_CAP } from "./abi.ts";
import { CPUID_ENTRY2, CPUID2 } from "./abi-structs.ts";
import { type CpuidEntry, decodeCpuid } from "./cpuid.ts";

/** A capability and what the machine needs it for. */
export interface Capability {
  readonly name: CapabilityName;
  readonly reason: string;
}

/** Without any of these no machine is made. Every Linux since 4.12 on x86-64 has them all. */
export const REQUIRED_CAPABILITIES: readonly Capability[] = [
  { name: "IRQCHIP", reason: "interrupt controllers in the kernel" },
  { name: "USER_MEMORY", reason: "guest RAM out of this process's memory" },
  { name: "SET_TSS_ADDR", reason: "real mode on Intel hosts" },
  { name: "SET_IDENTITY_MAP_ADDR", reason: "real mode on Intel hosts" },
  { name: "EXT_CPUID", reason: "telling the guest what its CPU can do" },
  { name: "MP_STATE", reason: "starting further CPUs by INIT and SIPI" },
  { name: "PIT2", reason: "the timer that kernels calibrate with" },
  { name: "REINJECT_CONTROL", reason: "interrupts of devices without an exit on AMD hosts" },
  { name: "IRQ_ROUTING", reason: "message-signalled interrupts" },
  { name: "IRQFD", reason: "interrupts from devices without a thread between" },
  { name: "IRQFD_RESAMPLE", reason: "level-triggered interrupts of passed-through functions" },
  { name: "IOEVENTFD", reason: "virtio notifications without an exit to this process" },
  { name: "IOEVENTFD_ANY_LENGTH", reason: "virtio notifications of any width" },
  { name: "SIGNAL_MSI", reason: "message-signalled interrupts without a route" },
  { name: "READONLY_MEM", reason: "read-only mappings such as expansion ROMs" },
  { name: "IMMEDIATE_EXIT", reason: "stopping a CPU without a race" },
];

/** What is used where it is there. */
export const OPTIONAL_CAPABILITIES: readonly Capability[] = [
  { name: "TSC_DEADLINE_TIMER", reason: "a cheaper timer for the guest" },
];

const OPEN_CAUSES: CausesByErrno = {
  otherwise: "TSVMM_KVM_REFUSED",
  ENOENT: "TSVMM_KVM_MISSING",
  ENODEV: "TSVMM_KVM_MISSING",
  ENXIO: "TSVMM_KVM_MISSING",
  EACCES: "TSVMM_KVM_DENIED",
  EPERM: ["TSVMM_KVM_DENIED", `${adviceOf("TSVMM_KVM_DENIED")}; in a container, allow the device`],
};

/**
 * KVM itself: an open /dev/kvm. Any thread may use one; the fd number may be handed to another thread and wrapped there
 * again.
 */
export class KvmSystem implements Disposable {
  readonly fd: Fd;

  /** Wraps a descriptor that {@link open} made, perhaps on another thread. */
  constructor(file: Fd) {
    this.fd = file;
  }

  /**
   * Opens /dev/kvm and checks that it will do. CPU flags are not looked at: a software KVM shows neither vmx nor svm.
   *
   * @throws SyscallError when it cannot be opened, HostError when its API or a capability is missing; both with advice.
   */
  static open(path = "/dev/kvm"): KvmSystem {
    return allOrNothing((undo) => {
      const system = undo.own(KvmSystem.openUnchecked(path));
      system.#checkUsable(path);
      return system;
    });
  }

  /** Opens /dev/kvm to look what it has. @throws SyscallError with advice */
  static openUnchecked(path = "/dev/kvm"): KvmSystem {
    const opened = libc.open(path, FCNTL.O_RDWR | FCNTL.O_CLOEXEC, 0);
    return new KvmSystem(fd(check(opened, `open ${path}`, "open", OPEN_CAUSES)));
  }

  #checkUsable(path: string): void {
    const version = this.apiVersion;
    if (version !== KVM_API_VERSION) {
      throw new HostError(
        "TSVMM_KVM_TOO_OLD",
        `Cannot use ${path}: its API version is ${version}, not ${KVM_API_VERSION}`,
      );
    }
    const missing = missingCapabilities((capability) => this.checkExtension(capability));
    if (missing.length > 0) throw new HostError("TSVMM_KVM_TOO_OLD", missingText(path, missing));
  }

  /** 12; the number is not expected to change. KVM API §4.1 */
  get apiVersion(): number {
    return libc.ioctl(this.fd, IOCTL.KVM_GET_API_VERSION, 0);
  }

  /** 0 when the capability is missing, else 1 or its own figure. KVM API §4.4 */
  checkExtension(name: CapabilityName): number {
    return check(
      libc.ioctl(this.fd, IOCTL.KVM_CHECK_EXTENSION, KVM_CAP[name]),
      `ask for ${name}`,
      "KVM_CHECK_EXTENSION",
      "TSVMM_KVM_REFUSED",
    );
  }

  /** The most vCPUs a machine may have. */
  get maxVcpus(): number {
    // A kernel without the first capability means the second; one without either, 4. KVM API §4.7
    return this.checkExtension("MAX_VCPUS") || this.checkExtension("NR_VCPUS") || 4;
  }

  /** How many vCPUs the kernel thinks wise: mostly the host's CPUs. */
  get recommendedVcpus(): number {
    return this.checkExtension("NR_VCPUS") || 4;
  }

  /** Bytes to map of a vCPU's descriptor: struct kvm_run, the PIO page and the coalesced ring. */
  get vcpuMmapSize(): number {
    return check(
      libc.ioctl(this.fd, IOCTL.KVM_GET_VCPU_MMAP_SIZE, 0),
      "size a vCPU",
      "KVM_GET_VCPU_MMAP_SIZE",
      "TSVMM_KVM_REFUSED",
    );
  }

  get hasTscDeadlineTimer(): boolean {
    return this.checkExtension("TSC_DEADLINE_TIMER") > 0;
  }

  /** What KVM can give to a guest's CPUID on this host. KVM API §4.46 */
  supportedCpuid(): CpuidEntry[] {
    for (let room = 128; room <= CPUID_ENTRIES_LIMIT; room *= 2) {
      const bytes = new Uint8Array(CPUID2.size + room * CPUID_ENTRY2.size);
      new DataView(bytes.buffer).setUint32(CPUID2.nent, room, true);
      const result = libc.ioctlStruct(this.fd, IOCTL.KVM_GET_SUPPORTED_CPUID, bytes);
      if (result < 0 && libc.errno() === ERRNO.E2BIG) continue;
      check(result, "read the CPU features KVM supports", "KVM_GET_SUPPORTED_CPUID", "TSVMM_KVM_REFUSED");
      return decodeCpuid(bytes);
    }
    throw new HostError(
      "TSVMM_KVM_REFUSED",
      `Cannot read the CPU features KVM supports: they need more than ${CPUID_ENTRIES_LIMIT} entries`,
    );
  }

  close(): void {
    libc.close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Those of {@link REQUIRED_CAPABILITIES} for which `checkExtension` answers 0. */
export function missingCapabilities(checkExtension: (name: CapabilityName) => number): readonly Capability[] {
  return REQUIRED_CAPABILITIES.filter(({ name }) => checkExtension(name) === 0);
}

/** The text of the error for capabilities that are missing: each is named, with what it is for. */
export function missingText(path: string, missing: readonly Capability[]): string {
  const list = missing.map(({ name, reason }) => `KVM_CAP_${name} (${reason})`).join(", ");
  return `Cannot use ${path}: it lacks ${list}`;
}

/** The host CPU's model name, for the guest's brand string; `undefined` where the kernel does not tell. */
export function hostCpuBrand(): string | undefined {
  try {
    return /^model name\s*:\s*(.+)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1]?.trim();
  } catch {
    return undefined; // no /proc: the guest's brand string stays empty
  }
}
