import t from "tap";
import { Bus, type BusDevice } from "../../../../src/base/bus.ts";
import { fd, gpa, gsi, hva } from "../../../../src/base/units.ts";
import {
  type TraceSink,
  traceAccesses,
  traceCoalescedWrite,
  traceDoorbells,
  traceLine,
  traceResampledLines,
  traceRouter,
  traceSlots,
} from "../../../../src/vmm/device/trace.ts";
import { Tracer } from "../../../../src/vmm/device/tracer.ts";
import { ACCESS, type AccessHandler } from "../../../../src/vmm/shared/mailbox.ts";
import { formatTrace, type TraceEvent } from "../../../../src/vmm/shared/trace-event.ts";
import { FakeDoorbells } from "../../../support/fake-doorbells.ts";
import { FakeLine } from "../../../support/fake-line.ts";
import { FakeMsiRouter } from "../../../support/fake-msi-router.ts";

const registers: BusDevice = {
  name: "COM1",
  read: () => 0x60,
  write: () => undefined,
  describe: (offset) => (offset === 5 ? "LSR" : undefined),
};

function setUp() {
  const lines: string[] = [];
  const events: TraceEvent[] = [];
  const tracer = {
    emit: (event: TraceEvent): void => {
      lines.push(formatTrace(event));
      events.push(event);
    },
  };
  const note = (text: string): void => void lines.push(text);
  const ports = new Bus("port");
  const mmio = new Bus("MMIO");
  ports.attach(0x3f8, 8, registers);
  return { ports, mmio, tracer, note, events, take: () => lines.splice(0) };
}

t.test("traceAccesses() tells each access with its value and what answers, and passes the answer on", async (t) => {
  const { ports, mmio, tracer, note, take, events } = setUp();
  const handle: AccessHandler = (_vcpu, kind, address, width, value) => {
    if (kind === ACCESS.portRead) return ports.read(address, width);
    if (kind === ACCESS.mmioWrite) note("BAR moved");
    if (kind === ACCESS.mmioWrite) mmio.attach(0x1000, 16, { ...registers, name: "moved" });
    return value;
  };
  const traced = traceAccesses(handle, () => ({ ports, mmio }), tracer);
  t.equal(traced(0, ACCESS.portRead, 0x3fd, 1, 0), 0x60);
  t.equal(traced(1, ACCESS.portWrite, 0x3f9, 1, 7), 7);
  traced(0, ACCESS.portWrite, 0x80, 1, 7);
  traced(0, ACCESS.mmioWrite, 0x1004, 4, 0xffff_ffff);
  traced(0, ACCESS.memoryFault, 0, 4, 0);
  t.same(take(), [
    "cpu0 port read 0x3fd/1 = 0x60: COM1 LSR",
    "cpu1 port write 0x3f9/1 = 0x7: COM1 +0x1",
    "cpu0 port write 0x80/1 = 0x7: no device",
    "cpu0 MMIO write 0x1004/4 = 0xffffffff: no device", // as it was before the write
    "BAR moved",
    "cpu0 memory fault 0x0/4 = 0x0: device memory",
  ]);
  t.same(events[0], {
    ...{ kind: "access", vcpu: 0, access: "port read", address: 0x3fd, width: 1, value: 0x60, what: "COM1 LSR" },
  });
  const early = traceAccesses(handle, () => undefined, tracer);
  early(0, ACCESS.portWrite, 0x80, 1, 1);
  t.match(take(), [/no device$/], "before there are buses");
});

