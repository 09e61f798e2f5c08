import t from "tap";
import { HostError, SpecError } from "../../../../src/base/errors.ts";
import { fromPlainError, toPlainError } from "../../../../src/vmm/shared/plain-error.ts";

const crossed = (error: unknown): Error => fromPlainError(structuredClone(toPlainError(error)));

t.test("toPlainError() and fromPlainError() keep an error's kind, code, text and details across threads", async (t) => {
  t.match(crossed(new SpecError("TSVMM_FILE_EMPTY", "disks[0].path", "it is empty")), {
    name: "SpecError",
    code: "TSVMM_FILE_EMPTY",
    path: "disks[0].path",
    message: "disks[0].path: it is empty",
  });
  t.match(crossed(new SpecError("TSVMM_VALUE_MISSING", "", "no kernel is given")), {
    name: "SpecError",
    code: "TSVMM_VALUE_MISSING",
    path: "",
    message: "no kernel is given",
  });
  const ofHost = new HostError("TSVMM_VCPU_FAILED", "Cannot go on", "look below", "at 8:0");
  t.match(crossed(ofHost), { name: "HostError", code: "TSVMM_VCPU_FAILED", advice: "look below", details: "at 8:0" });
  t.equal(crossed(ofHost).message, "Cannot go on (look below)");
  const ours = new TypeError("oops");
  t.match(crossed(ours), { name: "TypeError", message: "oops", stack: ours.stack });
  t.match(crossed(Object.assign(new Error("x"), { code: "EMFILE", syscall: "open" })), { name: "HostError" });
});
