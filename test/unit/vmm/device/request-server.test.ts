import t from "tap";
import { SpecError } from "../../../../src/base/errors.ts";
import { answerRequest } from "../../../../src/vmm/device/request-server.ts";
import type { RequestHandlers } from "../../../../src/vmm/shared/requests.ts";

const COUNTERS = { accesses: { COM1: 3 }, functions: [] };
const handlers: RequestHandlers = {
  build: () => {
    throw new SpecError("TSVMM_VALUE_INVALID", "disks[0].path", "is taken");
  },
  begin: () => undefined,
  dismantle: () => ({ accesses: {}, functions: [] }),
  statistics: () => COUNTERS,
  trace: () => undefined,
  snapshot: () => {
    throw new Error("not asked for");
  },
};

t.test("answerRequest() answers by name, with the request's token", async (t) => {
  t.same(answerRequest(handlers, { kind: "request", token: 5, name: "statistics", asks: undefined }), {
    kind: "reply",
    token: 5,
    answer: COUNTERS,
  });
});

t.test("answerRequest() makes a refusal of what a handler throws", async (t) => {
  // Cast: what is asked does not matter to this handler.
  const message = { kind: "request", token: 6, name: "build", asks: undefined } as unknown as Parameters<
    typeof answerRequest<"build">
  >[1];
  t.match(answerRequest(handlers, message), {
    kind: "refusal",
    token: 6,
    error: { name: "SpecError", path: "disks[0].path" },
  });
});
