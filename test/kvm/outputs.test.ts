import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import t from "tap";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { POLL, POLLFD } from "../../src/host/constants.ts";
import { openDiskImage } from "../../src/host/disk/disk-image.ts";
import { libc } from "../../src/host/libc.ts";
import { Machine } from "../../src/vmm/machine.ts";
import { projectRoot } from "../../tools/cache.ts";
import { missingKvm } from "../support/kvm-guest.ts";

/*
 * What a run does to other programs' files, and to pipes whose other end does nothing. The command runs as a process,
 * in a folder of its own.
 */

const COMMAND = join(projectRoot(), "dist", "bundle", "main.js");
const folder = t.testdir();
const at = (name: string): string => join(folder, name);
const skip = missingKvm();

/** A guest that writes `hello` to its serial port and ends with status 7. */
const HELLO = multibootImage((a) => {
  a.mov("esi", { label: "text", addend: 0 }).mov("ecx", 6).mov("edx", 0x3f8).cld().rep().outs(8);
  a.mov("al", 3).out(0xf4, "al").label("end").hlt().jmp("end").label("text").ascii("hello\n");
}).bytes;
writeFileSync(at("hello.elf"), HELLO);
writeFileSync(
  at("flood.elf"),
  multibootImage((a) => a.mov("edx", 0x3f8).label("again").out("dx", "al").jmp("again")).bytes,
);

const words = (kernel: string, more: readonly string[]): string[] => [
  ...[COMMAND, "--kernel", kernel, "--memory", "16M", "--debug-exit", "0xf4"],
  ...more,
];

