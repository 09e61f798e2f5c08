import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { diskScript } from "../../guests/disk-script.ts";
import { missingKvm } from "../support/kvm-guest.ts";

/*
 * A host that allows no more open files, at each place where one is opened. The limit is raised one by one, from Node's
 * own need, until a machine starts. Its guest flushes a disk, resets itself and powers off.
 */

const folder = mkdtempSync(join(tmpdir(), "tsvmm-descriptors-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
t.setTimeout(200_000);

const kernel = join(folder, "guest.elf");
const disk = join(folder, "disk.img");
writeFileSync(disk, new Uint8Array(1 << 20));
writeFileSync(
  kernel,
  diskScript(
    [{ kind: "write", sector: 0, text: "text" }, { kind: "flush" }, { kind: "reset" }],
    [{ kind: "flush" }, { kind: "read", sector: 0, show: 4 }, { kind: "powerOff" }],
  ),
);
/** What a machine goes on without: a queue's doorbell, the log. */
const WITHOUT = '(\\{"level":40,[^\\n]*\\}\\n|tsvmm: Cannot load the log\'s package: [^\\n]*\\n)';
const OUTPUT = "0000text";

function run(descriptors: number, ...args: readonly string[]): { status: number | null; out: string; errors: string } {
  const limited = [`--nofile=${descriptors}`, process.execPath, ...args];
  const { status, stdout, stderr } = spawnSync("prlimit", limited, { encoding: "utf8", timeout: 30_000 });
  return { status, out: stdout, errors: stderr };
}

t.test(
  "tsvmm ends with one line, or goes on, when the host allows no more open files",
  { skip: missingKvm() },
  async (t) => {
    const command = fileURLToPath(new URL("../../bundle/main.js", import.meta.url));
    const machine = ["--kernel", kernel, "--memory", "16M", "--cpus", "2", "--disk", `path=${disk}`];
    let descriptors = 12;
    // Node needs some for itself, and one more to read a program of ours.
    while (run(descriptors, "-e", "0").status !== 0) descriptors++;
    descriptors++;
    let refusals = 0;
    let last = run(descriptors, command, ...machine);
    for (; last.errors !== "" && descriptors < 200; last = run(++descriptors, command, ...machine)) {
      const said = `${descriptors}: ${last.status} ${last.out} ${last.errors}`;
      if (last.status === 0) {
        t.equal(last.out, OUTPUT, said);
        t.match(last.errors, new RegExp(`^${WITHOUT}+$`), said);
        continue;
      }
      refusals++;
      const reason = "tsvmm: Cannot [^\\n]*: (\\w+ failed with )?EMFILE \\(raise [^\\n]*\\)\\n";
      t.match(last, { status: 1, errors: new RegExp(`^${WITHOUT}*${reason}$`) }, said);
    }
    t.same(last, { status: 0, out: OUTPUT, errors: "" });
    t.ok(refusals > 10, `${refusals} starts were refused`);
  },
);

t.test("tsvmm says in one line which thread has no address space", { skip: missingKvm() }, async (t) => {
  const command = fileURLToPath(new URL("../../bundle/main.js", import.meta.url));
  const machine = ["--kernel", kernel, "--memory", "16M", "--disk", `path=${disk}`];
  const used = Number(/VmSize:\s*(\d+) kB/.exec(statusOf("-p", "fs.readFileSync('/proc/self/status', 'utf8')"))?.[1]);
  const runs = [0.5, 1.5, 2.5, 3.5].map((threads) => {
    const bytes = used * 1024 + threads * 800 * 2 ** 20;
    const { status, stdout, stderr } = spawnSync("prlimit", [`--as=${bytes}`, process.execPath, command, ...machine], {
      ...{ encoding: "utf8", timeout: 30_000 },
    });
    return { status, out: stdout, errors: stderr };
  });
  const refused = (name: string): object => ({
    ...{ status: 1, out: "" },
    errors: new RegExp(
      `^tsvmm: Cannot start ${name}: \\d+ MiB of address space are left, .* \\(raise ulimit -v\\)\\n$`,
    ),
  });
  t.match(runs, [
    refused("the device thread"),
    refused(`the storage worker of ${disk}`),
    refused("the thread of vCPU 0"),
    { status: 0, out: OUTPUT, errors: "" },
  ]);
});

function statusOf(...args: readonly string[]): string {
  return spawnSync(process.execPath, args, { encoding: "utf8" }).stdout;
}
