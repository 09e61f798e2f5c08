import t from "tap";
import { fuzz } from "../../fuzz/engine/run.ts";
import { TARGETS } from "../../fuzz/targets.ts";

/** Operations of each target; what `accesses` does is in a file of its own. The long run is `npm run fuzz`. */
const OPERATIONS: Readonly<Record<string, number>> = {
  removals: 6000,
  platform: 60_000,
  boot: 2000,
  "command-line": 2000,
  block: 8000,
  "vfio-user-server": 3000,
  "vfio-user-client": 2000,
};

for (const target of TARGETS.map((make) => make()).filter(({ name }) => name !== "accesses")) {
  t.test(`Target ${target.name} finds nothing`, async (t) => {
    t.teardown(() => target.close());
    for (const text of target.leftOut()) t.comment(`left out: ${text}`);
    const enough = OPERATIONS[target.name] ?? Number.NaN;
    const { failure, progress } = await fuzz(target, {
      seed: 20_261_130,
      goesOn: ({ operations }) => operations < enough,
    });
    if (failure !== undefined) t.comment(failure.listing);
    t.equal(failure?.text, undefined);
    t.ok(progress.operations >= enough, `${progress.operations} ${target.unit}`);
    for (const [kind, count] of progress.counts) t.ok(count > 2, `${count} ${kind}`);
  });
}
