import { once } from "node:events";
import { Worker } from "node:worker_threads";
import t from "tap";

/** Runs code on a thread of its own, which a pinned one stays; answers what it posts. */
async function onThread(code: string): Promise<unknown> {
  const url = new URL("../../../src/host/thread.js", import.meta.url).href;
  const source = `
    const { parentPort } = await import("node:worker_threads");
    const { readFileSync } = await import("node:fs");
    const { pinThread, currentThreadId } = await import(${JSON.stringify(url)});
    const allowed = () => /^Cpus_allowed_list:\\s*(.*)$/m.exec(readFileSync("/proc/self/task/" + currentThreadId() +
      "/status", "utf8"))[1];
    const failure = (work) => { try { work(); return "pinned"; } catch (error) { return error.message; } };
    parentPort.postMessage(${code});`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
  const [answer] = await once(worker, "message");
  await once(worker, "exit");
  return answer;
}

t.test("pinThread() lets the calling thread run on these CPUs only", async (t) => {
  t.equal(await onThread(`(pinThread("vCPU 0", [0]), allowed())`), "0");
});

t.test("pinThread() names the CPUs that cannot be had", async (t) => {
  const advice = /\(they are offline, not there, or not in this process's cpuset/;
  const all = await onThread(`failure(() => pinThread("vCPU 1", [8000]))`);
  t.match(all, /^Cannot pin vCPU 1 to host CPUs 8000: 8000 cannot be had/);
  t.match(all, advice);
  t.match(await onThread(`failure(() => pinThread("vCPU 1", [0, 8000]))`), /to host CPUs 0, 8000: 8000 cannot be had/);
});
