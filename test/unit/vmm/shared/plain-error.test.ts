import t from "tap";
import { HostError, SpecError } from "../../../../src/base/errors.ts";
import { fromPlainError, toPlainError } from "../../../../src/vmm/shared/plain-error.ts";

const crossed = (error: unknown): Error => fromPlainError(structuredClone(toPlainError(error)));

t.test("toPlainError() and fromPlainError() keep an error's kind, text and details across threads", async (t) => {
  t.match(crossed(new SpecError("--disk", "it is empty")), {
    name: "SpecError",
    path: "--disk",
    message: "--disk: it is empty",
  });
  t.same(
    { ...crossed(new HostError("Cannot go on", "look below", "at 8:0")), message: "" },
    { name: "HostError", advice: undefined, details: "at 8:0", message: "" },
  );
  t.equal(crossed(new HostError("Cannot go on", "look below", "at 8:0")).message, "Cannot go on (look below)");
  const ours = new TypeError("oops");
  t.match(crossed(ours), { name: "TypeError", message: "oops", stack: ours.stack });
  t.match(crossed(Object.assign(new Error("x"), { code: "EMFILE", syscall: "open" })), { name: "HostError" });
});
