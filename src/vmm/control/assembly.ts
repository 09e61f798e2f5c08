import type { Report } from "../../base/backends.ts";
import type { CpuStart } from "../../base/cpu-state.ts";
import { cpuPlace } from "../../base/cpu-topology.ts";
import { SpecError } from "../../base/errors.ts";
import type { Fd } from "../../base/units.ts";
import { libc } from "../../host/libc.ts";
import { GuestRam } from "../../host/memory/guest-ram.ts";
import { FunctionFacts } from "../../host-pci/functions.ts";
import { guestCpuid } from "../../kvm/cpuid.ts";
import { hostCpuBrand, KvmSystem } from "../../kvm/system.ts";
import { Vm } from "../../kvm/vm.ts";
import { KVM_IDENTITY_MAP_ADDRESS, KVM_TSS_ADDRESS, type MemoryLayout } from "../shared/memory-map.ts";
import type { MachinePlan } from "../shared/plan.ts";
import { type ResolvedMachine, sourceFunction } from "../shared/resolved-machine.ts";
import { affinityOf, topologyOf } from "../spec/cpus.ts";
import { hugepageBytesOf } from "../spec/machine-parts.ts";
import type { MachineSpec } from "../spec/spec.ts";
import { checkBarPlaces } from "./bar-checks.ts";
import type { CpuDescription } from "./cpu-threads.ts";
import type { DeviceThread } from "./device-thread.ts";
import { loadImages } from "./load.ts";
import { type CpuAddresses, cpuAddresses, layoutMemory } from "./memory-layout.ts";
import { askIovaRanges, resolveMachine } from "./passthrough-checks.ts";

/** A power cycle that is ready for its first instruction. */
export interface AssembledMachine {
  readonly vcpus: readonly CpuDescription[];
  /** The boot processor's first state. */
  readonly start: CpuStart;
  /** Bytes of a vCPU's `kvm_run` mapping. */
  readonly mmapSize: number;
  readonly plan: MachinePlan;
}

/** A power cycle's parts on the control thread. */
interface PowerCycle {
  readonly vm: Vm;
  readonly vcpus: CpuDescription[];
}

/**
 * What a machine keeps over resets of its guest: KVM, guest RAM, the list of devices. Makes a VM of it for each power
 * cycle. Control thread.
 */
export class Assembly implements Disposable {
  readonly #spec: MachineSpec;
  readonly #report: Report;
  #system: KvmSystem | undefined;
  #ram: GuestRam | undefined;
  #layout: MemoryLayout | undefined;
  /** What the next power cycle is made of: the one list of devices. Known from the first start on. */
  #machine: ResolvedMachine | undefined;
  #cycle: PowerCycle | undefined;

  constructor(spec: MachineSpec, report: Report) {
    this.#spec = spec;
    this.#report = report;
  }

  /** True from the beginning of {@link assemble} to {@link closeVm}. */
  get hasVm(): boolean {
    return this.#cycle !== undefined;
  }

  /** Of guest RAM; 0 before there is any. */
  get ramBytes(): number {
    return this.#ram?.sizeBytes ?? 0;
  }

  /**
   * Makes everything up to the first instruction: VM, devices, kernel in RAM, vCPUs.
   *
   * @throws SpecError, HostError; {@link closeVm} and {@link close} give back what was made until then.
   */
  async assemble(devices: DeviceThread): Promise<AssembledMachine> {
    this.#system ??= KvmSystem.open();
    const system = this.#system;
    const { count } = this.#spec.cpus;
    if (count > system.maxVcpus)
      throw new SpecError("TSVMM_TOO_MANY_CPUS", "cpus", `${count} is more than KVM allows here: ${system.maxVcpus}`);
    const supported = system.supportedCpuid();
    this.#machine ??= resolveMachine(this.#spec, new FunctionFacts());
    const machine = this.#machine;
    this.#layout ??= this.#layOut(machine, cpuAddresses(supported));
    const layout = this.#layout;
    const { prefault } = machine.memory;
    const hugepageBytes = hugepageBytesOf(machine.memory);
    const pages = hugepageBytes === undefined ? {} : { hugepageBytes };
    this.#ram ??= GuestRam.create({ regions: layout.ram, prefault, ...pages });
    const ram = this.#ram;
    const vm = Vm.create(system.fd, { tss: KVM_TSS_ADDRESS, identityMap: KVM_IDENTITY_MAP_ADDRESS });
    const cycle: PowerCycle = { vm, vcpus: [] };
    this.#cycle = cycle;
    const host = { brand: hostCpuBrand(), hasTscDeadlineTimer: system.hasTscDeadlineTimer };
    const topology = topologyOf(machine.cpus);
    const affinity = affinityOf(machine.cpus);
    const addVcpu = (index: number): Fd => {
      const vcpuFd = vm.createVcpu(cpuPlace(topology, index).apicId);
      const hostCpus = affinity.get(index);
      const cpuid = guestCpuid(supported, { index, topology }, host);
      cycle.vcpus.push({ vcpuFd, cpuid, ...(hostCpus === undefined ? {} : { hostCpus }) });
      return vcpuFd;
    };
    const files = { kvm: system.fd, vm: vm.fd, vcpu: addVcpu(0) };
    const building = devices.build({ machine, files, ram: ram.attachment, layout });
    const boot = loadImages(machine, ram, layout);
    for (let index = 1; index < count; index++) addVcpu(index);
    const plan = { ...(await building), bootProtocol: boot.protocol };
    return { vcpus: cycle.vcpus, start: boot.start, mmapSize: system.vcpuMmapSize, plan };
  }

  /** Lays out memory round what the IOMMU translates, and refuses devices whose BARs find no place then. */
  #layOut(machine: ResolvedMachine, cpu: CpuAddresses): MemoryLayout {
    const functions = machine.devices.map(({ host }) => host);
    const ranges = askIovaRanges(machine.devices.map(sourceFunction), this.#report);
    const layout = layoutMemory(machine.memory.sizeBytes, cpu, ranges, hugepageBytesOf(machine.memory));
    checkBarPlaces(functions, layout, machine.hasTestDevice);
    return layout;
  }

  /**
   * The host wants a device: the next power cycle goes without it, whether the guest lets go of it or is reset first. A
   * request that comes before a reset is here before the reset's build is sent, since both come from the device thread
   * in order. One that comes after the devices were taken apart is lost with their eventfds; the host repeats it to the
   * next power cycle.
   */
  forget(id: string): void {
    if (this.#machine === undefined) return;
    this.#machine = { ...this.#machine, devices: this.#machine.devices.filter((device) => device.id !== id) };
  }

  /** Closes the power cycle's VM; vCPUs and devices must have been taken apart. Calling it twice is harmless. */
  closeVm(): void {
    for (const { vcpuFd } of this.#cycle?.vcpus ?? []) libc.close(vcpuFd);
    this.#cycle?.vm.close();
    this.#cycle = undefined;
  }

  /** Gives back what is kept over resets; no thread may use it any more. */
  close(): void {
    this.#system?.close();
    this.#ram?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
