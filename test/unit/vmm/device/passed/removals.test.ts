import t from "tap";
import { PassthroughFunction } from "../../../../../src/passthrough/function.ts";
import { PciRoot } from "../../../../../src/pci/root.ts";
import { AcpiPm } from "../../../../../src/platform/acpi-pm.ts";
import { PassedFunctions } from "../../../../../src/vmm/device/passed/passed-functions.ts";
import { Removals } from "../../../../../src/vmm/device/passed/removals.ts";
import { intxGsi } from "../../../../../src/vmm/shared/memory-map.ts";
import type { GuestEvent } from "../../../../../src/vmm/shared/messages.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import { FakeDeviceBackend } from "../../../../support/fake-device-backend.ts";
import { EDU, NVME, SD_HOST } from "../../../../support/fake-devices.ts";
import { FakeLine } from "../../../../support/fake-line.ts";
import { FakePassthroughHost } from "../../../../support/fake-passthrough-host.ts";

/** Ports of the ACPI block as the DSDT names them. */
const EJECT_REQUESTS = 4;
const EJECT = 12;

/** NVMe and edu in slot 5, functions 0 and 1, the SD host in slot 6; the guest has memory decode on. */
class Bench {
  readonly host = new FakePassthroughHost();
  readonly root = new PciRoot({
    gsiOf: intxGsi,
    ports: this.host.ports,
    mmio: this.host.mmio,
    windows: {
      ports: [],
      memory32: [{ base: 0xc000_0000, sizeBytes: 0x1000_0000 }],
      memory64: [{ base: 0x40_0000_0000, sizeBytes: 0x1_0000_0000 }],
    },
    report: this.host.report,
  });
  readonly backends = new Map<string, FakeDeviceBackend>();
  readonly functions = new Map<string, PassthroughFunction>();
  readonly passed = new PassedFunctions(this.host.report);
  readonly events: GuestEvent[] = [];
  readonly line = new FakeLine(9);
  readonly acpi: AcpiPm;
  readonly removals: Removals;
  #deferred: (() => void)[] = [];

  constructor() {
    this.#add("nvme", NVME, 5, 0);
    this.#add("edu", EDU, 5, 1);
    this.#add("sd", SD_HOST, 6, 0);
    this.root.assignBars();
    for (const [slot, fn] of [
      [5, 0],
      [5, 1],
      [6, 0],
    ] as const) {
      this.root.configWrite(0, slot, fn, 0x04, 2, 6);
    }
    this.acpi = new AcpiPm(new FakeClock("2026-01-02T03:04:05Z"), this.line, {
      powerOff: () => undefined,
      reset: () => undefined,
      ejectSlot: (slot) => this.removals.guestEjects(slot),
    });
    this.removals = new Removals({
      root: this.root,
      acpi: this.acpi,
      passed: this.passed,
      defer: (work) => this.#deferred.push(work),
      report: this.host.report,
      onEvent: (event) => this.events.push(event),
    });
  }

  identity(slot: number, fn: number): number {
    return this.root.configRead(0, slot, fn, 0, 4);
  }

  bar(slot: number, fn: number): number {
    return (this.root.configRead(0, slot, fn, 0x10, 4) & 0xffff_fff0) >>> 0;
  }

  isOpen(id: string): boolean {
    return this.backends.get(id)?.isClosed === false;
  }

  /** The device is pulled out, or its link goes down; nothing is said of it yet. */
  vanish(id: string): void {
    const backend = this.backends.get(id);
    if (backend !== undefined) backend.isGone = true;
  }

  /** The host kernel signals a device's ERR or REQ. */
  raise(id: string, kind: "error" | "request"): void {
    const [event] = this.backends.get(id)?.triggers.get(kind) ?? [];
    this.host.watched.get(event ?? -1)?.();
  }

  /** What the device thread does once the guest's access was answered. */
  runDeferred(): void {
    for (const work of this.#deferred.splice(0)) work();
  }

  #add(id: string, device: typeof NVME, slot: number, functionNumber: number): void {
    const backend = new FakeDeviceBackend(device, this.host.log);
    const fn = new PassthroughFunction(backend, { bars: "map", excludedMmapBars: [] }, this.host, {
      onError: () => this.removals.hostReportsError(id),
      onRequest: () => this.removals.hostWants(id),
    });
    this.backends.set(id, backend);
    this.functions.set(id, fn);
    this.passed.add({ id, function: fn, isOfHost: true, release: () => fn.close() });
    this.root.plug(fn, slot, functionNumber);
  }
}

