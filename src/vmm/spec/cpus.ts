import { type CpuTopology, cpuPlace, flatTopology, processorCount } from "../../base/cpu-topology.ts";
import { SpecError } from "../../base/errors.ts";

/** xAPIC ids are one byte: 255 means all. */
const MOST_APIC_ID = 254;
/** Of a host; more than any has. */
const MOST_HOST_CPU = 8191;

/** What the specification says of processors. */
interface CpuChoice {
  readonly count: number;
  readonly topology?: string;
  readonly affinity?: string;
}

/** How the processors are put together. */
export function topologyOf({ count, topology }: CpuChoice): CpuTopology {
  if (topology === undefined) return flatTopology(count);
  const [threads = 1, cores = 1, dies = 1, packages = 1] = topology.split(":").map(Number);
  return { threads, cores, dies, packages };
}

/** The processors' APIC ids, in the order of their numbers. */
export function apicIdsOf(cpus: CpuChoice): readonly number[] {
  const topology = topologyOf(cpus);
  return Array.from({ length: cpus.count }, (_, index) => cpuPlace(topology, index).apicId);
}

/** The host's CPUs that each vCPU's thread may run on, by the vCPU's number; none for those that may run anywhere. */
export function affinityOf({ affinity = "" }: CpuChoice): ReadonlyMap<number, readonly number[]> {
  const sets = new Map<number, readonly number[]>();
  for (const [, vcpu, list = ""] of affinity.matchAll(/(\d+)@\[([^\]]*)\]/g)) {
    const cpus = list.split(",").flatMap((range) => {
      const [first = 0, last = first] = range.split("-").map(Number);
      return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index);
    });
    sets.set(Number(vcpu), cpus);
  }
  return sets;
}

/** Checks what the rows cannot say. @throws SpecError */
export function checkCpus(where: string, cpus: CpuChoice): void {
  const topology = topologyOf(cpus);
  const product = processorCount(topology);
  if (product !== cpus.count) {
    const counts = `${topology.threads} threads, ${topology.cores} cores, ${topology.dies} dies, ${topology.packages}`;
    throw new SpecError(
      "TSVMM_VALUE_INVALID",
      `${where}.topology`,
      `${counts} packages make ${product} CPUs, not ${cpus.count}`,
    );
  }
  const highest = Math.max(...apicIdsOf(cpus));
  if (highest > MOST_APIC_ID) {
    const text = `the last CPU's APIC id would be ${highest}, and ${MOST_APIC_ID} is the highest`;
    throw new SpecError("TSVMM_VALUE_INVALID", `${where}.topology`, `${text}: counts are rounded up to powers of two`);
  }
  const seen = [...(cpus.affinity ?? "").matchAll(/(\d+)@/g)].map(([, vcpu]) => Number(vcpu));
  for (const [index, vcpu] of seen.entries()) {
    if (vcpu >= cpus.count)
      throw new SpecError("TSVMM_VALUE_INVALID", `${where}.affinity`, `there is no CPU ${vcpu} of ${cpus.count}`);
    if (seen.indexOf(vcpu) !== index)
      throw new SpecError("TSVMM_VALUE_INVALID", `${where}.affinity`, `CPU ${vcpu} is given twice`);
  }
  for (const [text] of (cpus.affinity ?? "").matchAll(/\[[^@[\]]*\]/g)) {
    if (/^\[\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*\]$/.test(text)) continue;
    throw new SpecError("TSVMM_VALUE_INVALID", `${where}.affinity`, `${text} is no list of host CPUs such as [0,2-5]`);
  }
  for (const [vcpu, hostCpus] of affinityOf(cpus)) {
    const last = Math.max(...hostCpus);
    if (hostCpus.length === 0)
      throw new SpecError("TSVMM_VALUE_INVALID", `${where}.affinity`, `CPU ${vcpu} has a range that runs backwards`);
    if (last > MOST_HOST_CPU)
      throw new SpecError("TSVMM_VALUE_INVALID", `${where}.affinity`, `no host has a CPU ${last}`);
  }
}