t.test("traceRouter() tells what becomes of a message, and leaves the route as it is", async (t) => {
  const { tracer, take } = setUp();
  const router = new FakeMsiRouter();
  const traced = traceRouter(router, tracer);
  let route = traced.allocate("disk0 msix 1");
  t.ok(route.isMasked);
  traced.batch(() => {
    route.mask();
    route.setMessage({ addressLow: 0xfee0_2000, addressHigh: 0, data: 0x4024 });
    route.unmask();
    route.unmask();
  });
  route.signal();
  t.equal(router.deliveries.length, 1);
  route.mask();
  route.signal();
  t.ok(route.isPending);
  route.release();
  t.same(
    take(),
    ["vector 0x24 to APIC 2", "unmasked", "signalled", "masked", "signalled", "released"].map(
      (text) => `message disk0 msix 1: ${text}`,
    ),
  );
  route = traced.allocate("x");
  route.setMessage({ addressLow: 0xfee0_100c, addressHigh: 0x100, data: 0x31 });
  t.same(take(), ["message x: vector 0x31 to APIC 257 (logical)"]);
  t.equal(route.eventFd, -1);
});

t.test("Lines, doorbells and slots are told when they change, and work as before", async (t) => {
  const { mmio, tracer, take } = setUp();
  const fake = new FakeLine();
  const line = traceLine(fake, tracer);
  for (const level of [true, true, false]) line.setLevel(level);
  t.equal(fake.rises, 1);
  t.same(take(), [`line ${fake.name} (GSI ${fake.gsi}) up`, `line ${fake.name} (GSI ${fake.gsi}) down`]);

  mmio.attach(0xfe00_0000, 0x4000, { ...registers, name: "disk0 BAR 0", describe: () => "notification of queue 0" });
  const doorbells = new FakeDoorbells();
  let rings = 0;
  const doorbell = traceDoorbells(doorbells, mmio, tracer).register(gpa(0xfe00_3000), 0, () => rings++);
  doorbells.ring(0xfe00_3000, 2);
  doorbell.unregister();
  t.equal(doorbells.ring(0xfe00_3000, 2), false);
  t.equal(rings, 1);
  t.same(take(), ["doorbell 0xfe003000: disk0 BAR 0 notification of queue 0"]);

  let mapped = 0;
  const mapSlot = () => {
    mapped++;
    return { unmap: () => void mapped-- };
  };
  const slot = traceSlots({ mapSlot }, tracer).mapSlot("ROM", gpa(0x1000), hva(0), 0x2000, true);
  t.equal(mapped, 1);
  slot.unmap();
  t.equal(mapped, 0);
  t.same(take(), ["slot ROM at 0x1000+0x2000: mapped read-only", "slot ROM at 0x1000+0x2000: unmapped"]);

  const disconnected: string[] = [];
  const connect = () => ({ disconnect: () => void disconnected.push("once") });
  traceResampledLines({ connect }, tracer).connect(gsi(21), fd(3), fd(4)).disconnect();
  t.same(disconnected, ["once"]);
  t.same(take(), ["line GSI 21 driven by its device", "line GSI 21 let go of"]);
});

t.test("traceCoalescedWrite() tells what was written without an exit, before it is done", async (t) => {
  const { ports, tracer, note, take } = setUp();
  const write = traceCoalescedWrite((port, width, value) => note(`written: ${port} ${width} ${value}`), ports, tracer);
  write(0x3fd, 1, 7);
  t.same(take(), ["coalesced port write 0x3fd/1 = 0x7: COM1 LSR", "written: 1021 1 7"]);
});

t.test(
  "Everything that is wired through the trace works as before while it is off, and when it is switched on later",
  async (t) => {
    const { ports, take } = setUp();
    const tracer = new Tracer(() => t.fail("nothing is told"));
    const written: number[] = [];
    const write = traceCoalescedWrite((port) => written.push(port), ports, tracer);
    const fake = new FakeLine();
    const line = traceLine(fake, tracer);
    write(0x3fd, 1, 7);
    line.setLevel(true);
    t.same(written, [0x3fd]);
    t.equal(fake.rises, 1);
    const told: string[] = [];
    const on = { emit: undefined as TraceSink["emit"] };
    const later = traceLine(new FakeLine(), on);
    later.setLevel(true);
    on.emit = (event) => void told.push(formatTrace(event));
    later.setLevel(false);
    t.same(told, ["line fake line (GSI 11) down"]);
    t.same(take(), []);
  },
);
