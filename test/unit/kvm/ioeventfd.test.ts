import t from "tap";
import type { RingWatcher } from "../../../src/base/signals.ts";
import { type Fd, gpa } from "../../../src/base/units.ts";
import { EpollLoop } from "../../../src/host/epoll.ts";
import { EventFd } from "../../../src/host/eventfd.ts";
import { IoEventFds } from "../../../src/kvm/ioeventfd.ts";

t.test("IoEventFds calls once for all rings before a wait, and again for one that comes during the call", (t) => {
  const loop = new EpollLoop();
  t.teardown(() => loop.close());
  const assigned: (readonly [Fd, number, number])[] = [];
  const doorbells = new IoEventFds(
    { assignIoeventfd: (...call) => assigned.push(call), deassignIoeventfd: () => {} },
    loop,
  );
  let calls = 0;
  const doorbell = doorbells.register(gpa(0xd000_0000), 2, () => {
    if (calls++ === 0) event.signal();
  });
  const [file, address, width] = assigned[0] ?? [];
  if (file === undefined) throw new Error("nothing was assigned");
  t.same([address, width], [0xd000_0000, 2]);
  const event = EventFd.attach(file);
  event.signal();
  event.signal();
  loop.wait(0);
  t.equal(calls, 1);
  loop.wait(0);
  t.equal(calls, 2, "the ring during the call");
  loop.wait(0);
  t.equal(calls, 2, "and nothing since");
  event.signal();
  t.same(doorbells.registered, [{ address: 0xd000_0000, width: 2 }]);
  doorbell.unregister();
  t.same(doorbells.registered, []);
  loop.wait(0);
  t.equal(calls, 2, "a doorbell that is gone does not ring");
  t.end();
});

t.test("IoEventFds.register() leaves nothing behind when KVM refuses", (t) => {
  const watched = new Set<Fd>();
  const watcher: RingWatcher = {
    watchRings: (fd) => {
      watched.add(fd);
      return { setInterest: () => {}, close: () => watched.delete(fd) };
    },
  };
  const refuse = (): void => {
    throw new Error("refused");
  };
  const doorbells = new IoEventFds({ assignIoeventfd: refuse, deassignIoeventfd: () => {} }, watcher);
  t.throws(() => doorbells.register(gpa(0xd000_0000), 0, () => {}), { message: "refused" });
  t.equal(watched.size, 0);
  t.end();
});
