import t from "tap";
import { SyscallError } from "../../../src/host/errors.ts";
import { EventFd } from "../../../src/host/eventfd.ts";
import { libc } from "../../../src/host/libc.ts";
import { IrqRouting } from "../../../src/kvm/irq-routing.ts";
import { FakeKvmInterrupts } from "../../support/fake-kvm-interrupts.ts";

const MESSAGE = { addressLow: 0xfee0_0000, addressHigh: 0, data: 0x41 };

/** A machine that only writes down what it is asked, in order; irqfds take nothing out of their eventfds. */
function setUp(limit = 4096, makeEvent?: () => EventFd) {
  const calls: string[] = [];
  const reports: string[] = [];
  const port = {
    setGsiRouting: (table: Uint8Array) => calls.push(`table of ${new DataView(table.buffer).getUint32(0, true)}`),
    assignIrqfd: (_trigger: number, gsi: number) => calls.push(`assign ${gsi}`),
    deassignIrqfd: (_trigger: number, gsi: number) => calls.push(`deassign ${gsi}`),
    signalMsi: () => calls.push("message") > 0,
  };
  const routing = new IrqRouting(port, limit, (_level, text) => reports.push(text), makeEvent);
  calls.length = 0; // the table of the bare machine
  return { routing, calls, reports, take: () => calls.splice(0) };
}

t.test("IrqRouting pushes the bare machine's table when it is made", (t) => {
  const calls: string[] = [];
  const nothing = (): void => {};
  const port = {
    setGsiRouting: (table: Uint8Array) => calls.push(`table of ${new DataView(table.buffer).getUint32(0, true)}`),
    assignIrqfd: nothing,
    deassignIrqfd: nothing,
    signalMsi: () => true,
  };
  t.equal(new IrqRouting(port, 4096, nothing).pushes, 1);
  t.same(calls, ["table of 38"]);
  t.end();
});

t.test("MsiRoute takes no GSI and makes no call before its first unmask()", (t) => {
  const { routing, calls } = setUp();
  const route = routing.allocate("vector");
  t.teardown(() => route.release());
  t.equal(route.isMasked, true);
  route.setMessage(MESSAGE);
  route.mask();
  t.same(calls, []);
  t.end();
});

t.test("MsiRoute.unmask() pushes the table before it assigns the irqfd; mask() only takes the irqfd away", (t) => {
  const { routing, take } = setUp();
  const route = routing.allocate("vector");
  t.teardown(() => route.release());
  route.setMessage(MESSAGE);
  route.unmask();
  t.same(take(), ["table of 39", "assign 24"]);
  route.mask();
  t.same(take(), ["deassign 24"]);
  route.setMessage({ ...MESSAGE });
  route.unmask();
  t.same(take(), ["assign 24"], "nothing changed, so no table");
  route.unmask();
  t.same(take(), []);
  route.setMessage({ ...MESSAGE, data: 0x42 });
  t.same(take(), ["table of 39"], "a connected irqfd follows the table");
  t.end();
});

t.test("MsiRoute unmasked without a message connects when the message comes", (t) => {
  const { routing, take } = setUp();
  const route = routing.allocate("vector");
  t.teardown(() => route.release());
  route.unmask();
  t.equal(route.isMasked, false);
  route.signal();
  t.equal(route.isPending, true);
  t.same(take(), []);
  route.setMessage(MESSAGE);
  t.same(take(), ["table of 39", "assign 24"]);
  t.end();
});

t.test("MsiRoute leaves signals in the eventfd while masked: KVM raises them once as it gets the irqfd", (t) => {
  const kvm = new FakeKvmInterrupts();
  const route = new IrqRouting(kvm, 4096, () => undefined).allocate("vector");
  t.teardown(() => route.release());
  route.setMessage(MESSAGE);
  route.signal();
  route.signal();
  t.equal(route.isPending, true);
  t.equal(route.isPending, true, "a look changes nothing");
  route.signal();
  route.unmask();
  t.same(kvm.deliver(), [0x41], "three became one");
  t.equal(route.isPending, false);
  route.mask();
  t.equal(route.isPending, false);
  route.unmask();
  t.same(kvm.deliver(), [], "nothing is delivered twice");
  t.end();
});

t.test("MsiRoute.inject() delivers at once while connected, and once after the irqfd is there otherwise", (t) => {
  const { routing, take } = setUp();
  const route = routing.allocate("vector");
  t.teardown(() => route.release());
  const event = EventFd.attach(route.eventFd);
  route.setMessage(MESSAGE);
  route.inject();
  route.inject();
  t.equal(route.isPending, true);
  route.unmask();
  t.same(take(), ["table of 39", "assign 24", "message"]);
  t.equal(route.isPending, false);
  route.inject();
  t.same(take(), ["message"]);
  route.mask();
  t.equal(route.isPending, false);
  t.equal(event.isSignalled, false, "the eventfd is the device's alone");
  t.end();
});

