import t from "tap";
import { runDeviceLoop } from "../../../../src/vmm/device/device-loop.ts";
import { calibrateWindow, PollWindow } from "../../../../src/vmm/device/polling.ts";
import { type AccessHandler, createMailboxes, MailboxServer } from "../../../../src/vmm/shared/mailbox.ts";

/** Word of a vCPU's request in its line; the layout is drawn in mailbox.ts. */
const REQUEST = 16;

t.test("runDeviceLoop() does not sleep when a request comes in just before it would", async (t) => {
  const shared = createMailboxes(1);
  const words = new Int32Array(shared);
  const timeouts: number[] = [];
  let handled = 0;
  let flushes = 0;
  runDeviceLoop({
    mailboxes: new MailboxServer(shared),
    waiter: {
      wait: (timeoutMs) => {
        timeouts.push(timeoutMs);
        return 0;
      },
    },
    handle: () => {
      handled++;
      return 0;
    },
    // The request appears after the pass over the mailboxes and before the thread announces its sleep.
    flush: () => {
      if (flushes++ === 0) Atomics.add(words, REQUEST, 1);
    },
    isDone: () => handled === 1,
    window: new PollWindow(0, true),
    yieldProcessor: () => undefined,
    now: () => 0,
  });
  t.equal(handled, 1);
  t.equal(timeouts[0], 0, "a look at the descriptors first, no sleep");
});

t.test("runDeviceLoop() looks at the descriptors while a busy vCPU keeps it polling", async (t) => {
  const shared = createMailboxes(1);
  const words = new Int32Array(shared);
  const timeouts: number[] = [];
  let time = 0;
  let handled = 0;
  Atomics.add(words, REQUEST, 1);
  runDeviceLoop({
    mailboxes: new MailboxServer(shared),
    waiter: {
      wait: (timeoutMs) => {
        timeouts.push(timeoutMs);
        return 0;
      },
    },
    handle: () => {
      handled++;
      return 0;
    },
    flush: () => {
      if (handled < 1000) Atomics.add(words, REQUEST, 1);
    },
    isDone: () => handled >= 100 || timeouts.includes(-1),
    window: new PollWindow(50, true),
    yieldProcessor: () => undefined,
    now: () => {
      time += 10;
      Atomics.add(words, REQUEST, 1);
      return time;
    },
  });
  t.ok(timeouts.length > 10, `${timeouts.length} looks at the descriptors`);
  t.notOk(timeouts.includes(-1), "it never slept");
});

t.test("runDeviceLoop() yields at once after an access, and while polling less often than it looks", async (t) => {
  const shared = createMailboxes(1);
  const words = new Int32Array(shared);
  let time = 0;
  let looks = 0;
  let isDone = false;
  const yields: number[] = [];
  Atomics.add(words, REQUEST, 1);
  runDeviceLoop({
    mailboxes: new MailboxServer(shared),
    waiter: {
      wait: (timeoutMs) => {
        if (timeoutMs === -1) isDone = true;
        looks++;
        return 0;
      },
    },
    handle: () => 0,
    flush: () => undefined,
    isDone: () => isDone,
    window: new PollWindow(300, true),
    yieldProcessor: () => yields.push(looks),
    now: () => {
      time += 3;
      return time;
    },
  });
  t.equal(yields[0], 1, "after the pass that did it");
  t.ok(yields.length >= 5, `${yields.length} yields`);
  t.ok(looks > 3 * yields.length, `${looks} looks at the descriptors`);
});

t.test("runDeviceLoop() looks but once before it sleeps where polling is off", async (t) => {
  const shared = createMailboxes(1);
  Atomics.add(new Int32Array(shared), REQUEST, 1);
  let passes = 0;
  let sleeps = 0;
  class Counting extends MailboxServer {
    override serve(handle: AccessHandler): number {
      passes++;
      return super.serve(handle);
    }
  }
  runDeviceLoop({
    mailboxes: new Counting(shared),
    waiter: {
      wait: (timeoutMs) => {
        if (timeoutMs === -1) sleeps++;
        return 0;
      },
    },
    handle: () => 0,
    flush: () => undefined,
    isDone: () => sleeps === 1,
    window: new PollWindow(0, true),
    yieldProcessor: () => t.fail("no vCPU waits for a thread that is about to sleep"),
    now: () => 0,
  });
  t.equal(passes, 2, "the access, and nothing more");
});

t.test("runDeviceLoop() sleeps for as long as it takes once nothing comes for the polling window", async (t) => {
  const shared = createMailboxes(1);
  Atomics.add(new Int32Array(shared), REQUEST, 1);
  let time = 0;
  let isDone = false;
  const timeouts: number[] = [];
  runDeviceLoop({
    mailboxes: new MailboxServer(shared),
    waiter: {
      wait: (timeoutMs) => {
        timeouts.push(timeoutMs);
        if (timeoutMs === -1) isDone = true;
        return 0;
      },
    },
    handle: () => 0,
    flush: () => undefined,
    isDone: () => isDone,
    window: new PollWindow(50, true),
    yieldProcessor: () => undefined,
    now: () => {
      time += 10;
      return time;
    },
  });
  t.equal(timeouts.at(-1), -1);
  t.ok(time >= 50, "after the window");
});

