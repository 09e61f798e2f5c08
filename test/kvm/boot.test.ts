import { writeFileSync } from "node:fs";
import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { at, mem32 } from "../../guests/assembler-encoding.ts";
import { bzImage, elf32, multibootHeader, pvhNote } from "../../guests/kernel-images.ts";
import { Machine } from "../../src/vmm/machine.ts";

/*
 * One tiny guest for each boot protocol. It follows the protocol's pointers and prints the command line and the
 * initramfs that it finds. It reloads its segments from the given descriptor table.
 */

const COM1 = 0x3f8;
const DEBUG_EXIT = 0xf4;
const HIGH_MEMORY = 0x10_0000;
const CMDLINE = "quiet a=b";
const INITRAMFS = "the archive";

const folder = t.testdir({ initramfs: INITRAMFS });

/** Prints `length` bytes from where esi points. */
function print(assembler: Assembler, length: number): void {
  assembler.mov("ecx", length).mov("edx", COM1).cld().rep().outs(8);
}

/** Loads CS and DS anew, which faults without descriptors for them, and leaves. */
function leave(assembler: Assembler, selectors: { readonly code: number; readonly data: number }): void {
  assembler.mov("eax", selectors.data).movToSegment("ds", "ax").jmpFar(selectors.code, at("reloaded"));
  assembler.label("reloaded").mov("al", 0).out(DEBUG_EXIT, "al").label("end").hlt().jmp("end");
}

/** Runs a kernel and answers what it printed before it left in good order. */
async function run(name: string, image: Uint8Array): Promise<string> {
  const kernel = `${folder}/${name}`;
  writeFileSync(kernel, image);
  const machine = await Machine.start({
    kernel,
    initramfs: `${folder}/initramfs`,
    cmdline: CMDLINE,
    memory: { sizeBytes: 64 << 20 },
    debugExitPort: DEBUG_EXIT,
  });
  const { status, text } = await machine.exited;
  if (status !== 1) throw new Error(text);
  return machine.serial.text;
}

t.test("a PVH guest finds hvm_start_info in ebx, the command line and the initramfs behind it", async (t) => {
  const a = new Assembler(HIGH_MEMORY, 32);
  a.mov("esi", mem32("ebx", 24)); // cmdline_paddr
  print(a, CMDLINE.length);
  a.mov("eax", mem32("ebx", 16)).mov("esi", mem32("eax", 0)); // modlist_paddr, first paddr
  print(a, INITRAMFS.length);
  a.mov("esi", mem32("ebx", 32)); // rsdp_paddr
  print(a, 8);
  leave(a, { code: 0x08, data: 0x10 });
  const image = elf32([
    { paddr: HIGH_MEMORY, bytes: a.assemble() },
    { type: 4, paddr: HIGH_MEMORY, bytes: pvhNote(HIGH_MEMORY, 4) },
  ]);
  t.equal(await run("pvh", image.bytes), `${CMDLINE}${INITRAMFS}RSD PTR `);
});

t.test("a Linux guest finds the zero page in esi, the command line and the initramfs behind it", async (t) => {
  const a = new Assembler(HIGH_MEMORY, 32);
  a.mov("ebx", "esi");
  a.mov("esi", mem32("ebx", 0x228)); // cmd_line_ptr
  print(a, CMDLINE.length);
  a.mov("esi", mem32("ebx", 0x218)); // ramdisk_image
  print(a, INITRAMFS.length);
  a.mov("esi", mem32("ebx", 0x70)); // acpi_rsdp_addr
  print(a, 8);
  leave(a, { code: 0x10, data: 0x18 });
  const code = a.assemble();
  const image = bzImage({ codeBytes: code.length }).put(4 * 512, code);
  t.equal(await run("bzImage", image.bytes), `${CMDLINE}${INITRAMFS}RSD PTR `);
});

t.test(
  "a multiboot guest finds the information in ebx, its name, the command line and the module behind it",
  async (t) => {
    const a = new Assembler(HIGH_MEMORY, 32);
    const line = `${folder}/multiboot ${CMDLINE}`;
    a.db(...multibootHeader(0));
    const entry = a.here;
    a.mov("esi", mem32("ebx", 16)); // cmdline
    print(a, line.length);
    a.mov("eax", mem32("ebx", 24)).mov("esi", mem32("eax", 0)); // mods_addr, mod_start
    print(a, INITRAMFS.length);
    leave(a, { code: 0x08, data: 0x10 });
    const image = elf32([{ paddr: HIGH_MEMORY, bytes: a.assemble() }], { entry });
    t.equal(await run("multiboot", image.bytes), `${line}${INITRAMFS}`);
  },
);
