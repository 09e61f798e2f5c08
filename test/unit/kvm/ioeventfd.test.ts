import t from "tap";
import type { FdWatch, FdWatcher } from "../../../src/base/signals.ts";
import { type Fd, gpa } from "../../../src/base/units.ts";
import { EventFd } from "../../../src/host/eventfd.ts";
import { IoEventFds } from "../../../src/kvm/ioeventfd.ts";

/** A watcher whose owner says when a descriptor is ready. */
class ManualWatcher implements FdWatcher {
  readonly watched = new Map<Fd, () => void>();

  watch(fd: Fd, _interest: string, onReady: (isReadable: boolean, isWritable: boolean) => void): FdWatch {
    this.watched.set(fd, () => onReady(true, false));
    return { setInterest: () => {}, close: () => this.watched.delete(fd) };
  }
}

t.test("IoEventFds empties the eventfd before it calls back, so that a ring during the call comes again", (t) => {
  const watcher = new ManualWatcher();
  const assigned: (readonly [Fd, number, number])[] = [];
  const doorbells = new IoEventFds(
    { assignIoeventfd: (...call) => assigned.push(call), deassignIoeventfd: () => {} },
    watcher,
  );
  let left = -1;
  const doorbell = doorbells.register(gpa(0xd000_0000), 2, () => {
    event.signal();
    left = event.drain();
  });
  t.teardown(() => doorbell.unregister());
  const [file, address, width] = assigned[0] ?? [];
  if (file === undefined) throw new Error("nothing was assigned");
  t.same([address, width], [0xd000_0000, 2]);
  const event = EventFd.attach(file);
  event.signal();
  event.signal();
  watcher.watched.get(file)?.();
  t.equal(left, 1, "only the ring during the call");
  t.end();
});

t.test("IoEventFds.register() leaves nothing behind when KVM refuses", (t) => {
  const watcher = new ManualWatcher();
  const refuse = (): void => {
    throw new Error("refused");
  };
  const doorbells = new IoEventFds({ assignIoeventfd: refuse, deassignIoeventfd: () => {} }, watcher);
  t.throws(() => doorbells.register(gpa(0xd000_0000), 0, () => {}), { message: "refused" });
  t.equal(watcher.watched.size, 0);
  t.end();
});
