import { SpecError } from "../base/errors.ts";
import type { FileSegment, ImageFile, LoadPlan } from "../base/load-plan.ts";
import { alignUp, gpa, hex, MIB, TWO_POW_32 } from "../base/units.ts";
import { type BootRequest, commandLineBytes } from "./boot-request.ts";
import { bytesOf, getU64, readImage, readStart, truncated } from "./bytes.ts";
import { placeInitramfs } from "./initramfs.ts";
import { COMMAND_LINE_ADDRESS, GDT_ADDRESS, ZERO_PAGE_ADDRESS } from "./layout.ts";
import { SETUP_HEADER, zeroPage } from "./linux-params.ts";
import { Placement } from "./placement.ts";
import { flatProtectedMode, LINUX_SELECTORS } from "./start-state.ts";

const HDRS = 0x5372_6448; // "HdrS"
const BOOT_FLAG = 0xaa55;
const SECTOR = 512;
const LOADED_HIGH = 0x01;
/** Kernel, command line and initramfs may lie anywhere, above 4 GiB too. xloadflags, protocol 2.12 */
const XLF_CAN_BE_LOADED_ABOVE_4G = 0x02;
/** Enough for every header: it ends below 0x290. */
const SETUP_BYTES = 0x290;

/** True for a Linux bzImage (or another program that takes its protocol, as memtest86+ does). */
export function isBzImage(file: ImageFile): boolean {
  const start = readStart(file, SETUP_HEADER.version);
  return (
    start.byteLength === SETUP_HEADER.version &&
    start.getUint16(SETUP_HEADER.boot_flag, true) === BOOT_FLAG &&
    start.getUint32(SETUP_HEADER.header, true) === HDRS
  );
}

/** The setup header's fields that steer the loading, with what older versions of the protocol imply. */
interface SetupHeader {
  readonly version: number;
  readonly setupBytes: number;
  readonly codeBytes: number;
  readonly codeAddress: number;
  readonly cmdlineLimit: number;
  /** Highest addresses an initramfs may reach, plus 1: the first is what the kernel asks for, others it takes too. */
  readonly initramfsLimits: readonly number[];
  /** Where the kernel unpacks itself; a size of 0 where it does not say. */
  readonly runtimeAddress: number;
  readonly initBytes: number;
}

function readHeader(file: ImageFile, setup: DataView): SetupHeader {
  const version = setup.getUint16(SETUP_HEADER.version, true);
  if (version < 0x0200 || (setup.getUint8(SETUP_HEADER.loadflags) & LOADED_HIGH) === 0) {
    throw new SpecError(
      "TSVMM_KERNEL_UNSUPPORTED",
      "kernel",
      `${file.name} is a zImage, which loads below 1 MiB: a bzImage is needed`,
    );
  }
  const sectors = setup.getUint8(SETUP_HEADER.setup_sects);
  const setupBytes = ((sectors === 0 ? 4 : sectors) + 1) * SECTOR;
  // syssize counts 16-byte paragraphs; it is 16 bits wide before 2.04.
  const paragraphs =
    version >= 0x0204 ? setup.getUint32(SETUP_HEADER.syssize, true) : setup.getUint16(SETUP_HEADER.syssize, true);
  // A paragraph less: its last one need not be full.
  if (setupBytes + (paragraphs - 1) * 16 >= file.sizeBytes || setupBytes >= file.sizeBytes) {
    throw truncated(file, "protected-mode part", setupBytes, paragraphs * 16);
  }
  const codeAddress = setup.getUint32(SETUP_HEADER.code32_start, true);
  const isBoundless =
    version >= 0x020c && (setup.getUint16(SETUP_HEADER.xloadflags, true) & XLF_CAN_BE_LOADED_ABOVE_4G) !== 0;
  const initramfsLimit = (version >= 0x0203 ? setup.getUint32(SETUP_HEADER.initrd_addr_max, true) : 0x37ff_ffff) + 1;
  return {
    version,
    setupBytes,
    codeBytes: file.sizeBytes - setupBytes,
    codeAddress,
    cmdlineLimit: version >= 0x0206 ? setup.getUint32(SETUP_HEADER.cmdline_size, true) : 255,
    initramfsLimits: isBoundless ? [initramfsLimit, TWO_POW_32, Number.POSITIVE_INFINITY] : [initramfsLimit],
    runtimeAddress: version >= 0x020a ? runtimeAddress(setup, codeAddress) : codeAddress,
    initBytes: version >= 0x020a ? setup.getUint32(SETUP_HEADER.init_size, true) : 0,
  };
}

