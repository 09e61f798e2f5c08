import t from "tap";
import { type ByteBuilder, type BzImageOptions, bzImage, imageFile } from "../../../guests/kernel-images.ts";
import { gpa } from "../../../src/base/units.ts";
import { planBoot } from "../../../src/boot/plan-boot.ts";
import { bootRequest, textAt, writtenAt } from "../../support/boot-request.ts";

const kernel = (options: BzImageOptions = {}) => imageFile("bzImage", bzImage(options).bytes);

t.test("planBoot() enters a bzImage at its 32-bit entry point with esi at the zero page", async (t) => {
  const plan = planBoot(bootRequest(kernel()));
  t.equal(plan.protocol, "Linux boot protocol 2.15");
  t.same(plan.start.registers, { rflags: 2, rsi: 0x7000, rip: 0x10_0000 });
  t.equal(plan.start.cr0, 1);
  t.match(plan.start.cs, { selector: 0x10, base: 0, limit: 0xffff_ffff, type: 0xb, db: 1 });
  t.match(plan.start.data, { selector: 0x18, type: 3 });
  const gdt = writtenAt(plan, 0x500);
  t.equal(gdt.getBigUint64(0x10, true), 0x00cf_9b00_0000_ffffn, "__BOOT_CS");
  t.equal(gdt.getBigUint64(0x18, true), 0x00cf_9300_0000_ffffn, "__BOOT_DS");
});

t.test("planBoot() loads the protected-mode part of a bzImage, which follows setup_sects + 1 sectors", async (t) => {
  t.match(planBoot(bootRequest(kernel())).segments, [
    { fileOffset: 2048, sizeBytes: 0x1000, address: 0x10_0000, memoryBytes: 0x1000 },
  ]);
  t.equal(planBoot(bootRequest(kernel({ setupSects: 0 }))).segments[0]?.fileOffset, 5 * 512, "0 means 4");
});

t.test("planBoot() fills the zero page: header, loader fields, e820, ACPI root pointer", async (t) => {
  const initramfs = imageFile("initrd", new Uint8Array(5000));
  const plan = planBoot(bootRequest(kernel(), { initramfs, cmdline: "quiet" }));
  const page = writtenAt(plan, 0x7000);
  t.equal(page.byteLength, 4096);
  t.equal(page.getUint32(0x202, true), 0x5372_6448, "HdrS");
  t.equal(page.getUint16(0x206, true), 0x020f);
  t.equal(page.getUint8(0x210), 0xff, "type_of_loader");
  t.equal(page.getUint8(0x211), 1, "loadflags");
  t.equal(page.getUint32(0x214, true), 0x10_0000, "code32_start");
  t.equal(page.getUint32(0x218, true), 0x3ff_e000, "ramdisk_image");
  t.equal(page.getUint32(0x21c, true), 5000, "ramdisk_size");
  t.equal(page.getUint32(0x228, true), 0x2_0000, "cmd_line_ptr");
  t.equal(page.getUint32(0x268, true), 0x1234_5678, "the header's last field");
  t.equal(page.getUint32(0x26c, true), 0, "nothing behind the header is copied");
  t.equal(page.getUint8(0x1ef), 0, "sentinel");
  t.equal(page.getBigUint64(0x70, true), 0xe_0000n, "acpi_rsdp_addr");
  t.equal(page.getUint8(0x1e8), 4, "e820_entries");
  t.equal(page.getBigUint64(0x2d0 + 20, true), 0xe_0000n);
  t.equal(page.getBigUint64(0x2d0 + 28, true), 0x2_0000n);
  t.equal(page.getUint32(0x2d0 + 36, true), 3, "ACPI memory");
  t.equal(page.getUint32(0x2d0 + 3 * 20 + 16, true), 2, "reserved memory");
  t.equal(textAt(plan, 0x2_0000), "quiet");
});

