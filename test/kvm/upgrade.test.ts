import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { diskScript } from "../../guests/disk-script.ts";
import { installPackage } from "../support/installed-package.ts";
import { missingKvm } from "../support/kvm-guest.ts";

/*
 * The package is replaced while a machine runs, as an upgrade does: every file of it and of what it depends on goes.
 * The guest then flushes a disk, resets itself, flushes again and powers off; all of it is in the log.
 */

const skip = missingKvm();

const kernelImage = diskScript(
  [
    ...([{ kind: "write", sector: 0, text: "before" }, { kind: "say", text: " ready\n" }, { kind: "await" }] as const),
    ...([{ kind: "flush" }, { kind: "zero", sector: 8, sectors: 1 }, { kind: "say", text: "\n" }] as const),
    { kind: "reset" },
  ],
  [
    ...([
      { kind: "read", sector: 0, show: 6 },
      { kind: "write", sector: 1, text: "after" },
    ] as const),
    ...([{ kind: "flush" }, { kind: "say", text: "\n" }, { kind: "powerOff" }] as const),
  ],
);
/** What it says: a digit for each request, 0 for success. */
const OUTPUT = "0 ready\n00\n0before00\n";

const PROGRAM = `
import { writeSync } from "node:fs";
import { Machine } from "tsvmm";
const [kernel, disk] = process.argv.slice(2);
const log = { level: "info", format: "json" };
const machine = await Machine.start({ kernel, disks: [{ path: disk }], memory: { sizeBytes: 16 << 20 } }, { log });
machine.serial.onOutput((text) => void writeSync(1, text));
process.stdin.once("data", (bytes) => machine.serial.write(bytes));
const exit = await machine.exited;
await machine.serial.waitFor("never").catch((error) => console.log(error.name));
console.log(exit.reason, (await machine.statistics()).resets);
process.exit(exit.status);
`;

t.setTimeout(100_000);
const project = mkdtempSync(join(tmpdir(), "tsvmm-upgrade-"));
t.teardown(() => rmSync(project, { recursive: true, force: true }));
const { modules, installed, bin } = installPackage(project, "copied");
const aside = join(project, "aside");
const kernel = join(project, "guest.elf");
const disk = join(project, "disk.img");
const summary = join(project, "summary.json");
writeFileSync(kernel, kernelImage);
writeFileSync(join(project, "program.mjs"), PROGRAM);

for (const [name, words, more] of [
  ["the command", ["--memory", "16M", "-v", "--log-format", "json"], ""],
  ["the typed API", [], "WaitError\npowerOff 1\n"],
] as const) {
  t.test(`a machine of ${name} goes on without the files of the package`, { skip }, async (t) => {
    t.teardown(() => renameSync(aside, modules));
    writeFileSync(disk, new Uint8Array(1 << 20));
    const isCommand = words.length > 0;
    const command = join(installed, bin["tsvmm"] ?? "");
    const commandWords = [command, "--kernel", kernel, "--disk", `path=${disk}`, "--summary", summary, ...words];
    const args = isCommand ? commandWords : ["program.mjs", kernel, disk];

    const child = spawn(process.execPath, args, { cwd: project, stdio: ["pipe", "pipe", "pipe"] });
    t.teardown(() => child.kill("SIGKILL"));
    let [output, errors] = ["", ""];
    child.stderr.on("data", (bytes) => {
      errors += String(bytes);
    });
    child.stdout.on("data", (bytes) => {
      output += String(bytes);
      if (output !== "0 ready\n") return;
      renameSync(modules, aside);
      child.stdin.end("\n");
    });
    const [status] = await once(child, "close");
    t.equal(output.replaceAll("\r", ""), OUTPUT + more);
    t.equal(status, 0);
    const lines = errors.trim().split("\n");
    t.match(
      lines.map((line) => (JSON.parse(line) as { msg: string }).msg), // cast: pino writes such lines
      ["the guest runs", "the guest resets", "the guest runs", "the guest powered off"],
    );
    const image = readFileSync(disk, "latin1");
    t.same([image.slice(0, 6), image.slice(512, 517)], ["before", "after"]);
    if (isCommand)
      t.match(JSON.parse(readFileSync(summary, "utf8")), { exit: { status: 0 }, statistics: { resets: 1 } });
  });
}