/**
 * Where a kernel unpacks itself: at its preferred address. A relocatable kernel that was loaded higher unpacks where it
 * was loaded, aligned. Linux x86 boot protocol, init_size; arch/x86/boot/compressed/head_64.S
 */
function runtimeAddress(setup: DataView, codeAddress: number): number {
  const preferred = getU64(setup, SETUP_HEADER.pref_address) ?? 0;
  if (setup.getUint8(SETUP_HEADER.relocatable_kernel) === 0) return preferred;
  const alignment = Math.max(1, setup.getUint32(SETUP_HEADER.kernel_alignment, true));
  return Math.max(preferred, alignUp(codeAddress, alignment));
}

/**
 * Everything from where the kernel is loaded to the end of where it unpacks itself belongs to it, whichever is lower.
 */
function claimKernel(placement: Placement, name: string, header: SetupHeader): void {
  const { codeAddress, codeBytes, runtimeAddress, initBytes } = header;
  const start = initBytes === 0 ? codeAddress : Math.min(codeAddress, runtimeAddress);
  const end = Math.max(codeAddress + codeBytes, initBytes === 0 ? 0 : runtimeAddress + initBytes);
  placement.claim("kernel", `${name}, which unpacks itself there,`, start, end - start);
}

/**
 * Plans a direct boot of a bzImage by its 32-bit entry point: the protected-mode part at 1 MiB, esi at the zero page.
 * Linux x86 boot protocol, "32-bit Boot Protocol"
 *
 * @throws SpecError
 */
export function planBzImage(request: BootRequest): LoadPlan {
  const { kernel } = request;
  const setup = readImage(kernel, 0, SETUP_BYTES, "setup header");
  const header = readHeader(kernel, setup);
  if (header.codeAddress < MIB) {
    throw new SpecError(
      "TSVMM_KERNEL_DAMAGED",
      "kernel",
      `${kernel.name} is damaged: code32_start is ${hex(header.codeAddress)}`,
    );
  }
  const cmdline = commandLineBytes(request.cmdline, header.cmdlineLimit);
  const { start, gdt } = flatProtectedMode(LINUX_SELECTORS, { rsi: ZERO_PAGE_ADDRESS, rip: header.codeAddress });

  const placement = new Placement(request.ramRegions, request.memoryMap);
  placement.claim("memory.sizeBytes", "the boot GDT", GDT_ADDRESS, gdt.byteLength);
  placement.claim("memory.sizeBytes", "the zero page", ZERO_PAGE_ADDRESS, 4096);
  placement.claim("memory.sizeBytes", "the command line", COMMAND_LINE_ADDRESS, cmdline.length);
  claimKernel(placement, kernel.name, header);
  const initramfs = placeInitramfs(request.initramfs, placement, header.initramfsLimits);

  const page = zeroPage({
    setup,
    memoryMap: request.memoryMap,
    rsdp: request.rsdp,
    codeAddress: header.codeAddress,
    initramfs,
  });
  const code: FileSegment = {
    file: kernel,
    fileOffset: header.setupBytes,
    sizeBytes: header.codeBytes,
    address: gpa(header.codeAddress),
    memoryBytes: header.codeBytes,
  };
  return {
    protocol: `Linux boot protocol ${header.version >> 8}.${header.version & 0xff}`,
    segments: initramfs === undefined ? [code] : [code, initramfs],
    writes: [
      { name: "boot GDT", address: GDT_ADDRESS, bytes: bytesOf(gdt) },
      { name: "zero page", address: ZERO_PAGE_ADDRESS, bytes: bytesOf(page) },
      { name: "command line", address: COMMAND_LINE_ADDRESS, bytes: cmdline },
    ],
    start,
  };
}
