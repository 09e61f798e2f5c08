import type { Report } from "../../base/backends.ts";
import { HostError, SpecError } from "../../base/errors.ts";
import type { IovaRange } from "../../base/mappings.ts";
import { GIB, hex, MIB, sizeText } from "../../base/units.ts";
import { availableMemory, hugePages } from "../../host/limits.ts";
import { hugePageAdvice } from "../../host/memory/ram-file.ts";
import { failed, failedCheck, type HostCheck } from "../../host-pci/check.ts";
import type { FunctionFacts, HostFunction } from "../../host-pci/functions.ts";
import { KVM_API_VERSION } from "../../kvm/abi.ts";
import { type Capability, KvmSystem, OPTIONAL_CAPABILITIES, REQUIRED_CAPABILITIES } from "../../kvm/system.ts";
import type { OwnedBar } from "../shared/bar-places.ts";
import { regionEnd } from "../shared/memory-map.ts";
import { hugepageBytesOf } from "../spec/machine-parts.ts";
import type { MemorySpec } from "../spec/spec.ts";
import { checkBarPlaces } from "./bar-checks.ts";
import { type CpuAddresses, cpuAddresses, layoutMemory } from "./memory-layout.ts";
import { askIovaRanges, passthroughState } from "./passthrough-checks.ts";

/** A machine's demands on its host. */
export interface HostDemands {
  readonly memory: Pick<MemorySpec, "sizeBytes" | "hugepages" | "hugepageSize">;
  /** sysfs directories of the functions to pass through. */
  readonly devices: readonly string[];
  /** What sysfs has told of them so far. */
  readonly facts: FunctionFacts;
}

/**
 * Checks all that a start of such a machine depends on, by what a start itself does: KVM is opened, and where nothing
 * else is wrong the IOMMU is asked for its addresses and memory laid out. Nothing is held or changed afterwards.
 */
export function checkHost(demands: HostDemands): readonly HostCheck[] {
  const { facts } = demands;
  const passthrough = passthroughState(demands.devices, facts, demands.memory.sizeBytes);
  const checks = [...kvmChecks(), ...memoryChecks(demands), ...passthrough];
  if (checks.some(({ state }) => state === "failed")) return checks;
  const functions = demands.devices.map((path) => facts.at(path)).filter((found) => found !== undefined);
  return [...checks, placementCheck(demands, functions)];
}

/** /dev/kvm, then each capability that is used. */
export function kvmChecks(path = "/dev/kvm"): readonly HostCheck[] {
  const why = "KVM runs the guest's code";
  let system: KvmSystem;
  try {
    system = KvmSystem.openUnchecked(path);
  } catch (error) {
    if (error instanceof HostError) return [failedCheck(path, why, error)];
    throw error;
  }
  try {
    const version = system.apiVersion;
    const base = {
      topic: path,
      found: version < 0 ? "it is not KVM's" : `API version ${version}`,
      why,
      action: `use ${path}`,
    };
    // Anything else has neither these capabilities nor any.
    if (version !== KVM_API_VERSION) return [{ ...base, ...failed("TSVMM_KVM_TOO_OLD", base.found) }];
    return [
      { ...base, state: "good" },
      ...REQUIRED_CAPABILITIES.map((one) => capabilityCheck(system, one, "failed")),
      ...OPTIONAL_CAPABILITIES.map((one) => capabilityCheck(system, one, "warning")),
    ];
  } finally {
    system.close();
  }
}

function capabilityCheck(system: KvmSystem, { name, reason }: Capability, lacking: "failed" | "warning"): HostCheck {
  const base = { topic: `KVM_CAP_${name}`, why: reason, action: "use KVM" };
  if (system.checkExtension(name) !== 0) return { ...base, state: "good", found: "there" };
  if (lacking === "failed") return { ...base, ...failed("TSVMM_KVM_TOO_OLD", "missing") };
  return { ...base, state: lacking, code: "TSVMM_KVM_TOO_OLD", found: "missing" };
}

