import {
  type CpuPlace,
  type CpuShifts,
  type CpuTopology,
  cpuPlace,
  cpuShifts,
  processorCount,
} from "../base/cpu-topology.ts";
import { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } from "./abi.ts";
import { CPUID_ENTRY2, CPUID2 } from "./abi-structs.ts";

/**
 * What CPUID answers for one leaf, and one sub-leaf where `flags` says that ECX matters. Field names as struct
 * kvm_cpuid_entry2.
 */
export interface CpuidEntry {
  readonly function: number;
  readonly index: number;
  readonly flags: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

type Answer = Pick<CpuidEntry, "eax" | "ebx" | "ecx" | "edx">;

/** Where a vCPU stands. */
export interface CpuidPlace {
  readonly index: number;
  readonly topology: CpuTopology;
}

/** The numbers that the leaves are made of. */
interface Place extends CpuPlace {
  readonly topology: CpuTopology;
  readonly shifts: CpuShifts;
  /** Processors of a package. */
  readonly packageCount: number;
}

/** What the supported set does not tell. */
export interface CpuidHost {
  /** Put into the brand leaves where KVM leaves them empty. At most 47 bytes count. */
  readonly brand?: string | undefined;
  /** KVM_CAP_TSC_DEADLINE_TIMER; older kernels do not list the bit although they have it. */
  readonly hasTscDeadlineTimer: boolean;
}

// Leaf 1. Intel SDM vol. 2A, CPUID
const ECX_TSC_DEADLINE = 1 << 24;
const ECX_HYPERVISOR = 1 << 31;
const EDX_HTT = 1 << 28;
// Leaf 7
const EDX_AMX = (1 << 22) | (1 << 24) | (1 << 25);
const EAX_AMX_FP16 = 1 << 21;
const EDX_AMX_COMPLEX = 1 << 8;
const XCR0_TILE_DATA = 1 << 18;
// Leaf 0x8000_0001
const ECX_CMP_LEGACY = 1 << 1;
// Leaf 0x4000_0001
const KVM_FEATURE_MSI_EXT_DEST_ID = 1 << 15;

/** First four characters of the vendor string: AuthenticAMD, HygonGenuine. */
const AMD_VENDORS = [0x6874_7541, 0x6f67_7948];

const LEVEL_SMT = 1;
const LEVEL_CORE = 2;
const LEVEL_DIE = 5;

const BRAND_LEAVES = [0x8000_0002, 0x8000_0003, 0x8000_0004];

/**
 * Makes one vCPU's CPUID out of what KVM supports: the host's CPU, the machine's topology, and the vCPU's own place.
 *
 * Left out on purpose: KVM_FEATURE_MSI_EXT_DEST_ID, because routes do not carry the extended destination, and AMX,
 * unless the process was granted its register state. Features that KVM lists are kept, nested virtualization among
 * them.
 */
export function guestCpuid(
  supported: readonly CpuidEntry[],
  { index, topology }: CpuidPlace,
  host: CpuidHost,
): CpuidEntry[] {
  const packageCount = processorCount({ ...topology, packages: 1 });
  const place: Place = { ...cpuPlace(topology, index), topology, shifts: cpuShifts(topology), packageCount };
  const hasAmx = ((find(supported, 0xd, 0)?.eax ?? 0) & XCR0_TILE_DATA) !== 0;
  const isAmd = isAmdCpu(supported);
  const result: CpuidEntry[] = [];
  for (const entry of supported) {
    if (isTopologyLeaf(entry.function)) continue; // made below
    if (!hasAmx && (entry.function === 0x1d || entry.function === 0x1e)) continue;
    result.push(unsigned({ ...entry, ...answer(entry, place, host, hasAmx, isAmd) }));
  }
  const maxLeaf = find(supported, 0)?.eax ?? 0;
  for (const leaf of [0xb, 0x1f]) {
    if (leaf <= maxLeaf && supported.some((entry) => entry.function === leaf))
      result.push(...topologyLevels(leaf, place));
  }
  if (host.brand !== undefined && BRAND_LEAVES.every((leaf) => isEmpty(find(supported, leaf)))) {
    return withBrand(result, host.brand);
  }
  return result;
}

/** True for AMD's processors and their relatives of Hygon. */
export function isAmdCpu(supported: readonly CpuidEntry[]): boolean {
  return AMD_VENDORS.includes(find(supported, 0)?.ebx ?? 0);
}

/** Width of a guest-physical address. CPUID 0x8000_0008 EAX; 36 where the leaf is missing, as the SDM says. */
export function physicalAddressBits(supported: readonly CpuidEntry[]): number {
  const eax = find(supported, 0x8000_0008)?.eax ?? 36;
  const guestBits = (eax >>> 16) & 0xff; // what nested paging reaches, where it is less (Linux 6.9)
  return guestBits !== 0 ? Math.min(guestBits, eax & 0xff) : eax & 0xff;
}

/** struct kvm_cpuid2 with its entries. */
export function encodeCpuid(entries: readonly CpuidEntry[]): Uint8Array {
  const bytes = new Uint8Array(CPUID2.size + entries.length * CPUID_ENTRY2.size);
  const view = new DataView(bytes.buffer);
  view.setUint32(CPUID2.nent, entries.length, true);
  for (const [index, entry] of entries.entries()) {
    const at = CPUID2.entries + index * CPUID_ENTRY2.size;
    for (const field of FIELDS) view.setUint32(at + CPUID_ENTRY2[field], entry[field], true);
  }
  return bytes;
}

/** The other way round. */
export function decodeCpuid(bytes: Uint8Array): CpuidEntry[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: view.getUint32(CPUID2.nent, true) }, (_, index) => {
    const at = CPUID2.entries + index * CPUID_ENTRY2.size;
    const read = (field: keyof CpuidEntry): number => view.getUint32(at + CPUID_ENTRY2[field], true);
    return {
      function: read("function"),
      index: read("index"),
      flags: read("flags"),
      eax: read("eax"),
      ebx: read("ebx"),
      ecx: read("ecx"),
      edx: read("edx"),
    };
  });
}

