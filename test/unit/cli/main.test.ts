import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import t from "tap";

const MAIN = fileURLToPath(new URL("../../../src/main.js", import.meta.url));

function tsvmm(...argv: string[]): {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
} {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...argv], { encoding: "utf8" });
  return { status, stdout, stderr };
}

t.test("tsvmm shows a wrong command line as one line on standard error and exits with 2", async (t) => {
  t.same(tsvmm("--kernle", "x"), {
    status: 2,
    stdout: "",
    stderr: "tsvmm: unknown option '--kernle'; did you mean '--kernel'?\n",
  });
  t.same(tsvmm("run", "--kernel", "/no/such/kernel"), {
    status: 2,
    stdout: "",
    stderr: "tsvmm: --kernel: there is no file /no/such/kernel\n",
  });
  t.match(tsvmm(), { status: 2, stdout: "", stderr: /^tsvmm: no kernel is given: [^\n]+\n$/ });
});

t.test("tsvmm's commands show a wrong word as one line and exit with 2", async (t) => {
  for (const argv of [
    ["devices", "0000:ff:1f.7"],
    ["devices", "--record"],
    ["bind"],
    ["bind", "--dry-run", "nonsense"],
    ["unbind", "--all"],
    ["doctor", "--memory", "much"],
    ["doctr"],
  ]) {
    t.match(tsvmm(...argv), { status: 2, stdout: "", stderr: /^tsvmm: [^\n]+\n$/ }, argv.join(" "));
  }
});

t.test("tsvmm help COMMAND and COMMAND --help print the command's help", async (t) => {
  for (const command of ["devices", "bind", "unbind", "doctor"]) {
    const { status, stdout } = tsvmm("help", command);
    t.equal(status, 0);
    t.match(stdout, new RegExp(`Usage:\\n  tsvmm ${command} `));
    t.equal(tsvmm(command, "--help").stdout, stdout);
  }
});

t.test("tsvmm --help prints the help to standard output", async (t) => {
  const { status, stdout, stderr } = tsvmm("--help");
  t.equal(status, 0);
  t.equal(stderr, "");
  t.match(stdout, /^tsvmm runs a virtual machine/);
  t.equal(tsvmm("run", "-h").stdout, stdout);
});

t.test("tsvmm --version prints the package's version", async (t) => {
  t.match(tsvmm("--version"), { status: 0, stdout: /^tsvmm \d+\.\d+\.\d+\n$/, stderr: "" });
});

t.test("tsvmm survives a reader that goes away", async (t) => {
  const command = `"${process.execPath}" "${MAIN}" --help | head -c 1; echo " \${PIPESTATUS[0]}"`;
  t.same(spawnSync("bash", ["-c", command], { encoding: "utf8" }).stdout, "t 0\n");
});
