import { readFileSync } from "node:fs";
import t from "tap";
import { currentThreadId } from "../../../../src/host/thread.ts";
import {
  announceStep,
  announceThread,
  THREAD_WORDS,
  threadProgress,
} from "../../../../src/vmm/shared/thread-progress.ts";

t.test("threadProgress() changes its mark with each step, and has the step's allowance", async (t) => {
  const words = new Int32Array(new SharedArrayBuffer(4 * THREAD_WORDS));
  const { mark, allowanceMs } = threadProgress(words);
  const first = mark();
  t.equal(mark(), first);
  t.equal(allowanceMs(), 0);
  announceStep(words, 150);
  t.not(mark(), first);
  t.equal(allowanceMs(), 150_000);
  t.equal(words[0], 0, "the stage is left alone");
});

t.test("threadProgress() counts a thread's time in the kernel as progress", async (t) => {
  const words = new Int32Array(new SharedArrayBuffer(4 * THREAD_WORDS));
  announceThread(words, currentThreadId());
  const { mark } = threadProgress(words);
  const first = mark();
  // System calls until the kernel has counted a tick for them.
  for (let calls = 0; mark() === first && calls < 1_000_000; calls++) readFileSync("/proc/self/maps");
  t.not(mark(), first);
  announceThread(words, 2 ** 30);
  t.equal(mark(), "0 ", "a thread that has ended");
});
