import t from "tap";
import { RemovalWatch, type UnbindPolicy } from "../../../../src/vmm/control/removal-watch.ts";

function setUp(policy: UnbindPolicy = "wait", who?: string) {
  const timers = new Map<number, { work: () => void; ms: number }>();
  const failures: string[] = [];
  const lines: string[] = [];
  const looks: string[] = [];
  let next = 1;
  const watch = new RemovalWatch({
    report: (level, text) => lines.push(`${level}: ${text}`),
    onFailure: (error) => failures.push(error.message),
    lookAgain: (device) => looks.push(device),
    policyOf: () => policy,
    whoWaits: () => who,
    timers: {
      set: (work, ms) => {
        timers.set(next, { work, ms });
        return next++;
      },
      clear: (timer) => timers.delete(timer as number), // cast: `set` answers numbers
    },
  });
  /** Lets the one timer that runs end. @returns Its milliseconds. */
  const expire = (): number | undefined => {
    const [[key, timer] = [0, undefined]] = timers;
    timers.delete(key);
    timer?.work();
    return timer?.ms;
  };
  return { watch, timers, failures, lines, looks, expire };
}

t.test("RemovalWatch says every ten seconds who waits, and lets the machine go on", async (t) => {
  const { watch, failures, lines, expire } = setUp("wait", "process 77 (bash)");
  watch.take({ kind: "deviceWanted", device: "nvme" });
  const periods = Array.from({ length: 6 }, expire);
  t.same(periods, new Array(6).fill(10_000));
  t.same(failures, []);
  t.equal(lines.length, 6);
  t.equal(
    lines[5],
    "warn: nvme: process 77 (bash) has waited 60 s for it; the guest keeps it and is asked again (remove it in the " +
      "guest, or stop the machine)",
  );
});

t.test("RemovalWatch says that the host waits where the process is not seen", async (t) => {
  const { watch, lines, expire } = setUp();
  watch.take({ kind: "deviceWanted", device: "nvme" });
  expire();
  t.match(lines, [/^warn: nvme: the host has waited 10 s for it/]);
});

t.test("RemovalWatch stops the machine after 30 s with on-unbind=stop", async (t) => {
  const { watch, timers, failures, lines, expire } = setUp("stop");
  watch.take({ kind: "deviceWanted", device: "nvme" });
  for (let time = 0; time < 3; time++) expire();
  t.equal(lines.length, 2, "before, it says who waits");
  t.same(failures, ["Cannot go on without nvme: the host wants it back, and the guest did not let go of it in 30 s"]);
  t.equal(timers.size, 0);
});

t.test("RemovalWatch counts from the first request, however often the host asks", async (t) => {
  const { watch, timers } = setUp();
  watch.take({ kind: "deviceWanted", device: "nvme" });
  watch.take({ kind: "deviceWanted", device: "nvme" });
  watch.take({ kind: "deviceWanted", device: "edu" });
  t.equal(timers.size, 2);
});

t.test("RemovalWatch has a device looked at again two seconds after an error, once for many errors", async (t) => {
  const { watch, timers, looks, expire } = setUp();
  watch.take({ kind: "deviceErred", device: "nvme" });
  watch.take({ kind: "deviceErred", device: "nvme" });
  t.equal(timers.size, 1);
  t.equal(expire(), 2000);
  t.same(looks, ["nvme"]);
  watch.take({ kind: "deviceErred", device: "nvme" });
  t.equal(timers.size, 1, "a later error has a look of its own");
});

t.test("RemovalWatch ends what waits for a device that was released, stopAll() for all", async (t) => {
  const { watch, timers } = setUp();
  watch.take({ kind: "deviceWanted", device: "nvme" });
  watch.take({ kind: "deviceErred", device: "nvme" });
  watch.take({ kind: "deviceWanted", device: "edu" });
  watch.take({ kind: "deviceReleased", device: "nvme" });
  watch.take({ kind: "deviceReleased", device: "nvme" });
  watch.take({ kind: "deviceReleased", device: "unknown" });
  t.equal(timers.size, 1);
  watch.take({ kind: "deviceErred", device: "edu" });
  watch.stopAll();
  t.equal(timers.size, 0);
  watch.take({ kind: "deviceWanted", device: "nvme" });
  t.equal(timers.size, 1, "a later request counts anew");
});

t.test("RemovalWatch stops the machine for a device that failed with on-error=stop", async (t) => {
  const { watch, failures } = setUp();
  watch.take({ kind: "deviceFailed", device: "nvme", state: "the host reports an error of 0000:01:00.0" });
  t.same(failures, ["Cannot go on with nvme: the host reports an error of 0000:01:00.0"]);
});
