import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, readdirSync, readSync, writeFileSync, writeSync } from "node:fs";
import t, { type Test } from "tap";
import { errnoOf } from "../../../../src/base/errors.ts";
import { fd } from "../../../../src/base/units.ts";
import { type EntropySource, openEntropySource } from "../../../../src/host/entropy/entropy-source.ts";
import { SlowSource } from "../../../../src/host/entropy/slow-source.ts";
import { HostBench, text } from "../../../support/host-bench.ts";

/** A source, and what it has given each time its reader was told or asked. */
function open(t: Test, bench: HostBench, path: string): { source: EntropySource; take: (sizeBytes: number) => string } {
  const source = openEntropySource(path, bench.loop, bench.report);
  t.teardown(() => source.close(10_000));
  const take = (sizeBytes: number): string => {
    const target = new Uint8Array(sizeBytes);
    return text(target.subarray(0, source.take(target)));
  };
  return { source, take };
}

const fifo = (bench: HostBench): string => {
  const path = bench.path("fifo");
  execFileSync("mkfifo", [path]);
  return path;
};

t.test("openEntropySource() reads /dev/urandom at once, as much as is asked for", async (t) => {
  const bench = new HostBench(t);
  const { take } = open(t, bench, "/dev/urandom");
  const [first, second] = [take(4096), take(4096)];
  t.equal(first.length, 4096);
  t.not(first, second);
});

t.test("openEntropySource() gives what a regular file has, and says once that it has ended", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("seed");
  writeFileSync(path, "0123456789");
  const { take } = open(t, bench, path);
  t.same([take(4), take(4), take(4), take(4), take(4)], ["0123", "4567", "89", "", ""]);
  t.same(bench.reported, [`warn: rng: ${path} has ended: the guest gets no more random bytes`]);
});

t.test("openEntropySource() waits for a pipe's writer elsewhere, and hands on what it writes", async (t) => {
  const bench = new HostBench(t);
  const path = fifo(bench);
  const { source, take } = open(t, bench, path);
  let calls = 0;
  source.onReady(() => calls++);
  t.equal(take(8), "", "no process has it open for writing");
  t.equal(take(8), "", "asked again, before the answer");
  const writer = openSync(path, constants.O_WRONLY);
  writeSync(writer, "0123456789");
  bench.turnUntil(() => calls === 1);
  t.equal(take(3), "012");
  t.equal(take(100), "34567", "no more was read than was asked for");
  t.equal(take(100), "");
  bench.turnUntil(() => calls === 2);
  t.equal(take(100), "89");
  t.equal(take(100), "");
  closeSync(writer);
  bench.turnUntil(() => bench.reported.length > 0);
  t.equal(take(100), "");
  t.same(bench.reported, [`warn: rng: ${path} has ended: the guest gets no more random bytes`]);
  t.equal(calls, 2);
});

/** A device without poll whose nonblocking read may answer EAGAIN. drivers/char/hw_random/core.c, rng_dev_read */
function missingGenerator(): string | false {
  try {
    const file = openSync("/dev/hwrng", constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      readSync(file, new Uint8Array(1));
    } catch (error) {
      if (errnoOf(error) !== "EAGAIN") return `/dev/hwrng: ${errnoOf(error)}`;
    } finally {
      closeSync(file);
    }
    return false;
  } catch (error) {
    return `/dev/hwrng: ${errnoOf(error)}`;
  }
}

t.test("openEntropySource() reads a hardware generator elsewhere", { skip: missingGenerator() }, async (t) => {
  const bench = new HostBench(t);
  const { source, take } = open(t, bench, "/dev/hwrng");
  let got = "";
  source.onReady(() => {
    got += take(8);
  });
  got += take(8);
  bench.turnUntil(() => got.length > 0);
  t.same(bench.reported, []);
});

t.test("openEntropySource() says what became of a source that cannot be read", async (t) => {
  const bench = new HostBench(t);
  const { take } = open(t, bench, bench.directory); // EISDIR; the command line does not let it through
  t.equal(take(8), "");
  bench.turnUntil(() => bench.reported.length > 0);
  t.same(bench.reported, [
    `warn: rng: ${bench.directory} cannot be read any more: EISDIR: the guest gets no more random bytes`,
  ]);
  t.throws(() => openEntropySource(bench.path("none"), bench.loop, bench.report), {
    name: "SpecError",
    message: `rng.source: Cannot open ${bench.path("none")}: ENOENT`,
  });
});

t.test("EntropySource.close() ends a worker that waits, and gives all descriptors back", async (t) => {
  const bench = new HostBench(t);
  const path = fifo(bench);
  const cycle = (asks: boolean): void => {
    const source = openEntropySource(path, bench.loop, bench.report);
    if (asks) source.take(new Uint8Array(8));
    source.close(10_000);
  };
  cycle(true);
  const count = (): number => readdirSync("/proc/self/fd").length;
  const before = count();
  for (let round = 0; round < 5; round++) cycle(round % 2 === 0);
  // A worker's own descriptors go when its thread does, which this thread's event loop is told of.
  for (let turns = 0; turns < 1000 && count() > before; turns++) await new Promise((resolve) => setImmediate(resolve));
  t.ok(count() <= before, `${count()} of ${before}`);
  t.same(bench.reported, []);
});

t.test("SlowSource is refused in one line when its thread does not run, and leaves no descriptor", async (t) => {
  const bench = new HostBench(t);
  const path = fifo(bench);
  const descriptors = (): number => readdirSync("/proc/self/fd").length;
  const before = descriptors();
  const entry = new URL("file:///nowhere.js");
  const start = (): unknown =>
    new SlowSource(path, fd(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)), bench.loop, bench.report, {
      ...{ entry, timeoutMs: 1 },
    });
  t.throws(start, {
    name: "HostError",
    message: /^Cannot start the thread that reads .*: it does not run after .* \(raise/,
  });
  const isBack = async (): Promise<boolean> => {
    await new Promise(setImmediate); // the thread's own go some turns after its end
    return descriptors() <= before;
  };
  while (!(await isBack()));
  t.equal(descriptors(), before);
});
