import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import t from "tap";
import { RESOURCE } from "../../../src/host/constants.ts";
import { availableMemory, hasCapability, hugePages, memoryLockLimit } from "../../../src/host/limits.ts";
import {
  blockKickSignal,
  currentThreadId,
  drainKickSignals,
  KICK_SIGNAL,
  kick,
  setThreadName,
} from "../../../src/host/thread.ts";

/** A bit of a hexadecimal signal mask in /proc: bit n - 1 is signal n. */
function maskBit(threadId: number, line: string): boolean {
  const status = readFileSync(`/proc/self/task/${threadId}/status`, "utf8");
  const mask = BigInt(`0x${new RegExp(`^${line}:\\s*([0-9a-f]+)`, "m").exec(status)?.[1] ?? "0"}`);
  return ((mask >> BigInt(KICK_SIGNAL - 1)) & 1n) === 1n;
}

t.test("blockKickSignal() blocks the signal and answers the mask without it", async (t) => {
  const before = blockKickSignal();
  t.equal(maskBit(currentThreadId(), "SigBlk"), true);
  t.equal(before.length, 8);
  t.equal((before[(KICK_SIGNAL - 1) >> 3] ?? 0xff) & (1 << ((KICK_SIGNAL - 1) & 7)), 0);
  t.same(blockKickSignal(), before, "also when it was blocked before");
});

t.test("drainKickSignals() takes every kick off the thread", async (t) => {
  blockKickSignal();
  t.equal(drainKickSignals(), 0);
  t.equal(kick(currentThreadId()), true);
  t.equal(maskBit(currentThreadId(), "SigPnd"), true);
  kick(currentThreadId());
  t.equal(drainKickSignals(), 2, "real-time signals queue");
  t.equal(maskBit(currentThreadId(), "SigPnd"), false);
});

t.test("kick() reaches a worker that blocked the signal and answers false once it is gone", async (t) => {
  const worker = new Worker(
    `const { workerData, parentPort } = require("node:worker_threads");
     import(workerData).then((thread) => {
       thread.blockKickSignal();
       parentPort.postMessage(thread.currentThreadId());
       parentPort.once("message", () => {
         parentPort.postMessage(thread.drainKickSignals());
         parentPort.close();
       });
     });`,
    { eval: true, workerData: new URL("../../../src/host/thread.js", import.meta.url).href },
  );
  const next = (): Promise<unknown> =>
    new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
  const ended = once(worker, "exit"); // it may follow the last message at once
  const threadId = Number(await next());
  t.not(threadId, currentThreadId());
  t.equal(kick(threadId), true);
  worker.postMessage("look");
  t.equal(await next(), 1);
  await ended;
  t.equal(kick(threadId), false);
});

t.test("setThreadName() names the thread and cuts what is too long", async (t) => {
  const name = (): string => readFileSync(`/proc/self/task/${currentThreadId()}/comm`, "utf8").trimEnd();
  const before = name();
  setThreadName("tsvmm-test");
  t.equal(name(), "tsvmm-test");
  setThreadName("a-name-that-is-too-long");
  t.equal(name(), "a-name-that-is-");
  setThreadName(before);
});

t.test("memoryLockLimit() agrees with /proc/self/limits", async (t) => {
  const limits = readFileSync("/proc/self/limits", "utf8");
  for (const [title, found] of [["Max locked memory", memoryLockLimit()]] as const) {
    const [current, maximum] = (limits.split("\n").find((line) => line.startsWith(title)) ?? "")
      .slice(title.length)
      .trim()
      .split(/\s+/)
      .map((value) => (value === "unlimited" ? Number.POSITIVE_INFINITY : Number(value)));
    t.same(found, { current, maximum }, title);
  }
});

t.test("hasCapability() reads the effective set", async (t) => {
  const status = "Name:\tnode\nCapInh:\tffffffffffffffff\nCapEff:\t0000000000004000\nCapBnd:\tffffffffffffffff\n";
  t.equal(hasCapability(RESOURCE.CAP_IPC_LOCK, status), true);
  t.equal(hasCapability(RESOURCE.CAP_SYS_ADMIN, status), false);
  t.equal(hasCapability(0, "Name:\tnode\n"), false);
  t.equal(typeof hasCapability(RESOURCE.CAP_IPC_LOCK), "boolean");
});

t.test("availableMemory() reads MemAvailable in bytes", async (t) => {
  t.equal(availableMemory("MemTotal:  2048 kB\nMemAvailable:    1024 kB\n"), 1024 * 1024);
  t.ok(availableMemory() > 0);
});

t.test("hugePages() leaves reserved pages out and knows sizes the kernel has not", async (t) => {
  const directory = t.testdir({
    "hugepages-2048kB": { nr_hugepages: "10\n", free_hugepages: "7\n", resv_hugepages: "3\n" },
  });
  t.same(hugePages(2 * 1024 * 1024, directory), { totalCount: 10, freeCount: 4 });
  t.same(hugePages(1024 ** 3, directory), { totalCount: 0, freeCount: 0 });
});
