import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { bundle } from "../../tools/bundle.ts";
import { projectRoot } from "../../tools/cache.ts";
import { missingKvm } from "../support/kvm-guest.ts";

// Below the project's root, where the bundles find koffi and pino.
mkdirSync(join(projectRoot(), ".build"), { recursive: true });
const folder = mkdtempSync(join(projectRoot(), ".build", "bundle-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
await bundle(folder);

const tsvmm = (...words: readonly string[]): { readonly status: number | null; readonly output: string } => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, "main.js"), ...words], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  return { status, output: stdout + stderr };
};

t.test("the bundle tells its version and what is wrong with a command line", async (t) => {
  t.match(tsvmm("--version"), { status: 0, output: /^tsvmm \d/ });
  t.match(tsvmm("--kernel", "/nowhere"), { status: 2, output: /^tsvmm: .*\/nowhere/ });
  t.match(tsvmm("doctor"), { output: /KVM/ });
});

t.test("the bundle runs a guest on all its threads, with log lines", { skip: missingKvm() }, async (t) => {
  const kernel = join(folder, "guest.elf");
  const { bytes } = multibootImage((a) => {
    a.mov("esi", { label: "text", addend: 0 }).mov("ecx", 6).mov("edx", 0x3f8).cld().rep().outs(8);
    a.mov("al", 3).out(0xf4, "al").label("end").hlt().jmp("end").label("text").ascii("hello\n");
  });
  writeFileSync(kernel, bytes);
  const run = tsvmm("--kernel", kernel, "--memory", "16M", "--cpus", "2", "--debug-exit", "0xf4", "-v");
  t.match(run, { status: 7, output: /hello\n/ });
  t.match(run.output, /the guest wrote 3 to the debug exit port/);
  for (const format of ["json", "pretty"]) {
    const words = ["--memory", "16M", "--debug-exit", "0xf4", "-v", "--log-file", "/dev/full", "--log-format", format];
    t.same(tsvmm("--kernel", kernel, ...words), {
      status: 7,
      output: "hello\ntsvmm: Cannot write the log to /dev/full: ENOSPC: what follows is lost\n",
    });
  }
});
