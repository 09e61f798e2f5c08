import t from "tap";
import { type BzImageOptions, bzImage, elf64, imageFile, pvhNote } from "../../../guests/kernel-images.ts";
import type { ImageFile, LoadPlan } from "../../../src/base/load-plan.ts";
import { gpa } from "../../../src/base/units.ts";
import { planBoot } from "../../../src/boot/plan-boot.ts";
import { layoutMemory } from "../../../src/vmm/control/memory-layout.ts";
import { writtenAt } from "../../support/boot-request.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const XLOADFLAGS = 0x236;
const CAN_BE_LOADED_ABOVE_4G = 2;

/** A file of a size, whose bytes are not read. */
const large = (sizeBytes: number): ImageFile => ({ name: "big.cpio", sizeBytes, read: () => new Uint8Array(0) });

function plan(kernel: Uint8Array, initramfsBytes: number, memoryGib: number): LoadPlan {
  const { ram, map } = layoutMemory(memoryGib * GIB, { bits: 46, isAmd: false });
  return planBoot({
    kernel: imageFile("kernel", kernel),
    initramfs: large(initramfsBytes),
    cmdline: "",
    ramRegions: ram,
    memoryMap: map,
    rsdp: gpa(0xe_0000),
  });
}

/** A bzImage of a kernel for x86-64 since Linux 3.8. */
const modern = (options: BzImageOptions = {}): Uint8Array =>
  bzImage({ initrdAddrMax: 0x7fff_ffff, ...options }).u16(XLOADFLAGS, CAN_BE_LOADED_ABOVE_4G).bytes;
const older = (): Uint8Array => bzImage({ initrdAddrMax: 0x7fff_ffff }).u16(XLOADFLAGS, 0).bytes;

/** ramdisk_image and ramdisk_size of the zero page, with their upper halves. asm/bootparam.h */
function ramdisk(made: LoadPlan): { readonly address: number; readonly sizeBytes: number } {
  const page = writtenAt(made, 0x7000);
  const read = (low: number, high: number): number => page.getUint32(high, true) * 2 ** 32 + page.getUint32(low, true);
  return { address: read(0x218, 0xc0), sizeBytes: read(0x21c, 0xc4) };
}

t.test("planBoot() puts an initramfs where the kernel asks for it, while there is room", async (t) => {
  for (const kernel of [modern(), older()]) {
    const made = plan(kernel, 100 * MIB, 16);
    t.equal(made.segments[1]?.address, 2 * GIB - 100 * MIB);
    t.same(ramdisk(made), { address: 2 * GIB - 100 * MIB, sizeBytes: 100 * MIB });
  }
});

t.test("planBoot() puts one of more than 2 GiB below 4 GiB, where xloadflags allow", async (t) => {
  const made = plan(modern(), 2200 * MIB, 16);
  t.same(ramdisk(made), { address: 3 * GIB - 2200 * MIB, sizeBytes: 2200 * MIB });
});

t.test("planBoot() puts one of more than 3 GiB above 4 GiB, where xloadflags allow", async (t) => {
  const made = plan(modern(), 5 * GIB, 16);
  t.same(ramdisk(made), { address: 12 * GIB, sizeBytes: 5 * GIB }, "RAM ends at 17 GiB");
  t.equal(made.segments[1]?.memoryBytes, 5 * GIB);
});

t.test("planBoot() advises what helps where a large initramfs does not fit", async (t) => {
  const refusal = (kernel: Uint8Array, initramfsBytes: number, memoryGib: number): string => {
    try {
      plan(kernel, initramfsBytes, memoryGib);
      return "accepted";
    } catch (error) {
      return String(error);
    }
  };
  const compress = /does not fit beside the kernel below 0x80000000; compress it, as this kernel takes none above that/;
  t.match(refusal(older(), 2200 * MIB, 16), compress, "more memory comes above the kernel's limit");
  t.match(refusal(older(), 2200 * MIB, 1), compress, "no memory would be enough");
  t.match(refusal(older(), 1500 * MIB, 1), /below 0x80000000; raise --memory$/);
  t.match(refusal(modern(), 5 * GIB, 4), /\(5120 MiB\) does not fit beside the kernel; raise --memory$/);
  const code = new Uint8Array(0x1000);
  const pvh = elf64([
    { paddr: 0x100_0000, bytes: code },
    { type: 4, paddr: 0x100_0000, bytes: pvhNote(0x100_0000) },
  ]).bytes;
  t.match(refusal(pvh, 3200 * MIB, 16), /below 0x100000000; compress it/);
  t.match(refusal(pvh, 1500 * MIB, 1), /below 0x100000000; raise --memory$/);
});

t.test("planBoot() reads no xloadflags of a protocol that has none", async (t) => {
  t.throws(() => plan(modern({ version: 0x020b }), 2200 * MIB, 16), /below 0x80000000; compress it/);
});
