import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { missingKvm } from "../support/kvm-guest.ts";

const folder = mkdtempSync(join(tmpdir(), "tsvmm-kinds-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

t.test("run() completes and checks its specification once", { skip: missingKvm() }, async (t) => {
  const kernel = join(folder, "halt.elf");
  writeFileSync(kernel, multibootImage((a) => void a.cli().label("end").hlt().jmp("end"), 0x4000).bytes);
  const module = (path: string): string => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
  // Each check of a machine checks a device of each kind.
  const program = `
    import { addKind } from ${module("vmm/spec/kinds/list.js")};
    import { run } from ${module("cli/run.js")};
    let count = 0;
    const about = { kind: "x", about: "", option: "--x", group: "Devices", help: "", isPassedThrough: false };
    addKind({ ...about, part: "x", shape: "object", fields: {}, check: () => void count++ });
    const status = await run(["--kernel", ${JSON.stringify(kernel)}, "--memory", "16M", "--dry-run"], []);
    process.stderr.write(JSON.stringify({ status, count }));`;
  const file = join(folder, "count.mjs");
  writeFileSync(file, program);
  const child = spawnSync(process.execPath, [file], { encoding: "utf8" });
  t.match(child.stdout, /^Kernel +.*halt\.elf/);
  t.equal(child.stderr, JSON.stringify({ status: 0, count: 1 }));
});
