import type { Cause } from "../../base/errors.ts";
import type { RamRegion } from "../../base/guest-memory.ts";
import { allOrNothing } from "../../base/undo-stack.ts";
import { type Fd, fd, GIB, hex, KIB, MIB, PAGE_SIZE, sizeText } from "../../base/units.ts";
import { FCNTL, MMAN } from "../constants.ts";
import { type CausesByErrno, check } from "../errors.ts";
import { libc } from "../libc.ts";
import { hugePages } from "../limits.ts";
import { HostMapping } from "./mapping.ts";
import { prefault } from "./prefault.ts";

/** What to make guest RAM of. */
export interface GuestRamOptions {
  /**
   * The guest-physical map, without overlaps; together the regions say how large the file is. All in multiples of the
   * page size.
   */
  readonly regions: readonly RamRegion[];
  /**
   * 2 MiB or 1 GiB: pages of this size from the host's pool instead of ordinary ones. Sizes and file offsets are
   * multiples of it then.
   */
  readonly hugepageBytes?: number;
  /** Touches every page now instead of at first use. */
  readonly prefault?: boolean;
}

const HUGE_PAGE_SIZE: number = 2 * MIB;

/**
 * vfio-user servers get the file's descriptor. One that cut it short would turn our next load or store into SIGBUS.
 * memfd_create(2)
 */
const SIZE_SEALS: number = FCNTL.F_SEAL_SHRINK | FCNTL.F_SEAL_GROW | FCNTL.F_SEAL_SEAL;

/**
 * Makes the RAM file, whose size is sealed, and maps it whole. The caller owns both.
 *
 * @throws SyscallError with advice, for example when the host has too few huge pages; RangeError for regions that
 *   cannot be.
 */
export function makeRamFile(options: GuestRamOptions): { readonly file: Fd; readonly mapping: HostMapping } {
  const { hugepageBytes } = options;
  checkRegions(options.regions, hugepageBytes ?? PAGE_SIZE);
  const sizeBytes = ramFileSize(options.regions);
  const action = `make ${sizeBytes / MIB} MiB of guest RAM`;
  const pages = hugepageBytes === GIB ? MMAN.MFD_HUGE_1GB : MMAN.MFD_HUGE_2MB;
  const kind = hugepageBytes === undefined ? 0 : MMAN.MFD_HUGETLB | pages;
  const tooLittle: Cause =
    hugepageBytes === undefined
      ? ["TSVMM_NO_MEMORY", "the host has too little free memory"]
      : ["TSVMM_NO_HUGE_PAGES", hugePageAdvice(sizeBytes, hugepageBytes)];
  const causes: CausesByErrno = {
    otherwise: "TSVMM_NO_MEMORY",
    ENOMEM: tooLittle,
    ENOSPC: tooLittle,
    ENODEV: ["TSVMM_NO_HUGE_PAGES", `this kernel has no ${sizeText(hugepageBytes ?? PAGE_SIZE)} huge pages`],
    EFBIG: [
      "TSVMM_NO_MEMORY",
      "RAM is a file to the kernel, and the limit of file sizes is lower: ulimit -f unlimited",
    ],
  };
  const flags = MMAN.MFD_CLOEXEC | MMAN.MFD_ALLOW_SEALING | kind;
  return allOrNothing((undo) => {
    const file = undo.own(fd(check(libc.memfdCreate("tsvmm-ram", flags), action, "memfd_create", causes)), libc.close);
    check(libc.ftruncate(file, sizeBytes), action, "ftruncate", causes);
    check(libc.fcntl(file, FCNTL.F_ADD_SEALS, SIZE_SEALS), action, "fcntl F_ADD_SEALS", "TSVMM_HOST_CALL");
    // Guest and host addresses agree within a huge page, so that the kernel can map both in one piece.
    const alignment = sizeBytes >= GIB ? GIB : HUGE_PAGE_SIZE;
    const reserve = hugepageBytes !== undefined ? 0 : MMAN.MAP_NORESERVE;
    const placed = { alignment, flags: reserve, causes };
    const mapping = undo.own(HostMapping.ofFile("guest RAM", file, 0, sizeBytes, placed));
    // Wishes: a kernel that cannot fulfil one refuses, which is no harm.
    if (hugepageBytes === undefined) libc.madvise(mapping.address, sizeBytes, MMAN.MADV_HUGEPAGE);
    libc.madvise(mapping.address, sizeBytes, MMAN.MADV_DONTDUMP);
    if (options.prefault === true) prefault(mapping);
    return { file, mapping };
  });
}

/** Where the last region ends in the RAM file. */
export function ramFileSize(regions: readonly RamRegion[]): number {
  return regions.reduce((end, region) => Math.max(end, region.fileOffset + region.sizeBytes), 0);
}

/** @throws RangeError when a region is empty or not aligned, or two share an address or a byte of the file. */
export function checkRegions(regions: readonly RamRegion[], alignment: number = PAGE_SIZE): void {
  if (regions.length === 0) throw new RangeError("Cannot make guest RAM: no region is given");
  for (const [index, region] of regions.entries()) {
    const place = `region ${hex(region.gpa)}+${hex(region.sizeBytes)} at file offset ${hex(region.fileOffset)}`;
    if (!(region.sizeBytes > 0)) throw new RangeError(`Cannot make guest RAM: ${place} is empty`);
    if (region.gpa % PAGE_SIZE !== 0 || region.sizeBytes % alignment !== 0 || region.fileOffset % alignment !== 0) {
      throw new RangeError(`Cannot make guest RAM: ${place} is not a multiple of ${hex(alignment)}`);
    }
    for (const other of regions.slice(0, index)) {
      const sharesAddress = overlaps(region.gpa, region.sizeBytes, other.gpa, other.sizeBytes);
      const sharesFile = overlaps(region.fileOffset, region.sizeBytes, other.fileOffset, other.sizeBytes);
      if (sharesAddress || sharesFile) {
        throw new RangeError(`Cannot make guest RAM: ${place} overlaps the region at ${hex(other.gpa)}`);
      }
    }
  }
}

const overlaps = (a: number, aSize: number, b: number, bSize: number): boolean => a < b + bSize && b < a + aSize;

/** How many huge pages RAM of this size takes and how many there are, with the command that makes up the difference. */
export function hugePageAdvice(sizeBytes: number, pageBytes: number): string {
  const pool = hugePages(pageBytes);
  const needed = Math.ceil(sizeBytes / pageBytes);
  const total = pool.totalCount - pool.freeCount + needed;
  const size = sizeText(pageBytes);
  const found = `${needed} huge pages of ${size} are needed and ${pool.freeCount} of ${pool.totalCount} are free`;
  // Whole gigabytes are seldom free once the host has run for a while.
  const early = pageBytes === GIB ? `, or start the host with hugepagesz=1G hugepages=${total}` : "";
  return `${found}: echo ${total} > /sys/kernel/mm/hugepages/hugepages-${pageBytes / KIB}kB/nr_hugepages${early}`;
}
