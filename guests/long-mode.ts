import type { Assembler } from "./assembler.ts";
import { at, mem32 } from "./assembler-encoding.ts";
import { fresh, repeat } from "./program.ts";

/*
 * A KVM in software emulates a guest's kernel code, at about a microsecond an instruction, and knows no interrupt
 * return outside of long mode. Some run user code natively and emulate the rest; others emulate all of it. So a guest
 * that is to be measured goes to long mode and works in 32-bit user code. On hardware the same code runs, and none of
 * this matters.
 */

const PAGE_TABLES = 0x60_0000;
const TSS = 0x61_0000;
const IDT = 0x62_0000;
/** Top of the stack that interrupts of user code take. */
const KERNEL_STACK = 0x1f_0000;
const USER_STACK = 0x20_0000;

const CODE_64 = 0x08;
const CODE_32 = 0x10;
const DATA = 0x18;
const USER_CODE = 0x23;
const USER_DATA = 0x2b;
const TASK = 0x30;

/** 64-bit TSS and its I/O map, which allows every port. Intel SDM vol. 3 §8.7, vol. 1 §19.5.2 */
const TSS_RSP0 = 0x04;
const TSS_IO_MAP = 0x66;
const TSS_BYTES = 0x68;
const TSS_LIMIT: number = TSS_BYTES + 0x2000;

const EFER = 0xc000_0080;
const EFER_LME = 0x100;
const CR0_PG = 0x8000_0000;
const CR4_PAE = 0x20;
/** Interrupt flag clear, I/O privilege level 3. */
const USER_FLAGS = 0x3002;

/**
 * Goes from 32-bit protected mode to 32-bit code under long mode, privilege 0, the first 4 GiB mapped one to one for
 * everybody.
 */
export function enterLongMode(a: Assembler): void {
  const labels = {
    gdt: fresh("gdt"),
    gdtr: fresh("gdtr"),
    idtr: fresh("idtr"),
    flat: fresh("flat"),
    over: fresh("over"),
  };
  const [level4, level3, level2] = [PAGE_TABLES, PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000];
  a.mov(mem32(level4), level3 + 7).mov(mem32(level4 + 4), 0); // present, writable, user
  for (let gib = 0; gib < 4; gib++) {
    a.mov(mem32(level3 + 8 * gib), level2 + 0x1000 * gib + 7).mov(mem32(level3 + 8 * gib + 4), 0);
  }
  a.mov("edi", level2).mov("eax", 0x87); // and large: 2 MiB
  repeat(a, 2048, () => a.mov(mem32("edi"), "eax").mov(mem32("edi", 4), 0).add("edi", 8).add("eax", 0x20_0000));
  a.mov(mem32(TSS + TSS_RSP0), KERNEL_STACK).mov(mem32(TSS + TSS_IO_MAP - 2), TSS_BYTES << 16);
  a.movFromControl("eax", 4).or("eax", CR4_PAE).movToControl(4, "eax").mov("eax", level4).movToControl(3, "eax");
  a.mov("ecx", EFER).rdmsr().or("eax", EFER_LME).wrmsr();
  a.movFromControl("eax", 0).or("eax", CR0_PG).movToControl(0, "eax");
  a.lgdt(mem32(at(labels.gdtr)))
    .lidt(mem32(at(labels.idtr)))
    .jmpFar(CODE_32, at(labels.flat))
    .label(labels.flat);
  a.mov("eax", DATA).movToSegment("ds", "ax").movToSegment("es", "ax").movToSegment("ss", "ax");
  a.mov("eax", TASK).db(0x0f, 0x00, 0xd8); // ltr ax
  a.jmp(labels.over).align(8).label(labels.gdt).dd(0, 0);
  a.dd(0xffff, 0x00af_9b00, 0xffff, 0x00cf_9b00, 0xffff, 0x00cf_9300, 0xffff, 0x00cf_fb00, 0xffff, 0x00cf_f300);
  a.dd(TSS_LIMIT | ((TSS & 0xffff) << 16), 0x8900 | (TSS >>> 16), 0, 0);
  a.label(labels.gdtr).dw(0x3f).dd(at(labels.gdt)).label(labels.idtr).dw(0xfff).dd(IDT);
  a.label(labels.over);
}

/**
 * Goes on as 32-bit user code, which may use all ports; from {@link enterLongMode}'s state. EAX is lost, the stack is a
 * new one.
 */
export function enterUserMode(a: Assembler): void {
  const labels = { long: fresh("long"), user: fresh("user") };
  a.jmpFar(CODE_64, at(labels.long)).label(labels.long).mode(64);
  a.push(USER_DATA).push(USER_STACK).push(USER_FLAGS).push(USER_CODE).push(at(labels.user)).iret();
  a.mode(32).label(labels.user);
  a.mov("eax", USER_DATA).movToSegment("ds", "ax").movToSegment("es", "ax");
}

/** Makes `write` the handler of an interrupt; it is 64-bit code. EAX and EBX are lost. Intel SDM vol. 3 §6.14.1 */
export function setHandler(a: Assembler, vector: number, write: () => void): void {
  const labels = { handler: fresh("handler"), over: fresh("over") };
  const gate = IDT + 16 * vector;
  a.mov("eax", at(labels.handler))
    .mov("ebx", "eax")
    .and("eax", 0xffff)
    .or("eax", CODE_64 << 16)
    .mov(mem32(gate), "eax");
  a.and("ebx", 0xffff_0000)
    .or("ebx", 0x8e00)
    .mov(mem32(gate + 4), "ebx"); // present, interrupt gate
  a.mov(mem32(gate + 8), 0)
    .mov(mem32(gate + 12), 0)
    .jmp(labels.over)
    .label(labels.handler)
    .mode(64);
  write();
  a.iret().mode(32).label(labels.over);
}
