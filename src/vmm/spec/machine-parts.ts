import { SpecError } from "../../base/errors.ts";
import { GIB, MIB } from "../../base/units.ts";
import { checkCpus } from "./cpus.ts";
import type { SpecOf } from "./fields/field.ts";
import type { ObjectPart } from "./kinds/kind.ts";

const FIELDS = {
  kernel: {
    type: "path",
    leadsTo: "image",
    isRequired: true,
    ifMissing: "no kernel is given",
    help: "ELF vmlinux with a PVH note, bzImage, or multiboot kernel",
  },
  initramfs: { type: "path", leadsTo: "image", help: "initial RAM disk; the first module of a multiboot kernel" },
  cmdline: { type: "text", default: "", help: "kernel command line" },
  /** Port whose writes end the machine with status `(value << 1) | 1`. */
  debugExitPort: {
    type: "integer",
    least: 0,
    most: 0xffff,
    help: "I/O port whose writes end the machine with status value * 2 + 1",
  },
  /** The ports and the memory of QEMU's pc-testdev. */
  hasTestDevice: { type: "boolean", default: false, help: "ports and memory of QEMU's pc-testdev" },
  /** What a guest reset does: `false` ends the machine. */
  allowReboot: { type: "boolean", default: true, help: "whether a guest that resets itself starts anew" },
  /** How long the device thread polls before it sleeps, in microseconds; absent for adaptive. */
  pollMicroseconds: {
    type: "integer",
    least: 0,
    most: 1_000_000,
    help: "how long the device thread polls before it sleeps; adaptive when absent",
  },
} as const;

/** Fields of a machine that belong to no part. */
export const MACHINE_FIELDS: typeof FIELDS = FIELDS;

const CPU_FIELDS = {
  count: {
    type: "integer",
    least: 1,
    most: 254, // xAPIC ids are one byte: 255 means all, and the I/O APIC has one
    default: 1,
    key: "boot",
    value: "N",
    help: "how many there are at the start",
  },
  /** One package of cores with one thread each when absent. */
  topology: {
    type: "text",
    pattern: "[1-9]\\d{0,2}(:[1-9]\\d{0,2}){3}",
    isNot: "of the form threads:cores:dies:packages",
    key: "topology",
    value: "T:C:D:P",
    help: "threads of a core, cores of a die, dies of a package, packages",
  },
  /** Threads run anywhere when absent. */
  affinity: {
    type: "text",
    pattern: "\\[?\\d{1,3}@\\[[\\d,-]+\\](,\\d{1,3}@\\[[\\d,-]+\\])*\\]?",
    isNot: "of the form [0@[1,2],1@[3-5]]",
    key: "affinity",
    value: "[N@[CPU,CPU-CPU]]",
    help: "host CPUs that the thread of a virtual CPU runs on",
  },
} as const;

export const CPUS: ObjectPart<"cpus", typeof CPU_FIELDS> = {
  part: "cpus",
  shape: "object",
  option: "--cpus",
  group: "Machine",
  help: "number of virtual CPUs; default: 1",
  fields: CPU_FIELDS,
  check: checkCpus,
};

const MEMORY_FIELDS = {
  sizeBytes: {
    type: "bytes",
    least: 16_777_216,
    most: 35_184_372_088_832, // 2^45: half of the 46 address bits that large x86 hosts have; the rest is for BARs
    multipleOf: 4096,
    tooFew: "a machine has 16M at least",
    tooMany: "a machine has 32T at most",
    unit: "the page size, 4K",
    default: 536_870_912,
    key: "size",
    value: "SIZE",
    help: "K, M, G and T are powers of 1024",
  },
  hugepages: {
    type: "boolean",
    default: false,
    key: "hugepages",
    value: "on|off",
    help: "take huge pages, which the host must have reserved",
  },
  /** 2 MiB when absent. */
  hugepageSize: {
    type: "choice",
    choices: ["2M", "1G"],
    key: "hugepage_size",
    value: "2M|1G",
    help: "size of those pages; default: 2M",
  },
  /** Touches every page before start. */
  prefault: {
    type: "boolean",
    default: false,
    key: "prefault",
    value: "on|off",
    help: "touch every page before the start",
  },
  /** MAP_SHARED on the memfd. RAM is always a shared memfd mapping; `false` is accepted and means the same. */
  shared: {
    type: "boolean",
    default: true,
    key: "shared",
    value: "on|off",
    help: "accepted for compatibility: memory is always shared",
  },
} as const;

/** Guest RAM. */
export interface MemorySpec extends SpecOf<typeof MEMORY_FIELDS> {}

/** Bytes of the huge pages that RAM is made of; `undefined` for ordinary pages. */
export function hugepageBytesOf({
  hugepages,
  hugepageSize,
}: Pick<MemorySpec, "hugepages" | "hugepageSize">): number | undefined {
  if (!hugepages) return undefined;
  return hugepageSize === "1G" ? GIB : 2 * MIB;
}

export const MEMORY: ObjectPart<"memory", typeof MEMORY_FIELDS> = {
  part: "memory",
  shape: "object",
  option: "--memory",
  group: "Machine",
  help: "guest RAM; default: 512M",
  fields: MEMORY_FIELDS,
  check(where, memory) {
    const { sizeBytes, hugepageSize } = memory;
    const pageBytes = hugepageBytesOf(memory);
    if (pageBytes === undefined && hugepageSize !== undefined) {
      throw new SpecError(
        "TSVMM_VALUE_INVALID",
        `${where}.hugepageSize`,
        `huge pages of ${hugepageSize} are not asked for: hugepages=on`,
      );
    }
    if (pageBytes === undefined || sizeBytes % pageBytes === 0) return;
    const size = hugepageSize ?? "2M";
    throw new SpecError(
      "TSVMM_VALUE_INVALID",
      `${where}.sizeBytes`,
      `${sizeBytes} bytes are not a multiple of the huge page size, ${size}`,
    );
  },
};

const PLATFORM_FIELDS = {
  /** `false`: no device's memory is mapped for the others, unless the device says so itself. */
  vfioP2pDma: {
    type: "boolean",
    default: true,
    key: "vfio_p2p_dma",
    value: "on|off",
    help: "whether passed-through devices reach each other's memory by DMA",
  },
} as const;

export const PLATFORM: ObjectPart<"platform", typeof PLATFORM_FIELDS> = {
  part: "platform",
  shape: "object",
  option: "--platform",
  group: "Machine",
  help: "what concerns all devices",
  fields: PLATFORM_FIELDS,
};
