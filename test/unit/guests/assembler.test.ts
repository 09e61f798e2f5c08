import t from "tap";
import { Assembler } from "../../../guests/assembler.ts";
import { at, mem8, mem16, mem32, mem64 } from "../../../guests/assembler-encoding.ts";
import { multibootImage } from "../../../guests/multiboot-image.ts";

/** The bytes as GNU objdump shows them. */
const hexOf = (assembler: Assembler): string =>
  [...assembler.assemble()].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

t.test("Assembler encodes 32-bit code", (t) => {
  const check = (bytes: string, write: (a: Assembler) => Assembler): void => {
    t.equal(hexOf(write(new Assembler(0x1000, 32).label("start"))), bytes);
  };
  check("c7 c0 05 00 00 00", (a) => a.mov("eax", 5));
  check("66 c7 c0 05 00", (a) => a.mov("ax", 5));
  check("89 96 08 00 00 00", (a) => a.mov(mem32("esi", 8), "edx"));
  check("66 c7 84 24 04 00 00 00 34 12", (a) => a.mov(mem16("esp", 4), 0x1234));
  check("c7 05 04 10 00 00 00 10 00 00", (a) => a.mov(mem32(at("start", 4)), at("start")));
  check("80 e8 03", (a) => a.sub("al", 3));
  check("0b 88 00 00 00 00", (a) => a.or("ecx", mem32("eax")));
  check("66 ed", (a) => a.in("ax", "dx"));
  check("e7 80", (a) => a.out(0x80, "eax"));
  check("f3 66 6f", (a) => a.rep().outs(16));
  check("e9 fb ff ff ff", (a) => a.jmp("start"));
  check("0f 85 fa ff ff ff", (a) => a.j("ne", "start"));
  check("e2 fe", (a) => a.loop("start"));
  check("c2 08 00", (a) => a.ret(8));
  check("0f 01 98 00 00 00 00", (a) => a.lidt(mem32("eax")));
  check("f0 ff 05 00 20 00 00", (a) => a.lock().inc(mem32(0x2000)));
  t.end();
});

t.test("Assembler encodes 16-bit code with prefixes for 32-bit operands and addresses", (t) => {
  const check = (bytes: string, write: (a: Assembler) => Assembler): void => {
    t.equal(hexOf(write(new Assembler(0x1000, 16).label("start"))), bytes);
  };
  check("c7 c0 05 00", (a) => a.mov("ax", 5));
  check("66 c7 c0 05 00 00 00", (a) => a.mov("eax", 5));
  check("67 8a 05 00 05 00 00", (a) => a.mov("al", mem8(0x500)));
  check("66 67 0f 01 15 00 30 00 00", (a) => a.lgdt(mem32(0x3000)));
  check("66 ea 00 10 00 00 08 00", (a) => a.jmpFar(8, at("start")));
  check("e9 fd ff", (a) => a.jmp("start"));
  t.end();
});

t.test("Assembler encodes 64-bit code", (t) => {
  const check = (bytes: string, write: (a: Assembler) => Assembler): void => {
    t.equal(hexOf(write(new Assembler(0x1000, 64))), bytes);
  };
  check("48 8b 04 25 34 12 00 00", (a) => a.mov("rax", mem64(0x1234)));
  check("4d 89 91 08 00 00 00", (a) => a.mov(mem64("r9", 8), "r10"));
  check("49 bb ff ff ff ff ff ff ff ff", (a) => a.mov("r11", -1n));
  check("49 89 84 24 00 00 00 00", (a) => a.mov(mem64("r12"), "rax"));
  check("41 5f", (a) => a.pop("r15"));
  check("48 cf", (a) => a.iret());
  t.end();
});

t.test("Assembler refuses labels that are missing, there twice or too far", (t) => {
  t.throws(() => new Assembler(0).jmp("nowhere").assemble(), { message: /there is no label nowhere/ });
  t.throws(() => new Assembler(0).label("a").label("a"), { message: /label a is there twice/ });
  t.throws(() => new Assembler(0).label("far").space(200).loop("far").assemble(), { message: /too far/ });
  t.end();
});

t.test("multibootImage() is an ELF32 file with a multiboot header before the entry", (t) => {
  const image = multibootImage((a) => a.hlt(), 0x100);
  const view = new DataView(image.bytes.buffer, image.bytes.byteOffset);
  t.equal(view.getUint32(0), 0x7f45_4c46);
  t.equal(view.getUint8(4), 1, "ELFCLASS32");
  t.equal(view.getUint32(24, true), 0x10_000c, "e_entry");
  const header = [0, 4, 8].map((offset) => view.getUint32(0x1000 + offset, true));
  t.equal(header[0], 0x1bad_b002);
  t.equal(
    header.reduce((sum, word) => (sum + word) >>> 0, 0),
    0,
    "checksum",
  );
  t.equal(view.getUint8(0x100c), 0xf4);
  t.equal(view.getUint32(52 + 20, true), 13 + 0x100, "p_memsz");
  t.end();
});
