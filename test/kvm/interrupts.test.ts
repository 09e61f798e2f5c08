import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { mem32 } from "../../guests/assembler-encoding.ts";
import type { MsiMessage } from "../../src/base/signals.ts";
import { gsi } from "../../src/base/units.ts";
import { EventFd } from "../../src/host/eventfd.ts";
import { libc } from "../../src/host/libc.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

/** The guest keeps the addresses of both interrupt controllers in registers. */
const APIC_SPURIOUS = mem32("r8", 0xf0);
const APIC_EOI = mem32("r8", 0xb0);
const IOAPIC_INDEX = mem32("r9", 0);
const IOAPIC_DATA = mem32("r9", 0x10);
/** Writes to these ports say: the guest's main program has come round; a handler runs. */
const READY = 0x80;
const HANDLER = 0x81;
const VECTORS = [0x40, 0x41] as const;

/** A message to the boot processor's local APIC. Intel SDM vol. 3 §11.11 */
const message = (vector: number): MsiMessage => ({ addressLow: 0xfee0_0000, addressHigh: 0, data: vector });

/**
 * A guest that says READY, then waits for interrupts in a loop. Each of two vectors says HANDLER with its number, then
 * ends the interrupt. `before` runs first, with the local APIC on.
 *
 * It runs in long mode: without paging, a software KVM emulates every instruction and knows no IRET in protected mode.
 */
function waitingGuest(t: { teardown(done: () => void): void }, before: (code: Assembler) => void = () => {}): KvmGuest {
  const code = new Assembler(CODE, 64).mov("r8", 0xfee0_0000n).mov("r9", 0xfec0_0000n).mov(APIC_SPURIOUS, 0x1ff);
  code.mov("eax", 0xff).out(0x21, "al").out(0xa1, "al"); // the PIC has the low pins too, and is first with them
  before(code);
  code.sti().label("again").out(READY, "al").label("wait").hlt().jmp("wait");
  for (const vector of VECTORS) {
    code.label(`handler ${vector}`).push("rax").mov("eax", vector).out(HANDLER, "eax");
    code.mov(APIC_EOI, 0).pop("rax").iret();
  }
  const guest = new KvmGuest(code, { mode: 64 });
  for (const vector of VECTORS) guest.setHandler(vector, code.addressOf(`handler ${vector}`));
  t.teardown(() => guest.close());
  return guest;
}

t.test("MsiRoute.signal() becomes an interrupt with the message's vector", { skip }, (t) => {
  const guest = waitingGuest(t);
  const route = guest.route("test vector");
  route.setMessage(message(0x40));
  route.unmask();
  t.same(guest.runToOut()[0], READY);
  route.signal();
  t.same(guest.runToOut(), [HANDLER, 0x40]);
  route.setMessage(message(0x41));
  route.signal();
  t.same(guest.runToOut(), [HANDLER, 0x41], "a message changed while unmasked is used at once");
  route.release();
  t.end();
});

/** The command port of each PIC, for its end of interrupt. */
const PIC_MASTER = 0x20;
const PIC_SLAVE = 0xa0;

t.test("Vm.create() leaves the PICs with a BIOS's vectors, as multiboot kernels may expect them", { skip }, (t) => {
  const code = new Assembler(CODE, 64).sti().label("again").out(READY, "al").label("wait").hlt().jmp("wait");
  for (const vector of [0x0c, 0x73]) {
    code.label(`handler ${vector}`).push("rax").mov("eax", vector).out(HANDLER, "eax");
    code.mov("al", 0x20).out(PIC_MASTER, "al").out(PIC_SLAVE, "al").pop("rax").iret();
  }
  const guest = new KvmGuest(code, { mode: 64 });
  t.teardown(() => guest.close());
  for (const vector of [0x0c, 0x73]) guest.setHandler(vector, code.addressOf(`handler ${vector}`));
  guest.runToOut();
  for (const [pin, vector] of [
    [11, 0x73],
    [4, 0x0c],
  ] as const) {
    const line = guest.lines.line(gsi(pin), `pin ${pin}`);
    line.setLevel(true);
    t.same(guest.runToOut(), [HANDLER, vector]);
    line.setLevel(false);
  }
  t.end();
});

