import { once } from "node:events";
import { readdirSync } from "node:fs";
import { Worker } from "node:worker_threads";
import t from "tap";
import { HostError } from "../../../../src/base/errors.ts";
import type { MsiRoute } from "../../../../src/base/signals.ts";
import { fd, gpa } from "../../../../src/base/units.ts";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { PassthroughFunction } from "../../../../src/passthrough/function.ts";
import type { UserDevice } from "../../../../src/vfio-user/client/device.ts";
import { FakePassthroughHost } from "../../../support/fake-passthrough-host.ts";
import { randomNumbers } from "../../../support/random-numbers.ts";
import { socketPath } from "../../../support/socket-pair.ts";
import { UserBench } from "../../../support/user-server.ts";

/*
 * Devices whose servers send wrong, late, too much, too little or nothing. Whatever they do, the client throws no other
 * errors than HostErrors, keeps no descriptor, and is through within its deadlines. A failure names its seed, which
 * replays it.
 */

const SEEDS = 150;
const WIDTHS = [1, 2, 4] as const;

const route: MsiRoute = {
  ...{ name: "route", isMasked: true, isPending: false, eventFd: fd(-1) },
  ...{ setMessage: () => undefined, mask: () => undefined, unmask: () => undefined },
  ...{ signal: () => undefined, inject: () => undefined, release: () => undefined },
};

/** Uses the device as a machine does, and then in ways that only a confused one does. */
function use(device: UserDevice, random: (below: number) => number, event: EventFd): void {
  for (let step = 0; step < 12; step++) {
    const width = WIDTHS[random(3)] ?? 4;
    const region = random(8) === 0 ? 7 : random(3);
    try {
      switch (random(8)) {
        case 0:
          device.setTrigger(random(2) === 0 ? "msi" : "msix", random(2), [event.fd, fd(-1), event.fd].slice(random(2)));
          break;
        case 1:
          device.disableInterrupts("msi");
          break;
        case 2:
          device.reset();
          break;
        case 3: {
          const area = device.region(0)?.mappableAreas[0];
          if (area !== undefined && area.offset % 4096 === 0) device.mapRegion(0, area).unmap();
          break;
        }
        case 4:
          device.writeRegion(region, random(0x5000), width, random(256));
          break;
        default:
          device.readRegion(region, random(0x5000), width);
      }
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
    }
  }
}

t.test(`UserDevice takes whatever ${SEEDS} hostile servers send`, async (t) => {
  const path = socketPath(t);
  const bench = new UserBench(t);
  const event = EventFd.create();
  const before = readdirSync("/proc/self/fd").length;
  const worker = new Worker(new URL("../../../support/hostile-server-worker.js", import.meta.url), {
    workerData: { path, last: SEEDS, oneIn: 20 },
  });
  const ended = once(worker, "exit");
  t.teardown(() => worker.terminate());
  await once(worker, "message");
  const outcomes = { refused: 0, lost: 0, wellUsed: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = randomNumbers(seed + 1000);
    try {
      const device = bench.connect(path, { timeoutMs: 100 });
      use(device, random, event);
      bench.loop.wait(0);
      outcomes[device.isLost ? "lost" : "wellUsed"]++;
      device.close();
    } catch (error) {
      if (!(error instanceof HostError)) throw new Error(`Seed ${seed}`, { cause: error });
      outcomes.refused++;
    }
  }
  await ended;
  t.ok(outcomes.refused > 10 && outcomes.lost > 10 && outcomes.wellUsed > 5, JSON.stringify(outcomes));
  t.equal(bench.lost.length, outcomes.lost, "each loss is told once");
  t.equal(readdirSync("/proc/self/fd").length, before, "no descriptor is left");
  event.close();
});

t.test("PassthroughFunction over hostile servers throws HostErrors at its start, nothing later", async (t) => {
  const path = socketPath(t);
  const worker = new Worker(new URL("../../../support/hostile-server-worker.js", import.meta.url), {
    // A start reads configuration space in some seventy messages, and fails when its server is lost meanwhile.
    workerData: { path, last: SEEDS, oneIn: 100 },
  });
  const ended = once(worker, "exit");
  t.teardown(() => worker.terminate());
  await once(worker, "message");
  const bench = new UserBench(t);
  let started = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = randomNumbers(seed + 2000);
    const host = new FakePassthroughHost();
    const parts = {
      ...host,
      createEvent: EventFd.create,
      router: { allocate: () => route, batch: (work: () => void) => work() },
    };
    const handlers = { onError: () => undefined, onRequest: () => undefined };
    let fn: PassthroughFunction;
    try {
      const device = bench.connect(path, { timeoutMs: 100 });
      fn = new PassthroughFunction(device, { bars: "map", excludedMmapBars: [] }, parts, handlers);
    } catch (error) {
      if (!(error instanceof HostError)) throw new Error(`Seed ${seed}`, { cause: error });
      continue;
    }
    started++;
    try {
      for (let step = 0; step < 30; step++) {
        const width = WIDTHS[random(3)] ?? 4;
        if (random(4) === 0) fn.config.write(random(256), width, random(0x1_0000));
        else if (random(3) === 0) fn.writeBar(0, random(0x4000), width, random(256));
        else fn.readBar(0, random(0x4000), width);
        if (random(10) === 0) fn.barPlaced(0, random(2) === 0 ? gpa(0xc000_0000) : undefined);
        if (random(20) === 0) fn.reset();
      }
      fn.close();
    } catch (error) {
      throw new Error(`Seed ${seed}`, { cause: error });
    }
  }
  await ended;
  t.ok(started > 5, `${started} were started`);
});
