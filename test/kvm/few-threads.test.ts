import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { mem32 } from "../../guests/assembler-encoding.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { missingKvm } from "../support/kvm-guest.ts";

/*
 * A host that allows no more threads, at each place where one is made. A user's limit (RLIMIT_NPROC), which root does
 * not have, is raised one by one. The last machine, of two processors, runs to its end.
 */

const skip = missingKvm() || (process.getuid?.() === 0 ? false : "only root can become a user without other processes");
t.setTimeout(100_000);
const folder = mkdtempSync(join(tmpdir(), "tsvmm-threads-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
/** A user without other processes, which would count. */
const USER = 54_321;

// Wakes the second processor, which says so, and ends. Its code, in real mode at 0x8000: mov byte [0x9000], 1; hlt
const kernel = join(folder, "two.elf");
const { bytes } = multibootImage((a) => {
  a.mov(mem32(0x9000), 0).mov(mem32(0x8000), 0x9000_06c6).mov(mem32(0x8004), 0xf401);
  a.mov(mem32(0xfee0_0310), 1 << 24).mov(mem32(0xfee0_0300), 0x4500); // INIT to APIC ID 1
  a.mov(mem32(0xfee0_0300), 0x4608); // SIPI, page 8
  a.label("wait").pause().mov("eax", mem32(0x9000)).cmp("eax", 1).j("ne", "wait");
  a.mov("al", 0).out(0xf4, "al").label("end").hlt().jmp("end");
});
writeFileSync(kernel, bytes);

/** Runs node as a user who may have so many threads. */
function run(
  threads: number,
  args: readonly string[],
): { status: number | null; signal: string | null; output: string } {
  const capabilities = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]; // for /dev/kvm and this folder
  const limited = ["prlimit", `--nproc=${threads}`, process.execPath, ...args];
  const { status, signal, stdout, stderr } = spawnSync(
    "setpriv",
    [`--reuid=${USER}`, `--regid=${USER}`, "--clear-groups", ...capabilities, ...limited],
    { encoding: "utf8", timeout: 20_000, cwd: folder, env: { PATH: process.env["PATH"], HOME: folder } },
  );
  return { status, signal, output: `${stdout}${stderr}` };
}

/**
 * Runs with more and more threads, from as many as node itself has, until one ends as `isLast` says; what the others
 * said.
 */
function raise(args: readonly string[], isLast: (output: string) => boolean): { refusals: string[]; last: string } {
  const refusals: string[] = [];
  const own = Number(run(100, ["-p", "fs.readFileSync('/proc/self/status', 'utf8').match(/Threads:.(.*)/)[1]"]).output);
  for (let threads = own; threads < own + 12; threads++) {
    const { status, signal, output } = run(threads, args);
    if (isLast(output)) return { refusals, last: output };
    // Node aborts when it cannot make the pool of threads that loads the program.
    if (signal !== "SIGABRT" || refusals.length > 0) refusals.push(`${status} ${output}`);
  }
  return { refusals, last: "never" };
}

const NO_MORE =
  "the host allows no more threads (raise ulimit -u, pids.max of its control group, or kernel.threads-max)";
const KVM_NEEDS = "KVM_RUN failed with EAGAIN (KVM needs a thread of its own: raise ulimit -u,";

t.test(
  "Machine.start() says in one line that the host allows no more threads, whichever it is",
  { skip },
  async (t) => {
    const program = fileURLToPath(new URL("../support/few-threads-program.js", import.meta.url));
    const { refusals, last } = raise([program, kernel], (output) => output.includes("debug exit port"));
    t.equal(last, "the guest wrote 0 to the debug exit port\n0 descriptors more\n");
    t.equal(refusals[0], `0 HostError: Cannot start the device thread: ${NO_MORE}\n0 descriptors more\n`);
    t.equal(refusals[1], `0 HostError: Cannot start the thread of vCPU 0: ${NO_MORE}\n0 descriptors more\n`);
    t.ok(refusals.length >= 3);
    for (const refusal of refusals.slice(2)) {
      const ofKvm = refusal.startsWith(`0 Cannot run vCPU 0: ${KVM_NEEDS}`);
      t.ok(ofKvm || refusal === `0 Cannot start the thread of vCPU 1: ${NO_MORE}\n0 descriptors more\n`, refusal);
      t.match(refusal, /^[^\n]*\n0 descriptors more\n$/, "one line, and no descriptor is left");
    }
  },
);

t.test("tsvmm ends with status 1 and one line when the host allows no more threads", { skip }, async (t) => {
  const command = fileURLToPath(new URL("../../bundle/main.js", import.meta.url));
  const options = ["--kernel", kernel, "--memory", "16M", "--cpus", "2", "--debug-exit", "0xf4", "--serial", "off"];
  const { refusals, last } = raise([command, ...options], (output) => output === "");
  t.equal(last, "");
  t.equal(refusals[0], `1 tsvmm: Cannot start the device thread: ${NO_MORE}\n`);
  t.equal(refusals[1], `1 tsvmm: Cannot start the thread of vCPU 0: ${NO_MORE}\n`);
  for (const refusal of refusals) t.match(refusal, /^1 tsvmm: Cannot [^\n]*\n$/);
});