t.test("PollWindow opens when short sleeps follow each other and closes when they get long", async (t) => {
  const window = new PollWindow(100, false);
  t.equal(window.microseconds, 0);
  window.slept(40);
  t.ok(window.microseconds > 0, "a little more patience would have paid");
  for (let i = 0; i < 10; i++) window.slept(90);
  t.equal(window.microseconds, 100, "never more than the maximum");
  for (let i = 0; i < 10; i++) window.slept(5000);
  t.equal(window.microseconds, 0, "an idle guest is not polled for");
});

t.test(
  "runDeviceLoop() sleeps, and does not poll again, once a yield gave its processor to another program",
  async (t) => {
    const shared = createMailboxes(1);
    let time = 0;
    let sleeps = 0;
    let yields = 0;
    runDeviceLoop({
      mailboxes: new MailboxServer(shared),
      waiter: {
        wait: (timeoutMs) => {
          if (timeoutMs === 0) return 0;
          sleeps++;
          return 1;
        },
      },
      handle: () => 0,
      flush: () => undefined,
      isDone: () => sleeps >= 20,
      window: new PollWindow(100, false),
      yieldProcessor: () => {
        yields++;
        time += 3000;
      },
      now: () => {
        time += 1;
        return time;
      },
    });
    t.equal(yields, 1, "the first one taught it");
  },
);

t.test("PollWindow shuts after a yield longer than it could ever be, for longer each time", async (t) => {
  const window = new PollWindow(100, false);
  const sleepsUntilOpen = (): number => {
    for (let sleeps = 0; ; sleeps++) {
      if (window.microseconds > 0) return sleeps;
      window.slept(50);
    }
  };
  sleepsUntilOpen();
  window.yielded(90);
  t.ok(window.microseconds > 0, "the vCPU had the processor for a moment");
  window.yielded(3000);
  t.equal(window.microseconds, 0);
  const first = sleepsUntilOpen();
  t.ok(first > 10, `${first} sleeps`);
  window.yielded(3000);
  const second = sleepsUntilOpen();
  t.ok(second > 1.5 * first, `${second} sleeps`);
  for (let i = 0; i < 20; i++) {
    sleepsUntilOpen();
    window.yielded(3000);
  }
  t.ok(sleepsUntilOpen() < 10_000, "it is tried again now and then");
});

t.test("PollWindow stays open over a yield that polling has paid for", async (t) => {
  const window = new PollWindow(100, false);
  while (window.microseconds === 0) window.slept(50);
  for (let i = 0; i < 1000; i++) window.found();
  window.yielded(3000);
  t.ok(window.microseconds > 0, "a thousand wake-ups were saved");
  window.yielded(3000);
  t.equal(window.microseconds, 0, "and none since");
});

t.test("runDeviceLoop() counts as found what came while it polled, and not what it was woken for", async (t) => {
  const shared = createMailboxes(1);
  const words = new Int32Array(shared);
  let time = 0;
  let handled = 0;
  let found = 0;
  class Counting extends PollWindow {
    override found(): void {
      found++;
    }
  }
  runDeviceLoop({
    mailboxes: new MailboxServer(shared),
    waiter: {
      wait: (timeoutMs) => {
        if (timeoutMs === -1) Atomics.add(words, REQUEST, 1);
        return 0;
      },
    },
    handle: () => {
      handled++;
      return 0;
    },
    flush: () => undefined,
    isDone: () => handled >= 3,
    window: new Counting(50, true),
    // The second request comes while it polls; the first and the third wake it.
    yieldProcessor: () => {
      if (handled === 1) Atomics.add(words, REQUEST, 1);
    },
    now: () => {
      time += 5;
      return time;
    },
  });
  t.equal(found, 1);
});

t.test("calibrateWindow() measures the host and not who took its processor meanwhile", async (t) => {
  let time = 0;
  let looks = 0;
  const window = calibrateWindow(
    () => {
      time += looks++ === 100 ? 3000 : 0.03;
    },
    () => time,
  );
  t.ok(Math.abs(window - 120) < 1, `${window} µs for 4000 looks of 30 ns`);
  const slowest = calibrateWindow(
    () => {
      time += 100;
    },
    () => time,
  );
  t.equal(slowest, 5000, "never more than 5 ms");
});

t.test("PollWindow keeps a fixed length when told one", async (t) => {
  const window = new PollWindow(30, true);
  window.slept(1);
  window.slept(1_000_000);
  window.yielded(1_000_000);
  t.equal(window.microseconds, 30);
});