const FIELDS = ["function", "index", "flags", "eax", "ebx", "ecx", "edx"] as const;

function find(entries: readonly CpuidEntry[], leaf: number, index = 0): CpuidEntry | undefined {
  return entries.find((entry) => entry.function === leaf && entry.index === index);
}

function isEmpty(entry: CpuidEntry | undefined): boolean {
  return entry === undefined || (entry.eax | entry.ebx | entry.ecx | entry.edx) === 0;
}

/** Leaves that are made from the topology alone; AMD's 0x8000_0026 is one too, and without it guests use 0xb. */
function isTopologyLeaf(leaf: number): boolean {
  return leaf === 0xb || leaf === 0x1f || leaf === 0x8000_0026;
}

/** The registers of one leaf that differ from what KVM supports. */
function answer(entry: CpuidEntry, place: Place, host: CpuidHost, hasAmx: boolean, isAmd: boolean): Partial<Answer> {
  const { eax, ebx, ecx, edx } = entry;
  const { apicId, coreId, topology, shifts, packageCount } = place;
  switch (entry.function) {
    case 1: {
      const deadline = host.hasTscDeadlineTimer ? ECX_TSC_DEADLINE : 0;
      const addressableIds = Math.min(2 ** shifts.package, 255);
      return {
        ebx: (apicId << 24) | (addressableIds << 16) | (ebx & 0xffff),
        ecx: (ecx & ~ECX_TSC_DEADLINE) | deadline | ECX_HYPERVISOR,
        edx: packageCount > 1 ? edx | EDX_HTT : edx & ~EDX_HTT,
      };
    }
    case 4: // Intel: caches
    case 0x8000_001d: // AMD: the same, but for the cores in EAX[31:26]
      return (eax & 0x1f) === 0 ? {} : { eax: cacheSharing(entry, shifts) };
    case 7:
      if (hasAmx) return {};
      if (entry.index === 0) return { edx: edx & ~EDX_AMX };
      return entry.index === 1 ? { eax: eax & ~EAX_AMX_FP16, edx: edx & ~EDX_AMX_COMPLEX } : {};
    case 0x4000_0001:
      return { eax: eax & ~KVM_FEATURE_MSI_EXT_DEST_ID };
    case 0x8000_0001:
      return isAmd ? { ecx: packageCount > 1 ? ecx | ECX_CMP_LEGACY : ecx & ~ECX_CMP_LEGACY } : {};
    case 0x8000_0008:
      return isAmd ? { ecx: (ecx & ~0xf0ff) | (shifts.package << 12) | Math.min(packageCount - 1, 255) } : {};
    case 0x8000_001e: {
      // Extended APIC id; core and threads of one; node, which a die is, and nodes of a package.
      const { threads, dies } = topology;
      const node = place.package * dies + place.die;
      return isAmd
        ? { eax: apicId, ebx: ((threads - 1) << 8) | (coreId & 0xff), ecx: ((dies - 1) << 8) | (node & 0xff) }
        : {};
    }
    default:
      return {};
  }
}

