import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { at } from "../../guests/assembler-encoding.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";

const folder = mkdtempSync(join(tmpdir(), "tsvmm-example-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

t.test("examples/bare-metal.ts finds the guest's text and its verdict", async (t) => {
  const kernel = join(folder, "guest.elf");
  const image = multibootImage((a) => {
    a.mov("esi", at("text")).mov("ecx", 9).mov("edx", 0x3f8).cld().rep().outs(8);
    a.mov("al", 0).out(0xf4, "al").hlt().label("text").ascii("all well\n");
  });
  writeFileSync(kernel, image.bytes);
  const program = fileURLToPath(new URL("../../examples/bare-metal.js", import.meta.url));
  const run = spawnSync(process.execPath, [program, kernel, "all well"], { encoding: "utf8" });
  t.equal(run.stdout, 'found "all well"; the guest wrote 0 to the debug exit port\n');
  t.equal(run.stderr, "");
  t.equal(run.status, 0);
});
