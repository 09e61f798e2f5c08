import { Worker } from "node:worker_threads";
import t from "tap";
import { ACCESS, createMailboxes, MailboxClient, MailboxServer } from "../../../../src/vmm/shared/mailbox.ts";

/** A vCPU thread's part: does `count` reads through the mailbox and posts their sum. */
function client(shared: SharedArrayBuffer, vcpu: number, spinLimit: number, count: number): Promise<number> {
  const code = `
    const { parentPort, workerData } = require("node:worker_threads");
    import(workerData.module).then(({ MailboxClient, ACCESS }) => {
      const { shared, vcpu, spinLimit, count, bell } = workerData;
      const words = new Int32Array(bell);
      const ring = () => { Atomics.store(words, 0, 1); Atomics.notify(words, 0); };
      const spins = { awake: spinLimit, asleep: spinLimit };
      const mailbox = new MailboxClient(shared, vcpu, spins, ring, () => false, () => {});
      let sum = 0;
      if (count === 0) {
        const { low, high } = mailbox.readWide(0x1_2345_6000);
        mailbox.writeWide(0x1_2345_6008, { low: high, high: low });
      }
      for (let i = 0; i < count; i++) sum += mailbox.access(ACCESS.mmioRead, 0x1_2345_6000 + i, 4, 0);
      parentPort.postMessage(sum);
    });`;
  const workerData = {
    shared,
    vcpu,
    spinLimit,
    count,
    bell,
    module: new URL("../../../../src/vmm/shared/mailbox.js", import.meta.url).href,
  };
  const worker = new Worker(code, { eval: true, workerData });
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}

const bell = new SharedArrayBuffer(4);

t.test(
  "MailboxServer.serve() answers every vCPU's accesses with 53-bit addresses, sleeping and polling clients alike",
  async (t) => {
    const shared = createMailboxes(2);
    const server = new MailboxServer(shared);
    const words = new Int32Array(bell);
    const count = 300;
    const sums = Promise.all([client(shared, 0, 0, count), client(shared, 1, 1000, count)]);
    const seen = [0, 0];
    let done = false;
    const finished = sums.then((values) => {
      done = true;
      return values;
    });
    while (!done) {
      const served = server.serve((vcpu, kind, address, width) => {
        t.equal(kind, 2);
        t.equal(width, 4);
        seen[vcpu] = (seen[vcpu] ?? 0) + 1;
        return address - 0x1_2345_6000 + vcpu;
      });
      if (served > 0) continue;
      // Asleep: a ring must come for every request made from here on.
      server.fallAsleep();
      Atomics.store(words, 0, 0);
      if (!server.hasRequests) {
        const outcome = Atomics.waitAsync(words, 0, 0, 5000);
        const woken = await Promise.race([outcome.value, finished.then(() => "finished")]);
        if (woken === "timed-out") t.fail("the doorbell was not rung");
      }
      server.wakeUp();
    }
    const sum = (count * (count - 1)) / 2;
    t.same(await finished, [sum, sum + count]);
    t.same(seen, [count, count]);
  },
);

t.test("MailboxServer.serve() gives back all 32 bits unsigned", async (t) => {
  const shared = createMailboxes(1);
  const server = new MailboxServer(shared);
  const answer = client(shared, 0, 1_000_000, 1);
  let served = 0;
  while (served === 0) {
    served = server.serve(() => 0xffff_fffe);
    await new Promise(setImmediate);
  }
  t.equal(await answer, 0xffff_fffe);
  t.equal(ACCESS.mmioWrite, 3);
});

t.test("MailboxClient.access() gives up on a stop, and then asks for nothing more until the next start", async (t) => {
  const shared = createMailboxes(1);
  let isStopping = true;
  const limits = { awake: 0, asleep: 0 };
  const ring = (): void => undefined;
  const slow = (): void => undefined;
  const mailbox = new MailboxClient(shared, 0, limits, ring, () => isStopping, slow);
  const server = new MailboxServer(shared);
  t.equal(mailbox.access(ACCESS.portRead, 0x3fd, 1, 0), 0xff, "no device thread answers");
  // All elements of a string instruction; each would take a second.
  const elements = Array.from({ length: 1000 }, () => mailbox.access(ACCESS.portWrite, 0x3f8, 2, 1));
  t.same(new Set(elements), new Set([0xffff]));
  const asked: number[] = [];
  const serve = (): number =>
    server.serve((_vcpu, _kind, address) => {
      asked.push(address);
      isStopping = false;
      return 7;
    });
  serve();
  t.same(asked, [0x3fd], "the one access that was given up");
  const answered = client(shared, 0, 0, 1);
  let sum: number | undefined;
  void answered.then((value) => {
    sum = value;
  });
  while (sum === undefined) {
    serve();
    await new Promise(setImmediate);
  }
  t.equal(sum, 7, "a later access is answered");
});

t.test("MailboxServer.serve() hands both halves of an eight-byte access over as one", async (t) => {
  const shared = createMailboxes(1);
  const server = new MailboxServer(shared);
  let isDone = false;
  const finished = client(shared, 0, 1000, 0).then(() => {
    isDone = true;
  });
  const seen: string[] = [];
  while (!isDone) {
    server.serve((_vcpu, kind, address, width, value) => {
      seen.push(`${kind} ${width} ${address.toString(16)} ${value.toString(16)} ${server.highHalf.toString(16)}`);
      server.highHalf = 0xaabb_ccdd;
      return 0x8899_0011;
    });
    await new Promise((resolve) => setImmediate(resolve));
  }
  await finished;
  t.same(seen, ["5 4 123456000 0 ffffffff", "6 4 123456008 aabbccdd 88990011"]);
});