t.test("MsiRoute holds a signal while masked and delivers it once at unmask()", { skip }, (t) => {
  const guest = waitingGuest(t);
  const route = guest.route("masked vector");
  const sentinel = guest.route("sentinel");
  route.setMessage(message(0x41)); // of higher priority than the sentinel's: it would come first
  sentinel.setMessage(message(0x40));
  sentinel.unmask();
  guest.runToOut();
  t.equal(route.isPending, false);
  route.signal();
  route.signal();
  t.equal(route.isPending, true);
  sentinel.signal();
  t.same(guest.runToOut(), [HANDLER, 0x40], "only the sentinel");
  route.unmask();
  t.equal(route.isPending, false);
  t.same(guest.runToOut(), [HANDLER, 0x41]);
  sentinel.signal();
  t.same(guest.runToOut(), [HANDLER, 0x40], "once, not twice");
  route.mask();
  t.equal(route.isPending, false, "nothing is left of what was delivered");
  route.signal();
  t.equal(route.isPending, true);
  route.unmask();
  t.same(guest.runToOut(), [HANDLER, 0x41]);
  t.equal(guest.routing.pushes, 3, "masking and unmasking push no table");
  t.end();
});

t.test("MsiRoute.inject() needs no eventfd that works: its other holder filled it and made it block", { skip }, (t) => {
  const guest = waitingGuest(t);
  const route = guest.route("shared vector");
  const sentinel = guest.route("sentinel");
  route.setMessage(message(0x41));
  sentinel.setMessage(message(0x40));
  sentinel.unmask();
  guest.runToOut();
  libc.fcntl(route.eventFd, 4, 0); // F_SETFL, without O_NONBLOCK
  t.equal(route.isPending, false);
  libc.write(route.eventFd, Uint8Array.of(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 8);
  t.equal(route.isPending, true);
  route.inject();
  route.unmask();
  t.same(guest.runToOut(), [HANDLER, 0x41]);
  route.inject();
  t.same(guest.runToOut(), [HANDLER, 0x41]);
  sentinel.signal();
  t.same(guest.runToOut(), [HANDLER, 0x40], "no more than that");
  route.mask();
  t.equal(route.isPending, false, "KVM emptied the eventfd with the irqfd");
  t.end();
});

t.test("IrqRouting.batch() pushes the table once for many routes and connects them all", { skip }, (t) => {
  const guest = waitingGuest(t);
  const routes = [0x40, 0x41].map((vector) => ({ vector, route: guest.route(`vector ${vector}`) }));
  guest.routing.batch(() => {
    for (const { vector, route } of routes) {
      route.setMessage(message(vector));
      route.unmask();
    }
  });
  t.equal(guest.routing.pushes, 2, "the bare machine's table and one more");
  guest.runToOut();
  for (const { vector, route } of routes) {
    route.signal();
    t.same(guest.runToOut(), [HANDLER, vector]);
  }
  t.end();
});

t.test("A released route's GSI serves the next one with its own message", { skip }, (t) => {
  const guest = waitingGuest(t);
  const first = guest.route("first");
  first.setMessage(message(0x40));
  first.unmask();
  first.release();
  const second = guest.route("second");
  second.setMessage(message(0x41));
  second.unmask();
  guest.runToOut();
  second.signal();
  t.same(guest.runToOut(), [HANDLER, 0x41]);
  t.end();
});

t.test("Vm.signalMsi() delivers a message without a route and tells when no APIC took it", { skip }, (t) => {
  const guest = waitingGuest(t);
  guest.runToOut();
  t.equal(guest.vm.signalMsi(message(0x41)), true);
  t.same(guest.runToOut(), [HANDLER, 0x41]);
  t.equal(guest.vm.signalMsi({ ...message(0x41), addressLow: 0xfee7_7000 }), false, "no local APIC has id 0x77");
  t.end();
});

/** Puts a vector behind an I/O APIC pin, level-triggered, active high. 82093AA datasheet §3.2.4 */
function enablePin(code: Assembler, pin: number, vector: number): void {
  code.mov(IOAPIC_INDEX, 0x10 + 2 * pin).mov(IOAPIC_DATA, 0x8000 | vector);
  code.mov(IOAPIC_INDEX, 0x11 + 2 * pin).mov(IOAPIC_DATA, 0);
}

t.test("InterruptLine.setLevel() interrupts through the I/O APIC again and again until it is low", { skip }, (t) => {
  const guest = waitingGuest(t, (code) => enablePin(code, 10, 0x40));
  const sentinel = guest.route("sentinel");
  sentinel.setMessage(message(0x41));
  sentinel.unmask();
  const line = guest.lines.line(gsi(10), "test line");
  const other = guest.lines.line(gsi(10), "other line on the pin");
  guest.runToOut();
  line.setLevel(true);
  other.setLevel(true);
  t.same(guest.runToOut(), [HANDLER, 0x40]);
  line.setLevel(false);
  t.same(guest.runToOut(), [HANDLER, 0x40], "the other device still holds the wire");
  other.setLevel(false);
  sentinel.signal();
  t.same(guest.runToOut(), [HANDLER, 0x41], "no device holds it");
  t.end();
});

t.test("The interrupt controllers' own routes survive IrqRouting's table", { skip }, (t) => {
  const guest = waitingGuest(t, (code) => enablePin(code, 23, 0x40));
  const route = guest.route("test vector");
  route.setMessage(message(0x41));
  route.unmask();
  t.equal(guest.routing.pushes, 2);
  const line = guest.lines.line(gsi(23), "last pin");
  guest.runToOut();
  line.setLevel(true);
  t.same(guest.runToOut(), [HANDLER, 0x40]);
  line.setLevel(false);
  t.end();
});

t.test("The timer's GSI 0 is the I/O APIC's pin 2, as on a PC", { skip }, (t) => {
  const guest = waitingGuest(t, (code) => enablePin(code, 2, 0x40));
  const timer = guest.lines.line(gsi(0), "timer");
  guest.runToOut();
  timer.setLevel(true);
  t.same(guest.runToOut(), [HANDLER, 0x40]);
  timer.setLevel(false);
  t.end();
});

t.test("ResampledIrqLines raises a pin by eventfd and tells when the guest has handled it", { skip }, (t) => {
  const guest = waitingGuest(t, (code) => enablePin(code, 11, 0x41));
  const sentinel = guest.route("sentinel");
  sentinel.setMessage(message(0x40));
  sentinel.unmask();
  const trigger = EventFd.create();
  const resample = EventFd.create();
  t.teardown(() => {
    trigger.close();
    resample.close();
  });
  const connection = guest.resampled.connect(gsi(11), trigger.fd, resample.fd);
  guest.runToOut();
  trigger.signal();
  t.same(guest.runToOut(), [HANDLER, 0x41]);
  sentinel.signal();
  t.same(guest.runToOut(), [HANDLER, 0x40], "KVM lowered the pin: no second interrupt");
  // Looked at only here: a software KVM ends interrupts as it delivers them, before the handler says so.
  t.equal(resample.drain(), 1, "the end of interrupt was told");
  trigger.signal();
  t.same(guest.runToOut(), [HANDLER, 0x41], "and it works again");
  connection.disconnect();
  connection.disconnect();
  trigger.signal();
  sentinel.signal();
  t.same(guest.runToOut(), [HANDLER, 0x40], "not after disconnect()");
  t.end();
});

t.test("Vm.create() keeps KVM's interval timer from repeating missed ticks", { skip }, async (t) => {
  const real = libc.ioctlStruct;
  const requests: [number, number][] = [];
  libc.ioctlStruct = (file, request, argument) => {
    requests.push([request, argument[0] ?? 0]);
    return real(file, request, argument);
  };
  t.teardown(() => {
    libc.ioctlStruct = real;
  });
  const guest = new KvmGuest(new Assembler(CODE).label("nothing"));
  t.teardown(() => guest.close());
  const made = requests.findIndex(([request]) => request === 0x4040_ae77);
  t.same(requests[made + 1], [0xae71, 0], "KVM_REINJECT_CONTROL with pit_reinject 0, behind KVM_CREATE_PIT2");
});