t.test("planBoot() keeps the initramfs below initrd_addr_max and above the kernel's own memory", async (t) => {
  const initramfs = imageFile("initrd", new Uint8Array(0x1000));
  const low = planBoot(bootRequest(kernel({ initrdAddrMax: 0x2ff_ffff }), { initramfs }));
  t.equal(low.segments[1]?.address, 0x2ff_f000);
  const old = planBoot(bootRequest(kernel({ version: 0x0202 }), { initramfs, memoryMib: 2048 }));
  t.equal(old.segments[1]?.address, 0x37ff_f000, "protocol 2.02 has a fixed limit");
  t.throws(
    () =>
      planBoot(
        bootRequest(kernel({ initSize: 0x2f0_0000 }), { initramfs: imageFile("initrd", new Uint8Array(0x10_1000)) }),
      ),
    { path: "initramfs", message: /^initramfs: initrd \(2 MiB\) does not fit beside the kernel/ },
  );
  t.throws(() => planBoot(bootRequest(kernel(), { initramfs: imageFile("initrd", new Uint8Array(0)) })), {
    message: "initramfs: initrd is empty",
  });
});

t.test("planBoot() keeps the initramfs away from where a bzImage unpacks itself, below its code too", async (t) => {
  const low = { code32Start: 0x100_0000, prefAddress: 0x20_0000, initSize: 0x200_0000, initrdAddrMax: 0xff_ffff };
  const initramfs = imageFile("initrd", new Uint8Array(1));
  const placed = (kernel: ByteBuilder): number | undefined =>
    planBoot(bootRequest(imageFile("bzImage", kernel.bytes), { initramfs })).segments[1]?.address;
  t.equal(placed(bzImage(low)), 0x1f_f000, "it moves to pref_address first");
  const relocatable = bzImage(low).u32(0x230, 0x20_0000).u8(0x234, 1);
  t.equal(placed(relocatable), 0xff_f000, "it stays where it was loaded");
  const unaligned = bzImage({ ...low, code32Start: 0x110_0000, initSize: 0x80_0000, initrdAddrMax: 0x1a0_0000 });
  unaligned.u32(0x230, 0x100_0000).u8(0x234, 1);
  const request = bootRequest(imageFile("bzImage", unaligned.bytes), { memoryMib: 48, initramfs });
  t.equal(planBoot(request).segments[1]?.address, 0x10f_f000, "it moves up to its alignment, to 0x2000000");
});

t.test("planBoot() refuses a bzImage that has no room to unpack itself", async (t) => {
  t.throws(() => planBoot(bootRequest(kernel({ initSize: 0x400_0000 }))), {
    path: "kernel",
    message: /bzImage, which unpacks itself there, does not fit into memory at 0x100000\+.*give the guest more memory/,
  });
  t.throws(() => planBoot(bootRequest(kernel({ codeBytes: 0x11_0000 }), { memoryMib: 2 })), {
    path: "kernel",
    message: /at 0x100000\+0x1000000: RAM is at 0x0-0x9ffff, 0x100000-0x1fffff/,
  });
});

t.test("planBoot() refuses a truncated bzImage", async (t) => {
  for (const sizeBytes of [0x210, 0x400, 2048, 2048 + 0xff0]) {
    const cut = imageFile("bzImage", bzImage().bytes.slice(0, sizeBytes));
    t.throws(
      () => planBoot(bootRequest(cut)),
      { path: "kernel", message: /bzImage is truncated/ },
      `${sizeBytes} bytes`,
    );
  }
});

t.test("planBoot() refuses a zImage and a header with an impossible load address", async (t) => {
  t.throws(() => planBoot(bootRequest(kernel({ loadflags: 0 }))), { message: /is a zImage/ });
  t.throws(() => planBoot(bootRequest(kernel({ code32Start: 0x1000 }))), { message: /code32_start is 0x1000/ });
});

t.test("planBoot() refuses a command line longer than cmdline_size, 255 for old protocols", async (t) => {
  t.throws(() => planBoot(bootRequest(kernel({ cmdlineSize: 100 }), { cmdline: "x".repeat(101) })), {
    message: "cmdline: is 101 bytes long: this kernel takes 100",
  });
  t.throws(() => planBoot(bootRequest(kernel({ version: 0x0205 }), { cmdline: "x".repeat(256) })), {
    path: "cmdline",
    message: /256 bytes long: this kernel takes 255/,
  });
});

t.test("planBoot() refuses a memory map with more entries than the zero page takes", async (t) => {
  const memoryMap = Array.from({ length: 129 }, (_, index) => ({
    address: gpa(0x10_0000 * index),
    sizeBytes: 0x10_0000,
    kind: "ram" as const,
  }));
  t.throws(() => planBoot(bootRequest(kernel(), { memoryMap })), {
    message: "memory.sizeBytes: the memory map has 129 entries, Linux takes 128",
  });
});
