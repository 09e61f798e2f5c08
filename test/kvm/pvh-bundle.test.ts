import { writeFileSync } from "node:fs";
import t from "tap";
import { bundleInitramfs } from "../../guest-images/pvh-bundle.ts";
import { Assembler } from "../../guests/assembler.ts";
import { mem32 } from "../../guests/assembler-encoding.ts";
import { elf64, pvhNote } from "../../guests/kernel-images.ts";
import { Machine } from "../../src/vmm/machine.ts";
import { missingKvm } from "../support/kvm-guest.ts";

/*
 * A kernel that brings its own initramfs: a tiny PVH guest prints the first boot module it is told of.
 */

const skip = missingKvm();
const COM1 = 0x3f8;
const DEBUG_EXIT = 0xf4;
const ENTRY = 0x10_0000;
const NOTE = ENTRY + 0x800;
const folder = t.testdir({ theirs: "the VMM's" });

/** Prints as many bytes of the first module as its entry says, then the number of modules. */
function bundle(): Buffer {
  const a = new Assembler(ENTRY, 32);
  a.mov("eax", mem32("ebx", 16)); // modlist_paddr
  a.mov("esi", mem32("eax", 0)).mov("ecx", mem32("eax", 8)); // paddr and size of the first
  a.mov("edx", COM1).cld().rep().outs(8);
  a.mov("eax", mem32("ebx", 12)).add("eax", 0x30).out("dx", "al"); // nr_modules, as a digit
  a.mov("al", 0).out(DEBUG_EXIT, "al").label("end").hlt().jmp("end");
  const bytes = new Uint8Array(0x1000);
  bytes.set(a.assemble());
  const note = pvhNote(ENTRY);
  bytes.set(note, NOTE - ENTRY);
  const kernel = elf64([
    { paddr: ENTRY, bytes },
    { type: 4, paddr: NOTE, bytes: note },
  ]).bytes;
  return bundleInitramfs(Buffer.from(kernel), Buffer.from("the kernel's own"));
}

async function printed(initramfs: string | undefined): Promise<string> {
  const kernel = `${folder}/bundle`;
  writeFileSync(kernel, bundle());
  const machine = await Machine.start({
    kernel,
    ...(initramfs !== undefined && { initramfs }),
    memory: { sizeBytes: 64 << 20 },
    debugExitPort: DEBUG_EXIT,
  });
  const { status, text } = await machine.exited;
  if (status !== 1) throw new Error(text);
  return machine.serial.text;
}

t.test("a kernel of bundleInitramfs() finds its own initramfs when the VMM gives none", { skip }, async (t) => {
  t.equal(await printed(undefined), "the kernel's own1");
});

t.test("a kernel of bundleInitramfs() finds the VMM's initramfs when it gives one", { skip }, async (t) => {
  t.equal(await printed(`${folder}/theirs`), "the VMM's1");
});
