import t from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { PassthroughFunction } from "../../../src/passthrough/function.ts";
import { FakeDeviceBackend } from "../../support/fake-device-backend.ts";
import { EDU, KIOXIA, NVME, SD_HOST } from "../../support/fake-devices.ts";
import { FakePassthroughHost, PassthroughBench } from "../../support/fake-passthrough-host.ts";

const MEMORY = 2;
const MASTER = 4;

/** An NVMe controller at work: decode, DMA and one vector on. */
function working(): PassthroughBench {
  const bench = new PassthroughBench(NVME);
  bench.write(0x04, 2, MEMORY | MASTER);
  bench.write(0x42, 2, 0x8000);
  const entry = bench.barAddress(0) + 0x2000;
  bench.host.mmio.write(entry, 4, 0xfee0_0000);
  bench.host.mmio.write(entry + 12, 4, 0);
  bench.host.takeLog();
  return bench;
}

t.test(
  "PassthroughFunction.close() goes in the kernel's order: host interrupts, routes, slots, mappings, device",
  async (t) => {
    const bench = working();
    const at = `0x${bench.barAddress(0).toString(16)}`;
    bench.function.close();
    t.same(bench.host.takeLog(), [
      "disarm msix",
      "disarm error",
      "disarm request",
      "unwatch",
      "unwatch",
      "route 100 mask",
      "route 100 release",
      `no dma BAR 0 of 0000:01:00.0 at ${at}+0x2000`,
      `no slot BAR 0 of 0000:01:00.0 at ${at}+0x2000`,
      "munmap 0 0x0+0x2000",
      "close device",
    ]);
    bench.function.close();
    t.same(bench.host.takeLog(), [], "a second close does nothing");
  },
);

t.test("PassthroughFunction closes after the root has taken its BARs off the bus", async (t) => {
  const bench = working();
  bench.root.close();
  t.ok(bench.backend.isClosed);
  t.same(bench.backend.mappedAreas, []);
  t.same(
    bench.host.routes.map((route) => route.isReleased),
    [true],
  );
});

t.test(
  "PassthroughFunction.reset() stops interrupts and DMA before it resets the device, and wires INTx again",
  async (t) => {
    const bench = working();
    bench.root.reset();
    const log = bench.host.takeLog();
    const step = (line: string): number => {
      const at = log.indexOf(line);
      t.not(at, -1, line);
      return at;
    };
    t.ok(step("disarm msix") < step("write config 0x4/2 = 0x0"));
    t.ok(step("write config 0x4/2 = 0x0") < step("reset"));
    t.ok(step("reset") < step("connect gsi 17"));
    t.equal(log.filter((line) => line.startsWith("slot")).length, 0);
    t.equal(bench.read(0x42, 2), 64, "MSI-X is off, 65 vectors");
    t.equal(bench.read(0x04, 2), 0);
    t.equal(bench.function.summary().interrupts.kind, "intx");
    t.ok(log.includes("write config 0x88/2 = 0x2810"), "device control is as the device came");
  },
);

t.test("PassthroughFunction.reset() takes MSI back, too: off, without address and data", async (t) => {
  const bench = new PassthroughBench(EDU);
  bench.write(0x44, 4, 0xfee0_0000);
  bench.write(0x4c, 2, 0x4050);
  bench.write(0x42, 2, 0x0021);
  t.equal(bench.backend.triggers.get("msi")?.length, 4);
  bench.root.reset();
  t.equal(bench.read(0x42, 2) & 0x71, 0);
  t.same([bench.read(0x44, 4), bench.read(0x4c, 2)], [0, 0]);
  t.notOk(bench.backend.triggers.has("msi"));
  t.equal(bench.function.summary().interrupts.kind, "intx");
});

t.test("PassthroughFunction works again after reset()", async (t) => {
  const bench = working();
  bench.root.reset();
  bench.write(0x04, 2, MEMORY);
  bench.write(0x42, 2, 0x8000);
  const entry = bench.barAddress(0) + 0x2000;
  bench.host.mmio.write(entry + 12, 4, 0);
  t.same(bench.backend.triggers.get("msix"), [101], "a new route");
  t.equal(bench.function.summary().bars[0]?.slotBytes, 0x2000);
});

t.test("PassthroughFunction.reset() says when the device cannot be reset alone or refuses", async (t) => {
  const stubborn = new PassthroughBench(SD_HOST);
  stubborn.root.reset();
  t.match(stubborn.host.reports, [/0000:04:00.0 cannot be reset alone/]);
  const refusing = new PassthroughBench(KIOXIA);
  refusing.backend.failures.set("reset", new HostError("TSVMM_HOST_CALL", "Cannot reset 0000:02:00.0"));
  refusing.root.reset();
  t.match(refusing.host.reports, [/Cannot reset 0000:02:00.0/]);
  t.equal(refusing.function.summary().interrupts.kind, "intx");
});

t.test("PassthroughFunction passes the host's ERR and REQ events on", async (t) => {
  const bench = new PassthroughBench(NVME);
  const [error] = bench.backend.triggers.get("error") ?? [];
  const [request] = bench.backend.triggers.get("request") ?? [];
  bench.host.watched.get(error ?? -1)?.();
  bench.host.watched.get(request ?? -1)?.();
  bench.host.watched.get(request ?? -1)?.();
  t.same(bench.events, ["error", "request", "request"]);
  t.match(bench.function.summary(), { errors: 1, requests: 2 });
});

t.test("PassthroughFunction closes the device and leaves nothing watched when it cannot be made", async (t) => {
  const host = new FakePassthroughHost();
  const backend = new FakeDeviceBackend(NVME, host.log);
  backend.failures.set("setErrorEvent", new HostError("TSVMM_HOST_CALL", "Cannot arm 1 error vectors"));
  const make = (): unknown =>
    new PassthroughFunction(backend, { bars: "map", excludedMmapBars: [] }, host, {
      onError: () => undefined,
      onRequest: () => undefined,
    });
  t.throws(make, /Cannot arm 1 error vectors/);
  t.ok(backend.isClosed);
  t.equal(host.watched.size, 0);
});
