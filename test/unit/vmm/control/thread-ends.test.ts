import t from "tap";
import { closeBehind, type EndingThread } from "../../../../src/vmm/control/thread-ends.ts";
import { defer } from "../../../../src/vmm/control/worker-link.ts";

class FakeThread implements EndingThread {
  readonly name: string;
  readonly #end = defer<void>();
  readonly ended: Promise<void> = this.#end.promise;

  constructor(name: string) {
    this.name = name;
  }

  end(): void {
    this.#end.resolve();
  }
}

class FakeThings {
  readonly name = "RAM and files";
  readonly log: string[] = [];

  close(): void {
    this.log.push("close");
  }

  onLate(): void {
    this.log.push("late");
  }

  readonly report = (level: string, text: string): void => void this.log.push(`${level}: ${text}`);
}

t.test("closeBehind() gives back what threads use when the last one has ended", async (t) => {
  const threads = [new FakeThread("one"), new FakeThread("two")];
  const things = new FakeThings();
  const closing = closeBehind(threads, 60_000, things, things.report);
  threads[1]?.end();
  await new Promise(setImmediate);
  t.same(things.log, []);
  threads[0]?.end();
  t.equal(await closing, undefined);
  t.same(things.log, ["close"]);
});

t.test("closeBehind() gives nothing back while a thread lives, and says what stays", async (t) => {
  const threads = [new FakeThread("the device thread"), new FakeThread("the thread of vCPU 0"), new FakeThread("x")];
  const things = new FakeThings();
  threads[2]?.end();
  const error = await closeBehind(threads, 0, things, things.report);
  const text =
    "Cannot end the device thread and the thread of vCPU 0: RAM and files stay in use until it ends " +
    "(it is in a call of the kernel: look for a disk or a file system that does not answer)";
  t.equal(error?.message, text);
  t.same(things.log, [`error: ${text}`]);
  threads[0]?.end();
  await new Promise(setImmediate);
  t.same(things.log.slice(1), []);
});

t.test("closeBehind() gives it back late when the thread ends after all", async (t) => {
  const thread = new FakeThread("the device thread");
  const things = new FakeThings();
  await closeBehind([thread], 0, things, things.report);
  thread.end();
  await new Promise(setImmediate);
  t.same(things.log.slice(1), ["close", "warn: the device thread has ended: RAM and files are given back", "late"]);
});

t.test("closeBehind() closes at once where no thread was ever made", async (t) => {
  const things = new FakeThings();
  t.equal(await closeBehind([], 60_000, things, things.report), undefined);
  t.same(things.log, ["close"]);
});