/** Runs the hello guest, or another kernel, to its end. */
function run(
  more: readonly string[],
  kernel = "hello.elf",
): { readonly status: number | null; readonly output: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, words(kernel, more), {
    cwd: folder,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  return { status, output: stdout + stderr };
}

const same = (where: string, file: string, other: string): { status: number; output: string } => ({
  status: 2,
  output: `tsvmm: ${where}: ${file} is the file of ${other} too: output needs one of its own\n`,
});

t.test(
  "A run empties its output files when the guest starts, and makes them with what it wrote",
  { skip },
  async (t) => {
    writeFileSync(at("serial.log"), "yesterday's boot log, which is longer than today's");
    t.same(run(["--serial", "file=serial.log", "--console", "file=console.log"]), { status: 7, output: "" });
    t.equal(readFileSync(at("serial.log"), "utf8"), "hello\n");
    t.equal(readFileSync(at("console.log"), "utf8"), "");
  },
);

t.test("A dry run and a start that fails leave output files as they were, and make none", { skip }, async (t) => {
  writeFileSync(at("kept.log"), "yesterday's");
  writeFileSync(at("damaged.elf"), HELLO.subarray(0, HELLO.length - 16));
  writeFileSync(at("used.img"), Buffer.alloc(1 << 20));
  const used = openDiskImage({ path: at("used.img"), isReadOnly: false, isDirect: false, report: () => undefined });
  t.teardown(() => libc.close(used.fd));
  const outputs = ["--serial", "file=kept.log", "--console", "file=not-made.log", "--summary", "no-summary.json"];
  t.match(run([...outputs, "--dry-run"]), { status: 0, output: /^Kernel +hello\.elf/ });
  t.match(run([...outputs, "--disk", "path=used.img"]), { status: 1, output: /Cannot lock disk image used\.img/ });
  t.match(run(outputs, "damaged.elf"), { status: 2, output: /damaged\.elf is truncated/ });
  t.match(run([...outputs, "--debug-exit", "0x3f8"]), { status: 2 });
  t.equal(readFileSync(at("kept.log"), "utf8"), "yesterday's");
  t.notOk(existsSync(at("not-made.log")));
  t.notOk(existsSync(at("no-summary.json")));
});

t.test(
  "A run refuses outputs that are its disk, its kernel or each other, whatever they are called",
  { skip },
  async (t) => {
    const disk = Buffer.alloc(1 << 20, 0x5a);
    mkdirSync(at("real"));
    writeFileSync(at("real/disk.img"), disk);
    linkSync(at("real/disk.img"), at("hard.img"));
    symlinkSync("real", at("linked"));
    const withDisk = ["--disk", "path=real/disk.img"];
    for (const name of ["real/disk.img", "hard.img", "linked/disk.img"]) {
      t.same(run([...withDisk, "--serial", `file=${name}`]), same("--serial", name, "--disk"));
      t.same(run([...withDisk, "--console", `file=${name}`]), same("--console", name, "--disk"));
      t.same(run([...withDisk, "--summary", name]), same("--summary", name, "--disk"));
      t.same(run([...withDisk, "-v", "--log-file", name]), same("--log-file", name, "--disk"));
    }
    t.ok(readFileSync(at("real/disk.img")).equals(disk), "the disk is what it was");
    t.same(run(["--serial", "file=hello.elf"]), same("--serial", "hello.elf", "--kernel"));
    t.ok(readFileSync(at("hello.elf")).equals(HELLO), "the kernel is what it was");
    t.same(run(["--serial", "file=real/new", "--summary", "linked/new"]), same("--summary", "linked/new", "--serial"));
    t.same(readdirSync(at("real")), ["disk.img"]);
    const spec = { kernel: at("hello.elf"), memory: { sizeBytes: 16 << 20 }, disks: [{ path: at("real/disk.img") }] };
    await t.rejects(Machine.start({ ...spec, serial: { kind: "file", path: at("hard.img") } }), {
      path: "serial",
      message: `serial: ${at("hard.img")} is the file of disks[0].path too: output needs one of its own`,
    });
    await t.rejects(Machine.start(spec, { log: { level: "info", format: "json", file: at("hard.img") } }), {
      path: "log.file",
      message: `log.file: ${at("hard.img")} is the file of disks[0].path too: output needs one of its own`,
    });
  },
);

t.test("A pipe without its other end is said in one line, or does not matter", { skip }, async (t) => {
  execFileSync("mkfifo", [at("alone")]);
  const reason = "ENXIO (the pipe has no reader: start the reader first)";
  t.same(run(["--log-file", "alone"]), { status: 2, output: `tsvmm: --log-file: Cannot open alone: ${reason}\n` });
  t.same(run(["--summary", "alone"]), {
    status: 1,
    output: `hello\ntsvmm: Cannot write the summary to alone: ${reason}\n`,
  });
  t.match(run(["--serial", "file=alone"]), {
    status: 1,
    output: /^tsvmm: Cannot open alone for serial output: .*ENXIO/,
  });
  t.same(run(["--rng", "src=alone"]), { status: 7, output: "hello\n" });
});

t.test("A run writes to pipes that are read", { skip }, async (t) => {
  const pipes = ["log", "serial", "summary"].map((name) => {
    execFileSync("mkfifo", [at(name)]);
    return openSync(at(name), constants.O_RDONLY | constants.O_NONBLOCK);
  });
  t.same(run(["-v", "--log-file", "log", "--serial", "file=serial", "--summary", "summary"]), {
    status: 7,
    output: "",
  });
  const bytes = Buffer.alloc(1 << 16);
  const [log = "", serial = "", summary = ""] = pipes.map((pipe) => {
    const text = bytes.toString("utf8", 0, readSync(pipe, bytes));
    closeSync(pipe);
    return text;
  });
  t.match(log, /"msg":"the guest runs"/);
  t.equal(serial, "hello\n");
  t.match(JSON.parse(summary), { exit: { status: 7, reason: "debugExit" } });
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  t.test(`${signal} ends a run whose log's reader does not read`, { skip }, async (t) => {
    const name = `stalled-${signal}`;
    execFileSync("mkfifo", [at(name)]);
    const reader = openSync(at(name), constants.O_RDONLY | constants.O_NONBLOCK);
    const probe = openSync(at(name), constants.O_WRONLY | constants.O_NONBLOCK);
    const writer = openSync(at(name), constants.O_WRONLY);
    const child = spawn(process.execPath, words("flood.elf", ["--serial", "null", "-vvv"]), {
      cwd: folder,
      stdio: ["ignore", "ignore", writer],
    });
    closeSync(writer);
    const exited = once(child, "exit");
    while (!isFull(probe)) await new Promise((resolve) => setTimeout(resolve, 10));
    child.kill(signal);
    t.same(await exited, [signal === "SIGTERM" ? 143 : 130, null]);
    closeSync(probe);
    closeSync(reader);
  });
}

/** Whether a pipe has no room. poll(2) */
function isFull(pipe: number): boolean {
  const request = new DataView(new ArrayBuffer(POLLFD.size));
  request.setInt32(POLLFD.fd, pipe, true);
  request.setInt16(POLLFD.events, POLL.POLLOUT, true);
  return libc.poll(new Uint8Array(request.buffer), 1, 0) === 0;
}
