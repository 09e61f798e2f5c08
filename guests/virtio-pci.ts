import type { Assembler } from "./assembler.ts";
import { mem8, mem16, mem32 } from "./assembler-encoding.ts";
import { fail, fresh, SCRATCH } from "./program.ts";

/*
 * The part of a virtio-pci driver that finds a device and brings it up. It looks for the configuration space where the
 * machines under test have it. It gives the device addresses below 4 GiB, because a guest in 32-bit mode reaches no
 * others. What it found is left in memory.
 */

/** Where ECAM may be: QEMU's microvm, tsvmm, QEMU's q35. */
const ECAM_CANDIDATES = [0xe000_0000, 0xe800_0000, 0xb000_0000];
/** Where the BARs go: inside the 32-bit PCI windows of all three. */
const STRUCTURES = 0xc010_0000;
const MSIX = 0xc020_0000;

/** Variables: addresses of the structures, of the MSI-X table and of the MSI-X capability. */
export const COMMON: number = SCRATCH;
export const NOTIFY: number = SCRATCH + 4;
const MSIX_CAPABILITY: number = SCRATCH + 8;
export const MSIX_TABLE: number = SCRATCH + 12;

/** Offsets in virtio_pci_common_cfg. VIRTIO 1.2 §4.1.4.3 */
const C = {
  driver_feature_select: 0x08,
  driver_feature: 0x0c,
  config_msix_vector: 0x10,
  device_status: 0x14,
  queue_select: 0x16,
  queue_size: 0x18,
  queue_msix_vector: 0x1a,
  queue_enable: 0x1c,
  queue_desc: 0x20,
  queue_driver: 0x28,
  queue_device: 0x30,
} as const;

const CAP_ID_VENDOR = 0x09;
const CAP_ID_MSIX = 0x11;
const CFG_COMMON = 1;
const CFG_NOTIFY = 2;

/**
 * Finds the first device of that type on bus 0 and gives it addresses; the guest fails where there is none. All
 * registers are lost.
 */
export function findVirtio(a: Assembler, deviceType: number): void {
  const labels = { ecam: fresh("ecam"), none: fresh("none"), slot: fresh("slot"), found: fresh("found") };
  for (const base of ECAM_CANDIDATES) {
    const next = fresh("next");
    a.mov("esi", base).mov("eax", mem32("esi"));
    a.cmp("eax", -1).j("e", next).cmp("eax", 0).j("ne", labels.ecam).label(next);
  }
  a.label(labels.none);
  fail(a, "no such virtio device\n");
  a.label(labels.ecam).mov("ecx", 32).label(labels.slot).mov("eax", mem32("esi"));
  a.cmp("eax", 0x1040_1af4 + deviceType * 0x1_0000).j("e", labels.found);
  a.add("esi", 0x8000).dec("ecx").j("ne", labels.slot).jmp(labels.none);
  a.label(labels.found);
  a.mov(mem16("esi", 4), 0); // decode off while addresses change
  walkCapabilities(a);
  placeMsix(a);
  a.mov(mem16("esi", 4), 6); // memory, bus master
}

/** ESI: the function's configuration space. */
function walkCapabilities(a: Assembler): void {
  const labels = { next: fresh("cap"), done: fresh("done"), skip: fresh("skip"), vendor: fresh("vendor") };
  a.movzx("ebx", mem8("esi", 0x34));
  a.label(labels.next).cmp("ebx", 0).j("e", labels.done).mov("edi", "esi").add("edi", "ebx");
  a.mov("al", mem8("edi")).cmp("al", CAP_ID_VENDOR).j("e", labels.vendor).cmp("al", CAP_ID_MSIX).j("ne", labels.skip);
  a.mov(mem32(MSIX_CAPABILITY), "edi").jmp(labels.skip);
  a.label(labels.vendor);
  for (const [kind, variable] of [
    [CFG_COMMON, COMMON],
    [CFG_NOTIFY, NOTIFY],
  ] as const) {
    const other = fresh("other");
    a.mov("al", mem8("edi", 3)).cmp("al", kind).j("ne", other);
    a.mov("eax", mem32("edi", 8)).add("eax", STRUCTURES).mov(mem32(variable), "eax");
    a.movzx("eax", mem8("edi", 4)).shl("eax", 2).add("eax", "esi");
    a.mov(mem32("eax", 0x10), STRUCTURES).mov(mem32("eax", 0x14), 0);
    a.label(other);
  }
  a.label(labels.skip).movzx("ebx", mem8("edi", 1)).jmp(labels.next).label(labels.done);
}

