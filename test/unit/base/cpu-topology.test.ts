import t from "tap";
import { cpuPlace, cpuShifts, flatTopology, processorCount } from "../../../src/base/cpu-topology.ts";

t.test("cpuPlace() numbers processors of one package through", async (t) => {
  const topology = flatTopology(6);
  t.equal(processorCount(topology), 6);
  t.same(cpuShifts(topology), { core: 0, die: 3, package: 3 });
  t.same(
    Array.from({ length: 6 }, (_, index) => cpuPlace(topology, index)),
    [0, 1, 2, 3, 4, 5].map((index) => ({ apicId: index, package: 0, die: 0, coreId: index })),
  );
});

t.test("cpuPlace() gives each part of an APIC id as many bits as its count needs", async (t) => {
  const topology = { threads: 2, cores: 3, dies: 2, packages: 2 };
  t.equal(processorCount(topology), 24);
  t.same(cpuShifts(topology), { core: 1, die: 3, package: 4 });
  const places = Array.from({ length: 24 }, (_, index) => cpuPlace(topology, index));
  t.same(
    places.map(({ apicId }) => apicId),
    [
      ...[0, 1, 2, 3, 4, 5], // 6 and 7 would be a fourth core
      ...[8, 9, 10, 11, 12, 13],
      ...[16, 17, 18, 19, 20, 21],
      ...[24, 25, 26, 27, 28, 29],
    ],
  );
  t.same(places[11], { apicId: 13, package: 0, die: 1, coreId: 6 });
  t.same(places[12], { apicId: 16, package: 1, die: 0, coreId: 0 });
});
