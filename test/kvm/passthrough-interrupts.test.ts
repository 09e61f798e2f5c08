import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { mem32 } from "../../guests/assembler-encoding.ts";
import { EventFd } from "../../src/host/eventfd.ts";
import { KIOXIA } from "../support/fake-devices.ts";
import { FakePassthroughHost, PassthroughBench } from "../support/fake-passthrough-host.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

const READY = 0x80;
const HANDLER = 0x81;
const VECTORS = [0x50, 0x51] as const;
const APIC_SPURIOUS = mem32("r8", 0xf0);
const APIC_EOI = mem32("r8", 0xb0);

/** A guest that says READY and waits; the handler of each vector says HANDLER with its number. */
function waitingGuest(): KvmGuest {
  const code = new Assembler(CODE, 64).mov("r8", 0xfee0_0000n).mov(APIC_SPURIOUS, 0x1ff);
  code.mov("eax", 0xff).out(0x21, "al").out(0xa1, "al");
  code.sti().label("again").out(READY, "al").label("wait").hlt().jmp("wait");
  for (const vector of VECTORS) {
    code.label(`handler ${vector}`).push("rax").mov("eax", vector).out(HANDLER, "eax");
    code.mov(APIC_EOI, 0).pop("rax").iret();
  }
  const guest = new KvmGuest(code, { mode: 64 });
  for (const vector of VECTORS) guest.setHandler(vector, code.addressOf(`handler ${vector}`));
  return guest;
}

t.test(
  "Passthrough masks an MSI-X entry, shows it pending and delivers it to a running guest exactly once at unmask",
  { skip },
  (t) => {
    const guest = waitingGuest();
    const bench = new PassthroughBench(KIOXIA, {}, undefined, new FakePassthroughHost(guest.routing));
    t.teardown(() => {
      bench.function.close();
      guest.close();
    });
    bench.write(0x04, 2, 2);
    bench.write(0x42, 2, 0x8000); // MSI-X on
    const table = bench.barAddress(0) + 0x5200;
    const pending = (): number => bench.host.mmio.read(bench.barAddress(0) + 0xd600, 4);
    const mask = (entry: number, isMasked: boolean): void =>
      bench.host.mmio.write(table + 16 * entry + 12, 4, isMasked ? 1 : 0);
    for (const [entry, vector] of VECTORS.entries()) {
      bench.host.mmio.write(table + 16 * entry, 4, 0xfee0_0000);
      bench.host.mmio.write(table + 16 * entry + 8, 4, vector);
      mask(entry, false);
    }
    // The eventfds that the host was given stand for the device.
    const device = bench.backend.triggers.get("msix")?.map((eventFd) => EventFd.attach(eventFd)) ?? [];
    const signal = (entry: number): void => device[entry]?.signal();
    t.equal(device.length, 2);
    t.equal(guest.runToOut()[0], READY);

    signal(1);
    t.same(guest.runToOut(), [HANDLER, 0x51], "unmasked: no thread of ours in between");
    mask(1, true); // of higher priority than the other: it would come first
    signal(1);
    signal(1);
    t.equal(pending(), 0b10);
    signal(0);
    t.same(guest.runToOut(), [HANDLER, 0x50], "the masked one stays away");
    mask(1, false);
    t.equal(pending(), 0);
    t.same(guest.runToOut(), [HANDLER, 0x51], "delivered at unmask");
    signal(0);
    t.same(guest.runToOut(), [HANDLER, 0x50], "and not a second time");
    t.end();
  },
);
