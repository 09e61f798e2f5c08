import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { parseRun } from "../../../../src/cli/options/parse.ts";
import { checkOutputs, type NamedFile } from "../../../../src/vmm/spec/outputs.ts";
import type { CharSpec, MachineInput } from "../../../../src/vmm/spec/spec.ts";
import { completeSpec } from "../../../../src/vmm/spec/spec-check.ts";
import { deadSocket } from "../../../support/socket-pair.ts";

// A folder of its own: files of one batch share t.testdir().
const directory = mkdtempSync(join(tmpdir(), "tsvmm-outputs-"));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
for (const name of ["kernel", "initramfs", "disk", "rom", "seed", "log"]) writeFileSync(join(directory, name), name);
for (const name of ["real", "0000:01:00.0"]) mkdirSync(join(directory, name));
writeFileSync(join(directory, "0000:01:00.0/vendor"), "0x8086");
writeFileSync(join(directory, "0000:01:00.0/config"), "c");
const at = (name: string): string => `${directory}/${name}`;
symlinkSync("real", at("linked"));

/** What is said of a machine with everything that it can read. */
function refusal(t: Test, more: Partial<MachineInput>, outputs: readonly NamedFile[] = []): string {
  const socket = deadSocket(t);
  try {
    completeSpec(
      {
        kernel: at("kernel"),
        initramfs: at("initramfs"),
        disks: [{ path: at("disk"), isReadOnly: true }],
        devices: [{ path: at("0000:01:00.0"), rom: { kind: "file", path: at("rom") } }],
        userDevices: [{ socket }],
        rng: { source: at("seed") },
        ...more,
      },
      outputs,
    );
  } catch (error) {
    return String(error).replace(/^SpecError: /, "");
  }
  return "accepted";
}

const file = (path: string): CharSpec => ({ kind: "file", path });
const clash = (where: string, path: string, other: string): string =>
  `${where}: ${path} is the file of ${other} too: output needs one of its own`;

t.test("completeSpec() refuses outputs that are a file the machine uses, by any name", async (t) => {
  for (const [name, other] of [
    ["kernel", "kernel"],
    ["initramfs", "initramfs"],
    ["disk", "disks[0].path"],
    ["rom", "devices[0].rom"],
    ["seed", "rng.source"],
  ] as const) {
    linkSync(at(name), at(`${name}.hard`));
    symlinkSync(name, at(`${name}.soft`));
    const opened = openSync(at(name), "r");
    const names = [
      at(name),
      `${directory}/real/../${name}`,
      at(`${name}.hard`),
      at(`${name}.soft`),
      `/proc/self/fd/${opened}`,
    ];
    for (const path of names) {
      t.equal(refusal(t, { serial: file(path) }), clash("serial", path, other));
      t.equal(refusal(t, { console: file(path) }), clash("console", path, other));
      t.equal(refusal(t, {}, [{ where: "log.file", path }]), clash("log.file", path, other));
    }
    closeSync(opened);
  }
  const socket = deadSocket(t);
  const users = { userDevices: [{ socket }] };
  for (const kind of ["file", "socket"] as const) {
    const serial: CharSpec = { kind, path: socket };
    t.equal(refusal(t, { ...users, serial }), clash("serial", socket, "userDevices[0].socket"));
  }
  t.equal(refusal(t, { serial: file(at("log")) }, [{ where: "log.file", path: at("new") }]), "accepted");
});

