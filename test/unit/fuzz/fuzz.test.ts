import t from "tap";
import { generate } from "../../fuzz/generator.ts";
import { formatOperations, isAccess, parseOperations } from "../../fuzz/operations.ts";
import { Random } from "../../fuzz/random.ts";
import { fuzz, runOperations } from "../../fuzz/run.ts";

/** Machines of 4,000 operations each. The long run is `npm run fuzz`. */
const EPISODES = 6;

t.test("The model finds nothing wrong with any function, whatever a fuzzed guest does", async (t) => {
  const { failure, progress } = fuzz({ seed: 20_260_101, goesOn: ({ episodes }) => episodes < EPISODES });
  if (failure !== undefined) t.comment(formatOperations(failure.operations));
  t.equal(failure?.text, undefined);
  t.equal(progress.episodes, EPISODES);
  for (const [kind, count] of Object.entries(progress.accesses)) t.ok(count > 300, `${count} accesses: ${kind}`);
});

t.test("fuzz() finds a fault, cuts the guest down to what brings it about, and that can be replayed", async (t) => {
  const { failure } = fuzz({ seed: 1, goesOn: ({ episodes }) => episodes < EPISODES, ignoresMasks: true });
  t.match(failure?.text, /masked|expected/);
  const operations = failure?.operations ?? [];
  t.ok(operations.length > 0 && operations.length < 20, `${operations.length} operations are left`);
  const read = parseOperations(`something else\n${formatOperations(operations)}`);
  t.same(read, operations);
  t.equal(runOperations(read, true), failure?.text);
  t.equal(runOperations(read), undefined, "without the fault nothing is wrong");
});

t.test("generate() makes the same guest of the same seed, and another of another", async (t) => {
  const guest = (seed: number): string => formatOperations(generate(new Random(seed), 500));
  t.equal(guest(7), guest(7));
  t.not(guest(7), guest(8));
  t.ok(parseOperations(guest(7)).filter(isAccess).length > 300);
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