/** The MSI-X table is in the structures' BAR or in one of its own. */
function placeMsix(a: Assembler): void {
  const labels = { own: fresh("own"), done: fresh("done") };
  a.mov("edi", mem32(MSIX_CAPABILITY)).mov("eax", mem32("edi", 4)).mov("ebx", "eax").and("ebx", 7).and("eax", -8);
  a.shl("ebx", 2).add("ebx", "esi").mov("ecx", mem32("ebx", 0x10)).and("ecx", -16);
  a.cmp("ecx", STRUCTURES).j("ne", labels.own).add("eax", STRUCTURES).jmp(labels.done);
  a.label(labels.own).mov(mem32("ebx", 0x10), MSIX).add("eax", MSIX);
  a.label(labels.done).mov(mem32(MSIX_TABLE), "eax");
}

/** Enables MSI-X with entry 0 as `vector` of the local APIC 0; EAX and EBX are lost. */
export function enableMsix(a: Assembler, vector: number): void {
  a.mov("ebx", mem32(MSIX_TABLE)).mov(mem32("ebx"), 0xfee0_0000).mov(mem32("ebx", 4), 0).mov(mem32("ebx", 8), vector);
  a.mov(mem32("ebx", 12), 0).mov("ebx", mem32(MSIX_CAPABILITY)).mov(mem16("ebx", 2), 0x8000);
}

/** A queue's three parts, which must be below 4 GiB. */
export interface QueuePlace {
  readonly size: number;
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  /** MSI-X entry; 0xffff for none. */
  readonly vector: number;
}

/**
 * Resets the device, accepts `features` of the low 32 (and VERSION_1), sets one queue up and starts it; EDI is lost.
 * VIRTIO 1.2 §3.1.1
 */
export function startVirtio(a: Assembler, features: number, queue: QueuePlace, index = 0): void {
  const status = (value: number): void => void a.mov(mem8("edi", C.device_status), value);
  a.mov("edi", mem32(COMMON));
  status(0);
  status(1); // ACKNOWLEDGE
  status(3); // DRIVER
  a.mov(mem32("edi", C.driver_feature_select), 0).mov(mem32("edi", C.driver_feature), features);
  a.mov(mem32("edi", C.driver_feature_select), 1).mov(mem32("edi", C.driver_feature), 1);
  status(0x0b); // FEATURES_OK
  a.mov(mem16("edi", C.config_msix_vector), 0xffff).mov(mem16("edi", C.queue_select), index);
  a.mov(mem16("edi", C.queue_size), queue.size).mov(mem16("edi", C.queue_msix_vector), queue.vector);
  for (const [offset, address] of [
    [C.queue_desc, queue.descriptors],
    [C.queue_driver, queue.available],
    [C.queue_device, queue.used],
  ] as const) {
    a.mov(mem32("edi", offset), address).mov(mem32("edi", offset + 4), 0);
  }
  a.mov(mem16("edi", C.queue_enable), 1);
  status(0x0f); // DRIVER_OK
}

/** Rings queue 0's doorbell; EAX is lost. Its notification offset is 0 in all machines under test. */
export const notifyQueue = (a: Assembler): Assembler => a.mov("eax", mem32(NOTIFY)).mov(mem16("eax"), 0);
