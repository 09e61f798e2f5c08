import { openSync } from "node:fs";
import t from "tap";
import { HostError, hostErrorOf, openError, SpecError } from "../../../src/base/errors.ts";
import { SyscallError } from "../../../src/host/errors.ts";

/** What a call of node's fs throws. */
function failed(call: () => unknown): Error {
  try {
    call();
  } catch (error) {
    return error as Error; // cast: fs throws errors
  }
  throw new Error("it did not fail");
}

const exhausted = Object.assign(new Error("EMFILE: too many open files, open '/x'"), {
  ...{ code: "EMFILE", syscall: "open", path: "/x" },
});

t.test(
  "hostErrorOf() makes a failed call of Node's own modules a HostError, and answers undefined for other errors",
  async (t) => {
    const missing = hostErrorOf(failed(() => openSync("/nowhere/file", "r")));
    t.type(missing, HostError);
    t.match(missing, { message: "Cannot open /nowhere/file: ENOENT", advice: undefined });
    t.match(hostErrorOf(exhausted), { message: "Cannot open /x: EMFILE (raise the limit of open files: ulimit -n)" });
    t.equal(hostErrorOf(new TypeError("x is not a function")), undefined);
    t.equal(hostErrorOf("text"), undefined);
  },
);

t.test("openError() blames who named the file, but for limits that any file would have met", async (t) => {
  const missing = openError(
    "--kernel",
    "/nowhere/file",
    failed(() => openSync("/nowhere/file", "r")),
  );
  t.type(missing, SpecError);
  t.equal(missing.message, "--kernel: Cannot open /nowhere/file: ENOENT");
  const limited = openError("--kernel", "/x", exhausted);
  t.type(limited, HostError);
  t.equal(limited.message, "Cannot open /x: EMFILE (raise the limit of open files: ulimit -n)");
});

t.test(
  "SyscallError says what to do about limits, whatever was called; a caller's own advice goes first",
  async (t) => {
    const error = (errno: string, advice?: string): SyscallError =>
      new SyscallError(advice === undefined ? "TSVMM_HOST_CALL" : ["TSVMM_DISK_IO", advice], "do it", "ioctl", errno);
    const text = (errno: string, advice?: string): string => error(errno, advice).message;
    t.equal(error("EMFILE").code, "TSVMM_OPEN_FILES");
    t.equal(error("EMFILE", "use fewer").code, "TSVMM_DISK_IO");
    t.equal(error("EINVAL").code, "TSVMM_HOST_CALL");
    t.equal(text("EMFILE"), "Cannot do it: ioctl failed with EMFILE (raise the limit of open files: ulimit -n)");
    t.equal(
      text("ENFILE"),
      "Cannot do it: ioctl failed with ENFILE (the host has no open files left: raise fs.file-max)",
    );
    t.equal(text("EMFILE", "use fewer"), "Cannot do it: ioctl failed with EMFILE (use fewer)");
    t.equal(text("EINVAL"), "Cannot do it: ioctl failed with EINVAL");
  },
);
