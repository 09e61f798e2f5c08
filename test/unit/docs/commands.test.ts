import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { SpecError } from "../../../src/base/errors.ts";
import { COMMANDS, findCommand } from "../../../src/cli/commands.ts";
import { parseRun } from "../../../src/cli/options/parse.ts";
import { projectRoot } from "../../../tools/cache.ts";
import { codeBlocks, userDocuments } from "../../support/documents.ts";
import { deadSocket } from "../../support/socket-pair.ts";

/*
 * Command lines of the README and the guides, as users copy them. Those of `run` are parsed with the files they name;
 * those of other commands name a command and options of it; npm scripts exist.
 */

const function_ = { vendor: "0x8086", config: "c" };
const home = t.testdir({
  vmlinux: "kernel",
  "initramfs.cpio": "archive",
  "focal-server-cloudimg-amd64.raw": "disk",
  "0000:01:00.0": function_,
});

/** Words of a shell line, as bash splits them. Nothing of it is run. */
function words(line: string): readonly string[] {
  const print = `set -f; HOME=${home}; args=(${line}); printf '%s\\0' "\${args[@]}"`;
  return execFileSync("bash", ["-c", print], { encoding: "utf8" }).split("\0").slice(0, -1);
}

/** Lines of a shell block without comments; a backslash joins two. */
const lines = (text: string): readonly string[] =>
  text
    .replaceAll(/\\\n\s*/g, "")
    .split("\n")
    .map((line) => line.replace(/\s+#\s.*$/, "").trim())
    .filter((line) => line !== "");

const shellLines = userDocuments().flatMap((document) =>
  codeBlocks(document)
    .filter(({ language }) => language === "sh")
    .flatMap(({ text }) => lines(text))
    .map((line) => ({ document, line })),
);

const socket = deadSocket(t);

/** A word of a document's command line with its paths where this test has such files. */
const here = (word: string): string =>
  word
    .replace("/sys/bus/pci/devices/0000:01:00.0/", join(home, "0000:01:00.0"))
    .replace(/^(path=)?(?=0000:01:00\.0)/, `path=${home}/`)
    .replace(/socket=[^,]+/, `socket=${socket}`);

t.test("command lines of the documents are ones that the program takes", async (t) => {
  const commands = shellLines.filter(({ line }) => /^(npx )?tsvmm\b/.test(line));
  t.ok(commands.length >= 8, `${commands.length} command lines are looked at`);
  for (const { document, line } of commands) {
    const argv = words(line.replace(/^(npx )?tsvmm/, "").replace(/\s[|>&].*$/, ""));
    const { command, rest } = findCommand(argv);
    if (command.name === "run") {
      const inHome = rest.map(here).map((word) => (/^(vmlinux|initramfs\.cpio)$/.test(word) ? join(home, word) : word));
      t.doesNotThrow(() => parseRun(inHome, home), `${document}: ${line}`);
      continue;
    }
    const help = execFileSync(process.execPath, [join(projectRoot(), "dist/src/main.js"), command.name, "--help"], {
      encoding: "utf8",
    });
    for (const option of rest.filter((argument) => argument.startsWith("--")))
      t.match(help, new RegExp(`^  (-\\w, )?${option}\\b`, "m"), `${document}: ${line}`);
  }
  t.throws(() => parseRun(["--kernel", join(home, "vmlinux"), "--no-such-option"], home), SpecError);
});

t.test("commands and scripts that the documents name in sentences exist", async (t) => {
  // Cast: npm has read it too.
  const manifest = JSON.parse(readFileSync(join(projectRoot(), "package.json"), "utf8")) as {
    readonly scripts: Readonly<Record<string, string>>;
  };
  const names = new Set(COMMANDS.map(({ name }) => name));
  for (const document of userDocuments()) {
    const text = readFileSync(join(projectRoot(), document), "utf8");
    for (const [, script = ""] of text.matchAll(/\bnpm run ([\w:-]+)/g))
      t.ok(script in manifest.scripts, `${document}: npm run ${script}`);
    for (const [, word = ""] of text.matchAll(/`tsvmm ([a-z]+)\b/g))
      t.ok(names.has(word), `${document}: tsvmm ${word}`);
  }
});

t.test("images of the documents are there", async (t) => {
  for (const document of userDocuments()) {
    const text = readFileSync(join(projectRoot(), document), "utf8");
    for (const [, path = ""] of text.matchAll(/!\[[^\]]*\]\(([^)]+)\)/g))
      t.ok(existsSync(join(projectRoot(), document, "..", path)), `${document}: ${path}`);
  }
});