/** EAX of a cache leaf: the first two levels belong to one core, further ones to the die. Both fields count ids. */
function cacheSharing(entry: CpuidEntry, shifts: CpuShifts): number {
  const level = (entry.eax >>> 5) & 7;
  const sharing = Math.min(2 ** (level >= 3 ? shifts.die : shifts.core), 4096) - 1;
  const cores = entry.function === 4 ? Math.min(2 ** (shifts.package - shifts.core) - 1, 63) : entry.eax >>> 26;
  return (entry.eax & 0x3fff) | (sharing << 14) | (cores << 26);
}

/**
 * Extended topology: threads, then cores, then the end. EAX is the shift to the next level's id, EBX how many
 * processors there are up to this level. Leaf 0xb knows no dies: all cores of the package are one level there. Leaf
 * 0x1f has them where there are several. Intel SDM vol. 2A, CPUID
 */
function topologyLevels(leaf: number, { apicId, topology, shifts, packageCount }: Place): CpuidEntry[] {
  const { threads, cores, dies } = topology;
  const levels = [
    { type: LEVEL_SMT, eax: shifts.core, ebx: threads },
    ...(leaf === 0x1f && dies > 1
      ? [
          { type: LEVEL_CORE, eax: shifts.die, ebx: threads * cores },
          { type: LEVEL_DIE, eax: shifts.package, ebx: packageCount },
        ]
      : [{ type: LEVEL_CORE, eax: shifts.package, ebx: packageCount }]),
    { type: 0, eax: 0, ebx: 0 },
  ];
  return levels.map(({ type, eax, ebx }, index) => ({
    function: leaf,
    index,
    flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
    eax,
    ebx,
    ecx: (type << 8) | index,
    edx: apicId,
  }));
}

/** Three leaves of 16 characters, padded with zeros, the last byte zero in any case. */
function withBrand(entries: readonly CpuidEntry[], brand: string): CpuidEntry[] {
  const bytes = new Uint8Array(48);
  new TextEncoder().encodeInto(brand, bytes.subarray(0, 47));
  const view = new DataView(bytes.buffer);
  const kept = entries.filter((entry) => !BRAND_LEAVES.includes(entry.function));
  const made = BRAND_LEAVES.map((leaf, i) => {
    const word = (at: number): number => view.getUint32(16 * i + at, true);
    return { function: leaf, index: 0, flags: 0, eax: word(0), ebx: word(4), ecx: word(8), edx: word(12) };
  });
  return [...kept, ...made];
}

/** Bit operators give signed results; entries are unsigned. */
function unsigned(entry: CpuidEntry): CpuidEntry {
  const { eax, ebx, ecx, edx } = entry;
  return { ...entry, eax: eax >>> 0, ebx: ebx >>> 0, ecx: ecx >>> 0, edx: edx >>> 0 };
}