function memoryChecks({ memory, devices }: HostDemands): readonly HostCheck[] {
  const { sizeBytes, hugepages } = memory;
  const pageBytes = hugepageBytesOf(memory) ?? 2 * MIB;
  const size = `${sizeBytes / MIB} MiB`;
  const available = availableMemory();
  const isEnough = hugepages || available >= sizeBytes;
  const pool = hugePages(pageBytes);
  const needed = sizeBytes / pageBytes;
  const pages = `${pool.freeCount} of ${pool.totalCount} are free`;
  const areFree = !hugepages || pool.freeCount >= needed;
  return [
    {
      topic: "memory",
      state: isEnough ? "good" : "warning",
      found: `${Math.floor(available / MIB)} MiB are available for a guest of ${size}`,
      why:
        devices.length > 0 ? "all guest RAM is taken at the start, for DMA" : "guest RAM is taken as the guest uses it",
      action: `make ${size} of guest RAM`,
      ...(isEnough
        ? {}
        : { code: "TSVMM_NO_MEMORY", remedy: "end other programs, or give the guest less: --memory SIZE" }),
    },
    {
      topic: "huge pages",
      ...(areFree
        ? { state: "good", found: hugepages ? `${pages}, ${needed} are needed` : `not asked for; ${pages}` }
        : failed("TSVMM_NO_HUGE_PAGES", `${pages}, ${needed} are needed`, hugePageAdvice(sizeBytes, pageBytes))),
      why: "with them the guest's page walks are shorter and DMA mapping is quicker",
      action: `make ${size} of guest RAM`,
    },
  ];
}

/** Lays memory out as a start would, for the addresses that CPU and IOMMU have. */
function placementCheck({ memory }: HostDemands, functions: readonly HostFunction[]): HostCheck {
  const topic = "address placement";
  const why = "a guest-physical address is the address of its DMA: RAM and BARs have to lie where CPU and IOMMU reach";
  try {
    const system = KvmSystem.open();
    let cpu: CpuAddresses;
    try {
      cpu = cpuAddresses(system.supportedCpuid());
    } finally {
      system.close();
    }
    const quiet: Report = () => undefined;
    const ranges = askIovaRanges(functions, quiet);
    const layout = layoutMemory(memory.sizeBytes, cpu, ranges, hugepageBytesOf(memory));
    const bars = checkBarPlaces(functions, layout, false);
    const last = layout.ram.at(-1);
    const pieces = layout.pciWindows64.map(
      ({ base, sizeBytes }) => `at ${hex(base)}, ${Math.floor(sizeBytes / GIB)} GiB`,
    );
    const windows = pieces.length === 0 ? "no room for 64-bit BARs above it" : `64-bit BARs ${pieces.join(", and ")}`;
    const found =
      `RAM ends at ${hex(last === undefined ? 0 : regionEnd(last))}, ${windows}${barsText(bars)}; the CPU has ` +
      `${cpu.bits} bits${iommuText(ranges)}`;
    return { topic, state: "good", found, why, action: "place guest RAM" };
  } catch (error) {
    if (error instanceof HostError) return failedCheck(topic, why, error);
    if (error instanceof SpecError) {
      const outcome = failed(error.code, error.text, "give the guest less memory");
      return { topic, why, action: "place guest RAM", ...outcome };
    }
    throw error;
  }
}

function barsText(bars: readonly OwnedBar[]): string {
  if (bars.length === 0) return "";
  const sum = bars.reduce((total, { request }) => total + request.sizeBytes, 0);
  return `, which hold the functions' ${bars.length} BARs of ${sizeText(sum)}`;
}

function iommuText(ranges: readonly IovaRange[] | undefined): string {
  if (ranges === undefined) return "";
  return `, the IOMMU takes ${ranges.map(({ start, end }) => `${hex(start)}-${hex(end)}`).join(", ")}`;
}
