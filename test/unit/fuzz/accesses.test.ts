import t from "tap";
import { generate } from "../../fuzz/accesses/generator.ts";
import { isAccess, type Operation } from "../../fuzz/accesses/operations.ts";
import { accessesTarget } from "../../fuzz/accesses/target.ts";
import { formatOperations, parseOperations } from "../../fuzz/engine/listing.ts";
import { Random } from "../../fuzz/engine/random.ts";
import { fuzz } from "../../fuzz/engine/run.ts";

/** Machines of 4,000 operations each. The long run is `npm run fuzz`. */
const EPISODES = 6;

t.test("The model finds nothing wrong with any function, whatever a fuzzed guest does", async (t) => {
  const { failure, progress } = await fuzz(accessesTarget(), {
    seed: 20_260_101,
    goesOn: ({ episodes }) => episodes < EPISODES,
  });
  if (failure !== undefined) t.comment(failure.listing);
  t.equal(failure?.text, undefined);
  t.equal(progress.episodes, EPISODES);
  t.same([...progress.counts.keys()].sort(), ["absolute", "bar", "config", "ram", "wide"]);
  // Wide ones are accesses of eight bytes among those to BARs.
  for (const [kind, count] of progress.counts) t.ok(count > (kind === "wide" ? 50 : 300), `${count} accesses: ${kind}`);
});

t.test("fuzz() finds a fault, cuts the guest down to what brings it about, and that can be replayed", async (t) => {
  const { failure } = await fuzz(accessesTarget(true), { seed: 1, goesOn: ({ episodes }) => episodes < EPISODES });
  t.match(failure?.text, /masked|expected/);
  const read = parseOperations<Operation>(`something else\n${failure?.listing ?? ""}`);
  t.ok(read.length > 0 && read.length < 20, `${read.length} operations are left`);
  t.equal(formatOperations(read), failure?.listing);
  t.equal(await accessesTarget(true).replay(failure?.listing ?? ""), failure?.text);
  t.equal(await accessesTarget().replay(failure?.listing ?? ""), undefined, "without the fault nothing is wrong");
});

t.test("generate() makes the same guest of the same seed, and another of another", async (t) => {
  const guest = (seed: number): string => formatOperations(generate(new Random(seed), 500));
  t.equal(guest(7), guest(7));
  t.not(guest(7), guest(8));
  t.ok(parseOperations<Operation>(guest(7)).filter(isAccess).length > 300);
});

t.test("generate() aims configuration accesses at the function they name, not at the next one's 4 KiB", async (t) => {
  const offsets = Array.from({ length: 20 }, (_, seed) => generate(new Random(seed), 4000))
    .flat()
    .flatMap((operation) => (operation.op === "config" ? [operation.offset] : []));
  t.ok(Math.max(...offsets) < 4096);
  t.ok(
    offsets.some((offset) => offset > 4000),
    "the end of them is reached all the same",
  );
});