t.test(
  "Removals asks the guest to let go when the host wants a function back, and leaves it working meanwhile",
  async (t) => {
    const bench = new Bench();
    bench.removals.hostWants("sd");
    t.ok(bench.line.isHigh);
    t.equal(bench.acpi.read(EJECT_REQUESTS, 4), 1 << 6);
    t.same(bench.events, [{ kind: "deviceWanted", device: "sd" }]);
    t.match(bench.host.reports, [/^warn: sd: the host wants 0000:04:00.0 back; the guest is asked to let go of it$/]);
    t.equal(bench.identity(6, 0), 0x0007_1b36);
    t.ok(bench.isOpen("sd"));
  },
);

t.test("Removals asks again whenever the host does, and tells of it once", async (t) => {
  const bench = new Bench();
  bench.removals.hostWants("sd");
  bench.acpi.write(3, 1, 2);
  bench.acpi.write(EJECT_REQUESTS, 4, 1 << 6); // the guest took the request, and forgot it
  t.notOk(bench.line.isHigh);
  bench.removals.hostWants("sd");
  t.ok(bench.line.isHigh);
  t.equal(bench.acpi.read(EJECT_REQUESTS, 4), 1 << 6);
  t.equal(bench.events.length, 1);
  t.equal(bench.host.reports.length, 1);
});

t.test("Removals gives a function back when the guest writes its slot to the eject register", async (t) => {
  const bench = new Bench();
  const address = bench.bar(6, 0);
  bench.removals.hostWants("sd");
  bench.acpi.write(EJECT, 4, 1 << 6);
  t.equal(bench.identity(6, 0), 0xffff_ffff, "gone at once");
  t.equal(bench.host.mmio.read(address, 4), 0xffff_ffff);
  t.ok(bench.isOpen("sd"), "closed only when the guest's access is over");
  bench.runDeferred();
  t.notOk(bench.isOpen("sd"));
  t.same(bench.events.at(-1), { kind: "deviceReleased", device: "sd" });
  t.ok(bench.isOpen("nvme"));
  bench.removals.hostWants("sd");
  t.equal(bench.events.length, 2, "it has gone already");
});

t.test("Removals gives all functions of a slot back together", async (t) => {
  const bench = new Bench();
  bench.removals.hostWants("edu");
  bench.acpi.write(EJECT, 4, 1 << 5);
  bench.runDeferred();
  t.notOk(bench.isOpen("nvme"));
  t.notOk(bench.isOpen("edu"));
  t.ok(bench.isOpen("sd"));
  t.equal(bench.identity(5, 0), 0xffff_ffff);
  t.equal(bench.host.mmio.ranges.length, 1, "only the SD host is on the bus");
});

t.test("Removals takes a slot that the guest empties of its own accord, and ignores those of others", async (t) => {
  const bench = new Bench();
  bench.acpi.write(EJECT, 4, (1 << 6) | (1 << 9) | 1);
  bench.runDeferred();
  t.same(bench.events, [{ kind: "deviceReleased", device: "sd" }]);
  t.ok(bench.isOpen("nvme"));
});

t.test("Removals leaves a function that answers after an error where it is, tells of it and counts it", async (t) => {
  const bench = new Bench();
  const nvme = bench.backends.get("nvme");
  nvme?.config.setUint16(0x8a, 0x000a, true); // Device Status: non-fatal error, unsupported request
  bench.raise("nvme", "error");
  t.same(bench.host.reports, [
    "warn: nvme: the host reports an error of 0000:01:00.0; it answers, and stays: its status shows: non-fatal " +
      "error, unsupported request",
  ]);
  t.same(bench.events, [{ kind: "deviceErred", device: "nvme" }]);
  t.equal(bench.identity(5, 0), 0x0010_1b36);
  t.ok(bench.functions.get("nvme")?.hasSlots);
  bench.runDeferred();
  t.ok(bench.isOpen("nvme"));
  t.equal(bench.acpi.read(EJECT_REQUESTS, 4), 0);
  bench.raise("nvme", "error");
  t.match(bench.passed.statistics()[0]?.counters, { hostErrors: 2, hostRequests: 0 });
});

