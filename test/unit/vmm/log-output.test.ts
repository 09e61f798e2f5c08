import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, openSync, readSync } from "node:fs";
import t from "tap";
import { createLogger } from "../../../src/vmm/log.ts";
import { LogOutput } from "../../../src/vmm/log-output.ts";

const folder = t.testdir();

/** A named pipe with an end to read from, and what is in it. */
function pipe(name: string): { path: string; read: () => string; close: () => void } {
  const path = `${folder}/${name}`;
  execFileSync("mkfifo", [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const bytes = Buffer.alloc(1 << 20);
  return {
    path,
    read: () => {
      try {
        return bytes.toString("latin1", 0, readSync(reader, bytes));
      } catch {
        return "";
      }
    },
    close: () => closeSync(reader),
  };
}

const line = (index: number): string => `${String(index).padStart(98, ".")}\n`;

t.test("LogOutput refuses a pipe without a reader", async (t) => {
  execFileSync("mkfifo", [`${folder}/unread`]);
  t.throws(() => new LogOutput(`${folder}/unread`), {
    name: "SpecError",
    message: `log.file: Cannot open ${folder}/unread: ENXIO (the pipe has no reader: start the reader first)`,
  });
});

t.test("LogOutput loses lines that a reader does not take, counts them, and leaves none in half", async (t) => {
  const { path, read, close } = pipe("slow");
  const output = new LogOutput(path, 10);
  const lost: number[] = [];
  output.onLost = (count) => {
    lost.push(count);
    output.write("lost\n");
  };
  // 64 KiB in 16 pages, each with whole lines of 99 bytes.
  for (let index = 0; index < 1000; index++) output.write(line(index));
  const first = read();
  t.same(lost, []);
  output.write("more\n");
  const second = read();
  const lines = (first + second).split("\n");
  const kept = lines.indexOf("lost");
  t.ok(kept > 600 && kept < 700, `${kept} of 1000 lines fit`);
  t.same(lost, [1000 - kept]);
  t.same(
    lines.slice(0, kept),
    Array.from({ length: kept }, (_, index) => line(index).trimEnd()),
  );
  t.same(lines.slice(kept), ["lost", "more", ""]);
  output.write("again\n");
  t.equal(read(), "again\n");
  t.equal(lost.length, 1);
  close();
  output.close();
});

t.test("createLogger() says how many lines were lost", async (t) => {
  const { path, read, close } = pipe("counted");
  const logger = createLogger({ level: "info", format: "json", file: path });
  for (let index = 0; index < 10; index++) logger.log("info", "x".repeat(20_000));
  read();
  logger.log("info", "read again");
  const messages = read()
    .split("\n")
    .filter((text) => text.startsWith("{"))
    .map((text) => JSON.parse(text).msg);
  t.same(messages, ["6 lines of the log were lost: its reader is too slow", "read again"]);
  logger.close();
  close();
});

t.test("createLogger() goes on when standard error, a pipe or a socket has no reader", async (t) => {
  const log = new URL("../../../src/vmm/log.js", import.meta.url).href;
  const program = `
    import { createLogger } from ${JSON.stringify(log)};
    const logger = createLogger({ level: "info", format: "json" });
    for (let index = 0; index < 20; index++) logger.log("info", "x".repeat(100_000));
    logger.close();
    process.exit(7);`;
  const { path, close } = pipe("stderr");
  const writer = openSync(path, "w");
  // Node makes a socket for "pipe".
  for (const stderr of [writer, "pipe"] as const) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      stdio: ["ignore", "ignore", stderr],
    });
    const [status] = await once(child, "exit");
    t.equal(status, 7);
    child.stderr?.destroy();
  }
  closeSync(writer);
  close();
});
