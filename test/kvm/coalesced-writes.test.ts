import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { CoalescedWrites } from "../../src/kvm/coalesced-writes.ts";
import { Machine } from "../../src/vmm/machine.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

/** A guest with coalesced writes to ports 0x60 to 0x63, and a function that drains the ring. */
function setUp(t: { teardown(work: () => void): void }, code: Assembler) {
  const guest = new KvmGuest(code);
  const coalesced = new CoalescedWrites(guest.vm, guest.vcpuFd());
  t.teardown(() => {
    coalesced.close();
    guest.close();
  });
  coalesced.coalesce(0x60, 4);
  const take = (): (readonly number[])[] => {
    const writes: (readonly number[])[] = [];
    coalesced.drain((port, width, value) => writes.push([port, width, value]));
    return writes;
  };
  return { guest, take };
}

t.test("CoalescedWrites has writes of all widths, oldest first, at the next exit", { skip }, (t) => {
  const code = new Assembler(CODE).mov("eax", 0x1122_3344);
  code.out(0x60, "eax").out(0x62, "ax").out(0x63, "al").in("al", 0x60).out(0x80, "al");
  const { guest, take } = setUp(t, code);
  t.match(guest.run(), { kind: "portRead", port: 0x60 }, "a read exits");
  t.same(take(), [
    [0x60, 4, 0x1122_3344],
    [0x62, 2, 0x3344],
    [0x63, 1, 0x44],
  ]);
  t.same(take(), [], "once");
  guest.vcpu().setIoData(0, 0x55);
  t.same(guest.runToOut(), [0x80, 0x55]);
  t.same(take(), []);
  t.end();
});

t.test("CoalescedWrites has no write that reaches over the end of its ports: that write exits", { skip }, (t) => {
  const code = new Assembler(CODE).mov("eax", 7).out(0x60, "al").out(0x62, "eax").out(0x64, "al");
  const { guest, take } = setUp(t, code);
  t.match(guest.run(), { kind: "portWrite", port: 0x62, width: 4 });
  t.same(take(), [[0x60, 1, 7]]);
  t.match(guest.run(), { kind: "portWrite", port: 0x64, width: 1 });
  t.same(take(), []);
  t.end();
});

t.test("A ring that is full makes the next write exit; nothing is lost or out of order", { skip }, (t) => {
  const code = new Assembler(CODE).mov("ecx", 1000).mov("eax", 0);
  code.label("again").out(0x60, "eax").inc("eax").loop("again").out(0x80, "al");
  const { guest, take } = setUp(t, code);
  const seen: number[] = [];
  let exits = 0;
  for (;;) {
    const exit = guest.run();
    for (const [, , value] of take()) seen.push(value ?? -1);
    if (exit.kind !== "portWrite" || exit.port === 0x80) break;
    exits++;
    seen.push(...exit.values);
  }
  t.same(
    seen,
    Array.from({ length: 1000 }, (_, index) => index),
  );
  t.ok(exits > 0 && exits < 20, `${exits} of 1000 writes exited`);
  t.end();
});

t.test(
  "A machine's configuration address and clock index are written without an exit, and count",
  { skip },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "tsvmm-coalesced-"));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const kernel = join(folder, "guest.elf");
    const { bytes } = multibootImage((a) => {
      a.mov("ecx", 50).label("again");
      a.mov("eax", 0x8000_0000).mov("edx", 0xcf8).out("dx", "eax").mov("edx", 0xcfc).in("eax", "dx").mov("ebx", "eax");
      a.mov("al", 0x0d).out(0x70, "al").in("al", 0x71); // register D: bit 7 says that the clock's time is valid
      a.loop("again").and("eax", 0x80).xor("eax", "ebx").out(0xf4, "al").label("end").hlt().jmp("end");
    }, 0x4000);
    writeFileSync(kernel, bytes);
    const machine = await Machine.start({ kernel, memory: { sizeBytes: 16 << 20 }, debugExitPort: 0xf4 });
    const exit = await machine.exited;
    t.equal(exit.text, `the guest wrote ${0x80 ^ 0x86} to the debug exit port`, "both reads had their index");
    const { exits, accesses } = await machine.statistics();
    t.equal(exits.portRead, 100);
    t.equal(exits.portWrite, 1, "the debug exit");
    t.match(accesses, { "PCI configuration ports": 100, "rtc-cmos": 100 });
  },
);
