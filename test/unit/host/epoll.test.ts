import { closeSync, openSync } from "node:fs";
import t from "tap";
import type { FdWatch } from "../../../src/base/signals.ts";
import { fd } from "../../../src/base/units.ts";
import { EpollLoop } from "../../../src/host/epoll.ts";
import { EventFd } from "../../../src/host/eventfd.ts";

t.test("EpollLoop.wait() calls a watch while its descriptor is ready", async (t) => {
  const loop = new EpollLoop();
  const event = EventFd.create();
  const seen: string[] = [];
  loop.watch(event.fd, "input", (isReadable, isWritable) => seen.push(`${isReadable} ${isWritable}`));
  t.equal(loop.wait(0), 0);
  event.signal();
  t.equal(loop.wait(-1), 1);
  t.equal(loop.wait(0), 1, "level-triggered: it was not drained");
  event.drain();
  t.equal(loop.wait(0), 0);
  t.same(seen, ["true false", "true false"]);
  loop.close();
  event.close();
});

t.test(
  "EpollLoop.watchRings() calls for signals that came before the wait, once, without a read of the eventfd",
  async (t) => {
    const loop = new EpollLoop();
    const event = EventFd.create();
    let rings = 0;
    loop.watchRings(event.fd, () => {
      if (rings++ === 0) event.signal(); // one that comes during the call
    });
    event.signal();
    event.signal();
    t.equal(loop.wait(-1), 1);
    t.equal(loop.wait(-1), 1, "the one of the call");
    t.equal(loop.wait(0), 0, "each is told once");
    event.signal();
    t.equal(loop.wait(-1), 1, "a counter above zero takes more");
    t.equal(rings, 3);
    loop.close();
    event.close();
  },
);

t.test("FdWatch.setInterest() chooses what is called for", async (t) => {
  const loop = new EpollLoop();
  const event = EventFd.create(); // always writable, readable once signalled
  const seen: string[] = [];
  const watch = loop.watch(event.fd, "output", (isReadable, isWritable) => seen.push(`${isReadable} ${isWritable}`));
  event.signal();
  loop.wait(0);
  watch.setInterest("both");
  loop.wait(0);
  watch.setInterest("input");
  loop.wait(0);
  watch.setInterest("none");
  t.equal(loop.wait(0), 0);
  watch.setInterest("input");
  loop.wait(0);
  t.same(seen, ["false true", "true true", "true false", "true false"]);
  loop.close();
  event.close();
});

t.test("EpollLoop drops the event of a watch that another callback of the same round closed", async (t) => {
  const loop = new EpollLoop();
  const events = [EventFd.create(), EventFd.create()];
  const watches: FdWatch[] = [];
  let calls = 0;
  for (const event of events) {
    event.signal();
    watches.push(
      loop.watch(event.fd, "input", () => {
        calls++;
        for (const watch of watches) watch.close();
      }),
    );
  }
  t.equal(loop.wait(0), 1);
  t.equal(calls, 1);
  t.equal(loop.wait(0), 0);
  loop.close();
  for (const event of events) event.close();
});

t.test("EpollLoop does not give a stale event to a new watch in the same slot", async (t) => {
  const loop = new EpollLoop();
  const first = EventFd.create();
  const second = EventFd.create();
  const seen: string[] = [];
  const watches = new Map<EventFd, FdWatch>();
  const replace = (mine: EventFd, other: EventFd) => (): void => {
    mine.drain();
    watches.get(other)?.close(); // its event of this round is already fetched
    loop.watch(third.fd, "input", () => seen.push("third"));
  };
  const third = EventFd.create();
  watches.set(first, loop.watch(first.fd, "input", replace(first, second)));
  watches.set(second, loop.watch(second.fd, "input", replace(second, first)));
  first.signal();
  second.signal();
  t.equal(loop.wait(0), 1);
  t.same(seen, [], "the third was never signalled");
  loop.close();
  for (const event of [first, second, third]) event.close();
});

t.test("FdWatch.close() may come after the descriptor was closed, and twice", async (t) => {
  const loop = new EpollLoop();
  const event = EventFd.create();
  const watch = loop.watch(event.fd, "input", () => t.fail("it was closed"));
  event.close();
  watch.close();
  watch.close();
  t.throws(() => watch.setInterest("input"), { name: "InvariantError" });
  t.equal(loop.wait(0), 0);
  loop.close();
});

t.test("EpollLoop.watch() refuses what cannot be watched and stays usable", async (t) => {
  const loop = new EpollLoop();
  const file = openSync("/dev/null", "r");
  t.throws(() => loop.watch(fd(file), "input", () => undefined), { name: "SyscallError", errno: "EPERM" });
  const event = EventFd.create();
  event.signal();
  loop.watch(event.fd, "input", () => event.drain());
  t.equal(loop.wait(0), 1);
  t.throws(() => loop.watch(event.fd, "input", () => undefined), { name: "SyscallError", errno: "EEXIST" });
  loop.close();
  loop.close();
  event.close();
  closeSync(file);
});

t.test("EpollLoop serves more descriptors than it fetches at once", async (t) => {
  const loop = new EpollLoop();
  const events = Array.from({ length: 150 }, () => EventFd.create());
  let calls = 0;
  for (const event of events) {
    loop.watch(event.fd, "input", () => {
      event.drain();
      calls++;
    });
    event.signal();
  }
  while (loop.wait(0) > 0);
  t.equal(calls, 150);
  loop.close();
  for (const event of events) event.close();
});