t.test("MsiRoute.unmask() leaves a pending interrupt to KVM where the eventfd has a count too", (t) => {
  const { routing, take } = setUp();
  const route = routing.allocate("vector");
  t.teardown(() => route.release());
  route.setMessage(MESSAGE);
  EventFd.attach(route.eventFd).signal();
  route.inject();
  route.unmask();
  t.same(take(), ["table of 39", "assign 24"], "no message beside the interrupt that KVM's work queue raises");
  route.inject();
  t.same(take(), ["message"]);
  t.end();
});

t.test("MsiRoute never blocks on an eventfd whose O_NONBLOCK another process has cleared", (t) => {
  const { routing } = setUp();
  const route = routing.allocate("vector");
  t.teardown(() => route.release());
  libc.fcntl(route.eventFd, 4, 0); // F_SETFL
  route.setMessage(MESSAGE);
  t.equal(route.isPending, false, "a read of it would wait");
  libc.write(route.eventFd, Uint8Array.of(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 8);
  t.equal(route.isPending, true);
  route.inject(); // a write would wait: the counter is full
  route.unmask();
  route.inject();
  route.mask();
  t.equal(route.isPending, true, "a KVM that takes nothing has left it there");
  t.end();
});

t.test("IrqRouting.batch() pushes once, then connects what is still unmasked, also when batches nest", (t) => {
  const { routing, take } = setUp();
  const names = ["a", "b", "c"];
  const routes = names.map((name) => routing.allocate(name));
  t.teardown(() => {
    for (const route of routes) route.release();
  });
  routing.batch(() => {
    routing.batch(() => {
      for (const route of routes) {
        route.setMessage(MESSAGE);
        route.unmask();
      }
    });
    routes[1]?.mask();
    t.same(take(), [], "nothing before the outermost batch ends");
  });
  t.same(take(), ["table of 41", "assign 24", "assign 26"]);
  t.throws(() =>
    routing.batch(() => {
      routes[1]?.unmask();
      throw new Error("work failed");
    }),
  );
  t.same(take(), ["assign 25"], "a batch that throws leaves the host in agreement");
  t.end();
});

t.test("MsiRoute.release() disconnects and gives the GSI to the next route", (t) => {
  const { routing, take } = setUp();
  const first = routing.allocate("first");
  first.setMessage(MESSAGE);
  first.unmask();
  take();
  first.release();
  first.release();
  t.same(take(), ["deassign 24"]);
  t.throws(() => first.signal(), { name: "InvariantError" });
  const second = routing.allocate("second");
  t.teardown(() => second.release());
  second.setMessage({ ...MESSAGE, data: 0x42 });
  second.unmask();
  t.same(take(), ["table of 39", "assign 24"]);
  t.end();
});

t.test("MsiRoute that finds no GSI stays silent and is reported once", (t) => {
  const { routing, calls, reports } = setUp(39);
  const routes = ["first", "second", "third"].map((name) => routing.allocate(name));
  t.teardown(() => {
    for (const route of routes) route.release();
  });
  for (const route of routes) {
    route.setMessage(MESSAGE);
    route.unmask();
  }
  t.same(calls, ["table of 39", "assign 24"]);
  t.same(reports, ["No interrupt route is left for second: it and later ones stay silent"]);
  routes[1]?.signal();
  t.equal(routes[1]?.isPending, true);
  t.end();
});

t.test("MsiRoute that gets no eventfd stays silent and is reported once; the machine goes on", (t) => {
  const events = [EventFd.create()];
  const { routing, reports, take } = setUp(4096, () => {
    const event = events.pop();
    if (event === undefined) throw new SyscallError("TSVMM_HOST_CALL", "make an eventfd", "eventfd", "EMFILE");
    return event;
  });
  const routes = ["first", "second", "third"].map((name) => routing.allocate(name));
  for (const route of routes) {
    route.setMessage(MESSAGE);
    route.unmask();
  }
  t.same(take(), ["table of 39", "assign 24"]);
  t.equal(routes[1]?.eventFd, -1, "nothing for the host to signal");
  t.match(reports, [/^second and later interrupts stay silent: Cannot make an eventfd: .*EMFILE \(raise the limit/]);
  t.equal(reports.length, 1);
  const silent = routes[1];
  silent?.signal();
  t.equal(silent?.isPending, false);
  silent?.mask();
  silent?.unmask();
  for (const route of routes) route.release();
  t.same(take(), ["deassign 24"]);
  t.end();
});

t.test("IrqRouting.routes and entries tell of each route until it is released", (t) => {
  const { routing } = setUp();
  const [one, other] = [routing.allocate("one"), routing.allocate("other")];
  one.setMessage(MESSAGE);
  one.unmask();
  t.same(routing.routes, [
    { name: "one", gsi: 24, isConnected: true, hasEventFd: true },
    { name: "other", gsi: undefined, isConnected: false, hasEventFd: true },
  ]);
  t.same(
    routing.entries.filter(({ kind }) => kind === "message"),
    [{ kind: "message", gsi: 24, message: MESSAGE }],
  );
  t.equal(routing.entries.length, 39);
  one.mask();
  t.equal(routing.routes[0]?.isConnected, false);
  one.release();
  other.release();
  t.same(routing.routes, []);
  t.equal(routing.entries.length, 38);
  t.end();
});
