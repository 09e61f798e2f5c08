import t from "tap";
import { PassthroughFunction } from "../../../../../src/passthrough/function.ts";
import { PassedFunctions } from "../../../../../src/vmm/device/passed/passed-functions.ts";
import { FakeDeviceBackend } from "../../../../support/fake-device-backend.ts";
import { EDU, NVME } from "../../../../support/fake-devices.ts";
import { FakePassthroughHost } from "../../../../support/fake-passthrough-host.ts";

function setUp() {
  const host = new FakePassthroughHost();
  const registry = new PassedFunctions(host.report);
  const released: string[] = [];
  const make = (id: string, device: typeof NVME) => {
    const backend = new FakeDeviceBackend(device);
    const handlers = { onError: () => undefined, onRequest: () => undefined };
    const fn = new PassthroughFunction(backend, { bars: "map", excludedMmapBars: [] }, host, handlers);
    const passed = { id, function: fn, isOfHost: false, release: () => void released.push(id) };
    registry.add(passed);
    return passed;
  };
  return { registry, released, nvme: make("nvme", NVME), edu: make("edu", EDU) };
}

t.test("PassedFunctions.of() knows a function until it is released", async (t) => {
  const { registry, released, nvme, edu } = setUp();
  t.equal(registry.of(nvme.function), nvme);
  t.equal(registry.describe(nvme.function)?.hostAddress, "0000:01:00.0");
  registry.release(nvme);
  registry.release(nvme);
  t.same(released, ["nvme"], "given back once");
  t.equal(registry.of(nvme.function), undefined);
  t.equal(registry.describe(nvme.function), undefined);
  t.equal(registry.of(edu.function), edu);
});

t.test("PassedFunctions.statistics() keeps the counters of what was released", async (t) => {
  const { registry, nvme } = setUp();
  nvme.function.readBar(0, 0x1000, 4);
  registry.release(nvme);
  const statistics = registry.statistics();
  t.same(
    statistics.map(({ name }) => name),
    ["nvme", "edu"],
  );
  t.equal(statistics[0]?.counters["bar0.trappedReads"], 1);
});
