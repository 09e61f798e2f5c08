import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { createLogger, type LogSettings, type LogThreshold } from "../../../src/vmm/log.ts";

const folder = t.testdir();

/** What is in the file after three lines of different levels. */
function write(name: string, settings: Omit<LogSettings, "file">): string {
  const file = join(folder, name);
  using logger = createLogger({ ...settings, file });
  logger.log("trace", "a step", { trace: { address: 0x3f8 } });
  logger.log("info", "the guest runs", { cpus: 2 });
  logger.log("warn", "something odd");
  return readFileSync(file, "utf8");
}

t.test("createLogger() writes JSON lines to a file by default, and only what is of the level", async (t) => {
  const parse = (text: string): unknown[] =>
    text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  t.match(parse(write("auto", { level: "info", format: "auto" })), [
    { level: 30, msg: "the guest runs", cpus: 2 },
    { level: 40, msg: "something odd" },
  ]);
  t.match(parse(write("trace", { level: "trace", format: "json" }))[0], { level: 10, trace: { address: 0x3f8 } });
  t.equal(parse(write("auto", { level: "warn", format: "json" })).length, 3, "it appends");
});

t.test("createLogger() writes text without colours to a file when told, a line for each step", async (t) => {
  const lines = write("pretty", { level: "trace", format: "pretty" }).trimEnd().split("\n");
  t.match(lines, [
    /^\[[\d:.]+\] TRACE: a step$/,
    /^\[[\d:.]+\] INFO: the guest runs$/,
    /^ {4}cpus: 2$/,
    /WARN: something odd$/,
  ]);
  t.equal(lines.length, 4);
});

t.test("createLogger() writes what a terminal obeys as escapes, in texts and in details", async (t) => {
  const log = (format: "json" | "pretty"): string => {
    const file = join(folder, `escapes.${format}`);
    const logger = createLogger({ level: "info", format, file });
    logger.log("info", "at /tmp/\x1b[2J\u009b\n\u202e", { path: "\x1b\u009b\u202e\u{e0001}✓" });
    logger.close();
    return readFileSync(file, "utf8");
  };
  t.match(
    log("pretty"),
    /INFO: at \/tmp\/\\x1b\[2J\\x9b\\n\\u\{202e\}\n {4}path: "\\u001b\\u009b\\u202e\\udb40\\udc01✓"\n$/,
  );
  const line = log("json");
  t.notMatch(line, /[^\x20-\x7e✓\n]/);
  t.match(JSON.parse(line), {
    msg: "at /tmp/\\x1b[2J\\x9b\\n\\u{202e}",
    path: "\x1b\u009b\u202e\u{e0001}✓",
  });
});

t.test("createLogger() says at once that a file cannot be opened", async (t) => {
  const open = (file: string): unknown => createLogger({ level: "info", format: "json", file });
  t.throws(() => open("/nowhere/log"), { name: "SpecError", message: "log.file: Cannot open /nowhere/log: ENOENT" });
  t.throws(() => open(folder), { name: "SpecError", message: /EISDIR$/ });
  t.doesNotThrow(() => createLogger({ level: "silent", format: "json", file: "/nowhere/log" }), "nothing is written");
});

t.test("createLogger() loads pino without waiting for a line, and not for a log that shows nothing", async (t) => {
  let loads = 0;
  const isLoaded = (level: LogThreshold): Promise<void> =>
    new Promise((resolve) => {
      createLogger({ level, format: "json" }, () => {
        loads++;
        resolve();
        return { trace: fail, debug: fail, info: fail, warn: fail, error: fail };
      });
    });
  const fail = (): void => void t.fail("no line was logged");
  isLoaded("silent");
  const keepsLoop = setInterval(() => undefined, 1000); // as a machine does
  await isLoaded("error");
  clearInterval(keepsLoop);
  t.equal(loads, 1);
});

t.test("createLogger() loads pino in the next turn where a start has lines, and later where it has none", async (t) => {
  const loads: string[] = [];
  for (const level of ["info", "trace", "warn", "error"] as const) {
    const load = (): never => {
      loads.push(level);
      throw new Error("not here");
    };
    const logger = createLogger({ level, format: "json", file: join(folder, "turn") }, load);
    t.teardown(() => logger.close());
  }
  t.same(loads, [], "the threads of a machine are started first");
  await new Promise((resolve) => setImmediate(resolve));
  t.same(loads, ["info", "trace"]);
});

t.test("createLogger() loses the log in one line when its package cannot be loaded", async (t) => {
  const log = new URL("../../../src/vmm/log.js", import.meta.url).href;
  const program = `
    import { createLogger } from ${JSON.stringify(log)};
    const logger = createLogger({ level: "info", format: "json" }, () => {
      const error = new Error("Cannot find module 'pino'\\nRequire stack:\\n- log.js");
      throw Object.assign(error, { code: "MODULE_NOT_FOUND" });
    });
    logger.log("warn", "one");
    logger.log("info", "two", { more: true });
    logger.close();
    console.log("goes on");
  `;
  const { stdout, stderr, status } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
  });
  t.same(
    { stdout, stderr, status },
    {
      stdout: "goes on\n",
      stderr: "tsvmm: Cannot load the log's package: Cannot find module 'pino': the log is lost\n",
      status: 0,
    },
  );
});
