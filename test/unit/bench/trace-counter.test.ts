import t from "tap";
import { byThreadName, parseHistogram } from "../../../bench/trace-counter.ts";

const HISTOGRAM = `# event histogram
#
# trigger info: hist:keys=common_pid:vals=hitcount:sort=hitcount:size=4096 [active]
#

{ common_pid:        412 } hitcount:          7
{ common_pid: ${process.pid} } hitcount:      12345

Totals:
    Hits: 12352
    Entries: 2
    Dropped: 0
`;

t.test("parseHistogram() reads what the kernel shows", async (t) => {
  t.same(
    [...parseHistogram(HISTOGRAM)],
    [
      [412, 7],
      [process.pid, 12_345],
    ],
  );
});

t.test("byThreadName() names a process's threads and leaves out those of others", async (t) => {
  const named = byThreadName(process.pid, parseHistogram(HISTOGRAM));
  t.same(Object.values(named), [12_345]);
});
