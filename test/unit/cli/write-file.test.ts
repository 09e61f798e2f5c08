import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import t from "tap";
import { writeFile } from "../../../src/cli/write-file.ts";

const MODULE = new URL("../../../src/cli/write-file.js", import.meta.url).href;
const folder = t.testdir();
const at = (name: string): string => `${folder}/${name}`;
const write = (path: string, text: string): Promise<void> => writeFile("the summary", path, text);

t.test("writeFile() makes a file, and replaces one with its mode and behind its symbolic links", async (t) => {
  mkdirSync(at("files"));
  await write(at("files/new"), "one");
  t.equal(readFileSync(at("files/new"), "utf8"), "one");
  chmodSync(at("files/new"), 0o640);
  symlinkSync("new", at("files/link"));
  const before = openSync(at("files/new"), "r");
  await write(at("files/link"), "another");
  t.equal(readFileSync(at("files/new"), "utf8"), "another");
  t.equal(readFileSync(before, "utf8"), "one", "who has the old file open goes on reading it");
  closeSync(before);
  t.equal(statSync(at("files/new")).mode & 0o777, 0o640);
  t.ok(lstatSync(at("files/link")).isSymbolicLink());
  symlinkSync("later", at("files/dangling"));
  await write(at("files/dangling"), "made");
  t.equal(readFileSync(at("files/later"), "utf8"), "made");
  t.same(readdirSync(at("files")).sort(), ["dangling", "later", "link", "new"]);
});

t.test("writeFile() leaves the old file as it was when the new one cannot be written whole", async (t) => {
  mkdirSync(at("limited"));
  writeFileSync(at("limited/summary"), "old");
  const program = `
    import { writeFile } from ${JSON.stringify(MODULE)};
    for (const name of ["summary", "new"]) {
      const path = ${JSON.stringify(at("limited/"))} + name;
      await writeFile("the summary", path, "x".repeat(2000)).catch((error) => console.log(String(error)));
    }`;
  const node = [process.execPath, "--input-type=module", "-e", program];
  const { stdout } = spawnSync("bash", ["-c", 'ulimit -f 1; exec "$@"', "-", ...node], { encoding: "utf8" });
  const refused = (name: string): string => `HostError: Cannot write the summary to ${at(`limited/${name}`)}: EFBIG\n`;
  t.equal(stdout, refused("summary") + refused("new"));
  t.equal(readFileSync(at("limited/summary"), "utf8"), "old");
  t.same(readdirSync(at("limited")), ["summary"]);
  await t.rejects(write(at("nowhere/summary"), "x"), { message: /ENOENT$/ });
  await t.rejects(write(at("limited"), "x"), { message: /EISDIR$/ });
});

t.test("writeFile() writes to a pipe without blocking, as fast as it is read", async (t) => {
  execFileSync("mkfifo", [at("pipe")]);
  await t.rejects(write(at("pipe"), "x"), {
    message: `Cannot write the summary to ${at("pipe")}: ENXIO (the pipe has no reader: start the reader first)`,
  });
  const reader = openSync(at("pipe"), constants.O_RDONLY | constants.O_NONBLOCK);
  const text = "0123456789".repeat(30_000);
  const writing = write(at("pipe"), text);
  let got = "";
  const bytes = Buffer.alloc(65_536);
  while (got.length < text.length) {
    await new Promise((resolve) => setTimeout(resolve, 1)); // the writer's turn
    try {
      got += bytes.toString("latin1", 0, readSync(reader, bytes));
    } catch {
      // nothing is there yet
    }
  }
  await writing;
  t.equal(got, text);
  closeSync(reader);
  t.ok(statSync(at("pipe")).isFIFO());
  await write("/dev/null", text);
});

t.test("writeFile() appends to standard output where that is a file", async (t) => {
  const program = `
    import { writeFile } from ${JSON.stringify(MODULE)};
    process.stdout.write("before ");
    await writeFile("the summary", "/dev/stdout", "summary ");
    process.stdout.write("");`;
  const file = openSync(at("stdout"), "a");
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", file, "inherit"] });
  await once(child, "exit");
  closeSync(file);
  t.equal(readFileSync(at("stdout"), "utf8"), "before summary ");
});