t.test("completeSpec() refuses two outputs into one file, also one that is not there yet", async (t) => {
  const pair = (first: string, second: string, kind: "file" | "socket" = "file"): string =>
    refusal(t, { serial: { kind, path: first }, console: file(second) });
  t.equal(pair(at("log"), at("./log")), clash("console", at("./log"), "serial"));
  t.equal(pair(at("real/new"), at("linked/new")), clash("console", at("linked/new"), "serial"));
  t.equal(pair(at("real/new"), at("linked/new"), "socket"), clash("console", at("linked/new"), "serial"));
  t.equal(pair(at("real/new"), at("linked/other")), "accepted");
  symlinkSync("real/later", at("dangling"));
  t.equal(pair(at("dangling"), at("linked/later")), clash("console", at("linked/later"), "serial"));
  symlinkSync("loop", at("loop"));
  t.equal(pair(at("loop"), at("nowhere/x")), "accepted", "neither can be opened");
  const outputs = [
    { where: "log.file", path: at("real/a") },
    { where: "summary", path: at("linked/a") },
  ];
  t.equal(refusal(t, {}, outputs), clash("summary", at("linked/a"), "log.file"));
  t.equal(refusal(t, { console: { kind: "tty" } }, [{ where: "summary", path: "/dev/null" }]), "accepted");
});

t.test("checkOutputs() lets character devices be shared, and pipes not", async (t) => {
  const check = (...paths: readonly string[]): string => {
    try {
      checkOutputs(
        [],
        paths.map((path, index) => ({ where: `output ${index}`, path })),
      );
    } catch (error) {
      return String(error).replace(/^SpecError: /, "");
    }
    return "accepted";
  };
  t.equal(check("/dev/null", "/dev/null"), "accepted");
  mkdirSync(at("pipes"));
  execFileSync("mkfifo", [at("pipes/fifo")]);
  t.equal(check(at("pipes/fifo"), at("pipes/../pipes/fifo")), clash("output 1", at("pipes/../pipes/fifo"), "output 0"));
});

const block = ["/dev/loop0", "/dev/vda", "/dev/sda", "/dev/nvme0n1"].find((path) => existsSync(path));
const missing = block === undefined ? "there is no block device" : false;
t.test("completeSpec() refuses output into a block device", { skip: missing }, async (t) => {
  const path = block ?? "";
  t.equal(refusal(t, { serial: file(path) }), `serial: ${path} is a block device: a file is needed`);
});

t.test("parseRun() names the options of two parts that name one file", async (t) => {
  const parse = (...argv: string[]): string => {
    try {
      parseRun(["--kernel", at("kernel"), ...argv], directory);
    } catch (error) {
      return String(error).replace(/^SpecError: /, "");
    }
    return "accepted";
  };
  const disk = ["--disk", `path=${at("disk")}`];
  t.equal(parse(...disk, "--serial", "file=~/disk"), clash("--serial", at("disk"), "--disk"));
  t.equal(parse(...disk, "--console", "file=~/disk.hard"), clash("--console", at("disk.hard"), "--disk"));
  t.equal(parse(...disk, "--summary", "~/disk"), clash("--summary", at("disk"), "--disk"));
  t.equal(parse(...disk, "--log-file", "~/disk"), clash("--log-file", at("disk"), "--disk"));
  t.equal(parse("--serial", "file=~/kernel"), clash("--serial", at("kernel"), "--kernel"));
  t.equal(
    parse("--initramfs", "~/initramfs", "--summary", "~/initramfs"),
    clash("--summary", at("initramfs"), "--initramfs"),
  );
  t.equal(parse("--rng", "src=~/seed", "--log-file", "~/seed"), clash("--log-file", at("seed"), "--rng"));
  t.equal(parse("--log-file", "~/log", "--summary", "~/log"), clash("--summary", at("log"), "--log-file"));
});

t.test("completeSpec() refuses standard output that is a file the machine uses", async (t) => {
  const module = new URL("../../../../src/vmm/spec/spec-check.js", import.meta.url).href;
  const spec = { kernel: at("kernel"), disks: [{ path: at("disk") }], serial: { kind: "tty" } };
  const program = `
    import { completeSpec } from ${JSON.stringify(module)};
    try { completeSpec(${JSON.stringify(spec)}); }
    catch (error) { process.stderr.write(String(error)); }`;
  const append = openSync(at("disk"), "a");
  const { stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
    stdio: ["ignore", append, "pipe"],
  });
  closeSync(append);
  t.equal(stderr, `SpecError: ${clash("serial", "standard output", "disks[0].path")}`);
});
