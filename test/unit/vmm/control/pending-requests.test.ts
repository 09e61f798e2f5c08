import t from "tap";
import { HostError, SpecError } from "../../../../src/base/errors.ts";
import { PendingRequests } from "../../../../src/vmm/control/pending-requests.ts";
import { toPlainError } from "../../../../src/vmm/shared/plain-error.ts";
import type { RequestMessage } from "../../../../src/vmm/shared/requests.ts";

const answerOf = (count: number) => ({ accesses: { COM1: count }, functions: [] });

function setUp() {
  const sent: RequestMessage[] = [];
  return { sent, requests: new PendingRequests((message) => void sent.push(message)) };
}

t.test("PendingRequests.ask() joins each reply to its request, in whatever order they come", async (t) => {
  const { sent, requests } = setUp();
  const first = requests.ask("statistics", undefined);
  const second = requests.ask("dismantle", undefined);
  t.match(sent, [
    { kind: "request", name: "statistics" },
    { kind: "request", name: "dismantle" },
  ]);
  const [one, other] = sent.map(({ token }) => token);
  t.not(one, other);
  requests.take({ kind: "reply", token: other ?? -1, answer: answerOf(2) });
  requests.take({ kind: "reply", token: one ?? -1, answer: answerOf(1) });
  t.same(await Promise.all([first, second]), [answerOf(1), answerOf(2)]);
});

t.test("PendingRequests.take() rejects a refused request with the error's kind, and no other", async (t) => {
  const { sent, requests } = setUp();
  const refused = requests.ask("statistics", undefined);
  const other = requests.ask("statistics", undefined);
  const [one, two] = sent.map(({ token }) => token);
  requests.take({
    kind: "refusal",
    token: one ?? -1,
    error: toPlainError(new SpecError("TSVMM_VALUE_INVALID", "disks[0].path", "is gone")),
  });
  await t.rejects(refused, { name: "SpecError", path: "disks[0].path", message: "disks[0].path: is gone" });
  requests.take({ kind: "reply", token: two ?? -1, answer: answerOf(7) });
  t.same(await other, answerOf(7));
});

t.test("PendingRequests takes a reply that was posted before the thread's end, and drops one after it", async (t) => {
  const { sent, requests } = setUp();
  const answered = requests.ask("statistics", undefined);
  const unanswered = requests.ask("statistics", undefined);
  const [one, two] = sent.map(({ token }) => token);
  requests.take({ kind: "reply", token: one ?? -1, answer: answerOf(1) });
  requests.rejectAll(new HostError("TSVMM_HOST_CALL", "Cannot ask the device thread: it has ended"));
  requests.take({ kind: "reply", token: two ?? -1, answer: answerOf(2) });
  t.same(await answered, answerOf(1));
  await t.rejects(unanswered, { name: "HostError", message: "Cannot ask the device thread: it has ended" });
});