t.test(
  "Removals takes a function that does not answer after an error away at once: all ones, no interrupts, no DMA",
  async (t) => {
    const bench = new Bench();
    const address = bench.bar(5, 0);
    bench.vanish("nvme");
    bench.removals.hostReportsError("nvme");
    t.same(bench.host.reports, [
      "error: nvme: 0000:01:00.0 does not answer after an error: class and revision read as all ones; it is taken " +
        "from the guest",
    ]);
    t.equal(bench.identity(5, 0), 0xffff_ffff);
    t.equal(bench.host.mmio.read(address, 4), 0xffff_ffff);
    t.equal(bench.identity(5, 1), 0x11e8_1234, "the other function of the slot is as it was");
    t.notOk(bench.functions.get("nvme")?.hasSlots);
    bench.runDeferred();
    t.notOk(bench.isOpen("nvme"));
    t.same([...(bench.backends.get("nvme")?.triggers.keys() ?? [])], []);
    t.equal(bench.acpi.read(EJECT_REQUESTS, 4), 1 << 5, "the guest is asked to tidy up");
    bench.removals.hostReportsError("nvme");
    t.equal(bench.host.reports.filter((line) => line.startsWith("error")).length, 1);
  },
);

t.test(
  "Removals pulls a function whose memory is dead after a fatal error, though its configuration answers",
  async (t) => {
    const bench = new Bench();
    const nvme = bench.backends.get("nvme");
    nvme?.config.setUint16(0x8a, 0x0004, true);
    bench.removals.hostReportsError("nvme");
    t.ok(bench.isOpen("nvme"), "its register reads as 0: alive");
    nvme?.memory.get(0)?.setUint32(0, 0xffff_ffff, true);
    bench.removals.hostReportsError("nvme");
    bench.runDeferred();
    t.notOk(bench.isOpen("nvme"));
    t.match(bench.host.reports.at(-2), /its status shows: fatal error; BAR 0 reads as all ones/);
  },
);

t.test("Removals looks again, and then pulls what the kernel's reset of the link did not bring back", async (t) => {
  const bench = new Bench();
  bench.removals.hostReportsError("nvme");
  bench.removals.lookAgain("nvme");
  t.equal(bench.host.reports.length, 1, "it answers: nothing new to say");
  bench.vanish("nvme");
  bench.removals.lookAgain("nvme");
  bench.runDeferred();
  t.notOk(bench.isOpen("nvme"));
  bench.removals.lookAgain("nvme");
});

t.test("Removals switches decode on again when the kernel's recovery reset the device, and says so", async (t) => {
  const bench = new Bench();
  bench.removals.hostReportsError("nvme");
  bench.backends.get("nvme")?.config.setUint16(0x04, 0, true); // what a reset of the link leaves
  bench.removals.lookAgain("nvme");
  t.equal((bench.backends.get("nvme")?.config.getUint16(0x04, true) ?? 0) & 6, 6);
  t.match(bench.host.reports.at(-1), /^warn: nvme: 0000:01:00.0 was reset without the guest/);
});

t.test("Removals pulls at any error with on-error=pull, and has the machine stopped with on-error=stop", async (t) => {
  const bench = new Bench();
  bench.removals.hostReportsError("nvme", "stop");
  t.same(bench.events, [{ kind: "deviceFailed", device: "nvme", state: "the host reports an error of 0000:01:00.0" }]);
  t.ok(bench.isOpen("nvme"));
  bench.removals.hostReportsError("nvme", "pull");
  bench.runDeferred();
  t.notOk(bench.isOpen("nvme"));
});

t.test("Removals takes a device that was pulled out at once when the host asks for it", async (t) => {
  const bench = new Bench();
  bench.vanish("sd");
  bench.raise("sd", "request");
  t.match(bench.host.reports, [/^error: sd: 0000:04:00.0 does not answer: it was pulled out, or its link is down; /]);
  t.equal(bench.identity(6, 0), 0xffff_ffff);
  bench.runDeferred();
  t.notOk(bench.isOpen("sd"), "without a word of the guest's");
  t.same(
    bench.events.map(({ kind }) => kind),
    ["deviceWanted", "deviceReleased"],
    "and the next power cycle goes without it",
  );
});

t.test("Removals takes away from within the host's own event, whose watch it closes", async (t) => {
  const bench = new Bench();
  const before = bench.host.watched.size;
  bench.vanish("nvme");
  bench.raise("nvme", "error");
  bench.runDeferred();
  t.notOk(bench.isOpen("nvme"));
  t.equal(bench.host.watched.size, before - 2, "ERR and REQ are watched no more");
});
