import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t, { type Test } from "tap";
import { writeSlowly } from "../../../src/host-pci/slow-write.ts";

const never = (): never => {
  throw new Error("it is not waited for");
};

/** A pipe without a reader: who opens it for writing waits in the kernel, as who writes to a busy driver's `unbind`. */
function pipeIn(t: Test): string {
  const pipe = join(t.testdir(), "unbind");
  execFileSync("mkfifo", [pipe]);
  return pipe;
}

t.test("writeSlowly() writes to a file that is there, and passes errno on", async (t) => {
  const folder = t.testdir({ unbind: "" });
  writeSlowly(join(folder, "unbind"), "0000:01:00.0", never);
  t.equal(readFileSync(join(folder, "unbind"), "utf8"), "0000:01:00.0");
  t.throws(() => writeSlowly(join(folder, "nowhere"), "x", never), { code: "ENOENT" });
  writeFileSync(join(folder, "file"), "");
  t.throws(() => writeSlowly(join(folder, "file/unbind"), "x", never), { code: "ENOTDIR" });
});

t.test("writeSlowly() tells again and again that it waits, and comes back when the write does", async (t) => {
  const pipe = pipeIn(t);
  const told: number[] = [];
  let reader: ReturnType<typeof spawn> | undefined;
  const onWait = (seconds: number): void => {
    told.push(seconds);
    if (told.length === 2) reader = spawn("cat", [pipe], { stdio: ["ignore", "pipe", "inherit"] });
  };
  writeSlowly(pipe, "0000:01:00.0", onWait, 100);
  t.ok(told.length >= 2);
  const [text] = (await once(reader?.stdout ?? t, "data")) as [Buffer]; // cast: what a stream without encoding gives
  t.equal(text.toString(), "0000:01:00.0");
});

t.test("A process that waits in writeSlowly() is ended by Ctrl-C, and the write goes on", async (t) => {
  const pipe = pipeIn(t);
  const program = fileURLToPath(new URL("../../support/slow-write-program.js", import.meta.url));
  const waiting = spawn(process.execPath, [program, pipe], { stdio: ["ignore", "pipe", "inherit"] });
  await once(waiting.stdout, "data");
  waiting.kill("SIGINT");
  const [, signal] = (await once(waiting, "exit")) as [number | null, string | null]; // cast: the event's arguments
  t.equal(signal, "SIGINT");
  t.equal(execFileSync("cat", [pipe], { encoding: "utf8" }), "0000:01:00.0", "the kernel has it still");
});
