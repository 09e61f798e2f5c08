import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { type DiskStep, diskScript } from "../../guests/disk-script.ts";
import { openDiskImage } from "../../src/host/disk/disk-image.ts";
import { libc } from "../../src/host/libc.ts";
import { Machine } from "../../src/vmm/machine.ts";
import type { MachineInput } from "../../src/vmm/spec/spec.ts";
import { bundle } from "../../tools/bundle.ts";
import { projectRoot } from "../../tools/cache.ts";
import { missingKvm } from "../support/kvm-guest.ts";

const skip = missingKvm();
const DISK_BYTES = 1 << 20;
const folder = mkdtempSync(join(tmpdir(), "tsvmm-disks-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;

/** A disk image with a text in its first sector. */
function image(text = ""): string {
  const path = join(folder, `disk${files++}.img`);
  const bytes = Buffer.alloc(DISK_BYTES);
  bytes.write(text);
  writeFileSync(path, bytes);
  return path;
}

function guest(disk: string, ...runs: readonly (readonly DiskStep[])[]): MachineInput {
  const kernel = join(folder, `guest${files++}.elf`);
  writeFileSync(kernel, diskScript(...runs));
  return { kernel, memory: { sizeBytes: 16 << 20 }, debugExitPort: 0xf4, disks: [{ path: disk }] };
}

/** What another machine would meet that wants this image; "" when it gets it. */
function tryToOpen(t: Test, path: string): string {
  try {
    libc.close(openDiskImage({ path, isReadOnly: false, isDirect: false, report: (_, text) => t.comment(text) }).fd);
    return "";
  } catch (error) {
    return String(error);
  }
}

t.test("Machine keeps its disks locked while the guest resets", { skip }, async (t) => {
  const disk = image();
  const machine = await Machine.start(guest(disk, [{ kind: "flush" }, { kind: "reset" }], [{ kind: "flush" }]));
  const seen: string[] = [];
  machine.on("reset", () => seen.push(tryToOpen(t, disk)));
  t.equal((await machine.exited).status, 1);
  t.match(seen, [/Cannot lock disk image .*: it is in use/]);
  t.equal(tryToOpen(t, disk), "", "the end of the machine unlocks it");
});

t.test(
  "Machine's guest finds the same disk after its reset, although the path leads to another file",
  { skip },
  async (t) => {
    const disk = image("old");
    const other = image("new");
    const read: DiskStep = { kind: "read", sector: 0, show: 3 };
    const machine = await Machine.start(guest(disk, [read, { kind: "reset" }], [read]));
    machine.on("reset", () => renameSync(other, disk));
    await machine.exited;
    t.equal(machine.serial.text, "0old0old");
  },
);

/** A copy of the program that the test may damage; below the project's root, where it finds its packages. */
async function bundledProgram(t: Test): Promise<string> {
  mkdirSync(join(projectRoot(), ".build"), { recursive: true });
  const program = mkdtempSync(join(projectRoot(), ".build", "disks-"));
  t.teardown(() => rmSync(program, { recursive: true, force: true }));
  await bundle(program);
  return program;
}

const words = (kernel: string, disk: string): readonly string[] => [
  ...["--kernel", kernel, "--memory", "16M", "--debug-exit", "0xf4", "--serial", "tty", "--disk", disk],
];

t.test("a start without the storage worker's file is one line", { skip }, async (t) => {
  const program = await bundledProgram(t);
  rmSync(join(program, "control", "storage-worker.js"));
  const disk = image();
  const { kernel } = guest(disk, [{ kind: "exit" }]);
  const argv = [join(program, "main.js"), ...words(kernel, disk)];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: "utf8", timeout: 60_000 });
  t.same({ status, stdout }, { status: 1, stdout: "" });
  const line =
    /^tsvmm: Cannot start the storage worker of .*\.img: Cannot find module .*\(was the package replaced meanwhile\?\)\n$/;
  t.match(stderr, line);
});

t.test("a guest flushes and resets after the program's files are gone", { skip }, async (t) => {
  const program = await bundledProgram(t);
  const disk = image();
  const write: DiskStep = { kind: "write", sector: 1, text: "kept" };
  const zero: DiskStep = { kind: "zero", sector: 2, sectors: 1 };
  const { kernel } = guest(
    disk,
    [{ kind: "say", text: "?" }, { kind: "await" }, write, { kind: "flush" }, zero, { kind: "reset" }],
    [{ kind: "flush" }, { kind: "exit" }],
  );
  const child = spawn(process.execPath, [join(program, "main.js"), ...words(kernel, disk)], { timeout: 60_000 });
  let output = "";
  child.stderr.on("data", (chunk) => {
    output += String(chunk);
  });
  child.stdout.on("data", (chunk) => {
    output += String(chunk);
    if (output !== "?") return;
    rmSync(program, { recursive: true });
    child.stdin.write("!");
  });
  t.same(await once(child, "exit"), [1, null]);
  t.equal(output, "?0000");
  t.equal(readFileSync(disk).toString("latin1", 512, 516), "kept");
});

/** A loop device of 1 MiB whose backing file has room for 8 KiB: what the kernel cannot write back is lost. */
function fullDevice(t: Test): string {
  const room = join(folder, `full${files++}`);
  mkdirSync(room);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=8k", "tsvmm-test", room]);
  t.teardown(() => void spawnSync("umount", [room]));
  const backing = join(room, "backing");
  writeFileSync(backing, "");
  truncateSync(backing, DISK_BYTES);
  const device = execFileSync("losetup", ["--find", "--show", backing], { encoding: "utf8" }).trim();
  t.teardown(() => void spawnSync("losetup", ["--detach", device]));
  return device;
}

const hasLoop = process.geteuid?.() === 0 && spawnSync("losetup", ["--find"]).status === 0;
const skipLoop = hasLoop ? skip : "no free loop device: run as root with losetup and /dev/loop*";

t.test("Machine's guest is never told that lost data are on its disk", { skip: skipLoop }, async (t) => {
  const disk = fullDevice(t);
  const write = (sector: number): DiskStep => ({ kind: "write", sector, text: "x" });
  const flush: DiskStep = { kind: "flush" };
  const say: DiskStep = { kind: "say", text: " " };
  // Two pages fit; the driver of loop devices takes a request that fits in part for a success, so the third one is
  // alone.
  const steps = [write(0), write(8), flush, say, write(1024), flush, flush, say, { kind: "reset" }] as const;
  const machine = await Machine.start(guest(disk, steps, [flush]));
  await machine.exited;
  t.equal(machine.serial.text, "000 011 1", "nor after its reset");
});
