import t from "tap";
import { affinityOf, apicIdsOf, topologyOf } from "../../../../src/vmm/spec/cpus.ts";
import type { MachineInput } from "../../../../src/vmm/spec/spec.ts";
import { completeSpec } from "../../../../src/vmm/spec/spec-check.ts";

const complete = (cpus: NonNullable<MachineInput["cpus"]>): unknown =>
  completeSpec({ kernel: process.execPath, cpus }).cpus;

t.test("topologyOf() is one package of cores where nothing is said", async (t) => {
  t.same(topologyOf({ count: 6 }), { threads: 1, cores: 6, dies: 1, packages: 1 });
  t.same(topologyOf({ count: 24, topology: "2:3:2:2" }), { threads: 2, cores: 3, dies: 2, packages: 2 });
  t.same(apicIdsOf({ count: 6, topology: "2:3:1:1" }), [0, 1, 2, 3, 4, 5]);
  t.same(apicIdsOf({ count: 6, topology: "1:3:1:2" }), [0, 1, 2, 4, 5, 6]);
});

t.test("affinityOf() reads lists and ranges, with the outer brackets or without", async (t) => {
  for (const affinity of ["[0@[0,2],3@[4-6,9]]", "0@[0,2],3@[4-6,9]"]) {
    t.same(
      [...affinityOf({ count: 4, affinity })],
      [
        [0, [0, 2]],
        [3, [4, 5, 6, 9]],
      ],
    );
  }
  t.same([...affinityOf({ count: 4 })], []);
});

t.test("completeSpec() refuses a topology that is none, or not of these CPUs", async (t) => {
  t.match(complete({ count: 8, topology: "2:2:1:2" }), { count: 8, topology: "2:2:1:2" });
  const cases: readonly (readonly [count: number, topology: string, message: RegExp])[] = [
    [4, "2:2", /^cpus\.topology: '2:2' is not of the form threads:cores:dies:packages$/],
    [4, "0:4:1:1", /is not of the form/],
    [4, "2:2:1:2", /^cpus\.topology: 2 threads, 2 cores, 1 dies, 2 packages make 8 CPUs, not 4$/],
    [195, "1:65:1:3", /^cpus\.topology: the last CPU's APIC id would be 320, and 254 is the highest: /],
  ];
  for (const [count, topology, message] of cases) t.throws(() => complete({ count, topology }), { message });
});

t.test("completeSpec() refuses an affinity of CPUs that are none", async (t) => {
  t.match(complete({ count: 2, affinity: "[0@[0],1@[1]]" }), { affinity: "[0@[0],1@[1]]" });
  const cases: readonly (readonly [affinity: string, message: RegExp])[] = [
    ["0@0", /^cpus\.affinity: '0@0' is not of the form \[0@\[1,2\],1@\[3-5\]\]$/],
    ["[0@[a]]", /is not of the form/],
    ["[0@[1-]]", /^cpus\.affinity: \[1-\] is no list of host CPUs such as \[0,2-5\]$/],
    ["[0@[0-999999999]]", /is no list of host CPUs/],
    ["[2@[0]]", /^cpus\.affinity: there is no CPU 2 of 2$/],
    ["[0@[0],0@[1]]", /^cpus\.affinity: CPU 0 is given twice$/],
    ["[1@[5-3]]", /^cpus\.affinity: CPU 1 has a range that runs backwards$/],
    ["[1@[9000]]", /^cpus\.affinity: no host has a CPU 9000$/],
  ];
  for (const [affinity, message] of cases) t.throws(() => complete({ count: 2, affinity }), { message });
});
