import { spawnSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { type DialogueEnd, dialogueGuest } from "../../guests/dialogue.ts";
import { projectRoot } from "../../tools/cache.ts";
import { codeBlocks, userDocuments } from "../support/documents.ts";
import { missingKvm } from "../support/kvm-guest.ts";

/*
 * The TypeScript blocks of the README and the guides: compiled as a user's strict project compiles them, then run. A
 * tiny guest plays the part of the Linux or the kernel that a block boots.
 */

/** What a block's guest says, and what the block prints. */
interface Expectation {
  readonly document: string;
  readonly guest?: { readonly texts: readonly string[]; readonly end: DialogueEnd };
  readonly prints: string;
}

/** In the order of the documents and of the blocks in each. */
const EXPECTATIONS: readonly Expectation[] = [
  { document: "README.md", guest: { texts: ["login: ", "# "], end: "powerOff" }, prints: "" },
  {
    document: "docs/guide/testing.md",
    guest: { texts: ["# ", "cpus=1\r\n# ", ""], end: "powerOff" },
    prints: "the guest sees 1 CPUs\n0 powerOff\n",
  },
  { document: "docs/guide/testing.md", guest: { texts: ["all well\n"], end: { debugExit: 0 } }, prints: "1\n" },
  { document: "docs/guide/writing-a-device.md", prints: "listening\n" },
];

const root = projectRoot();
const project = t.testdir({ "package.json": JSON.stringify({ type: "module" }), "initramfs.cpio": "archive" });
mkdirSync(join(project, "node_modules"));
symlinkSync(root, join(project, "node_modules", "tsvmm"));

const blocks = userDocuments().flatMap((document) => codeBlocks(document).filter(({ language }) => language === "ts"));

t.test("every TypeScript block of the documents has its expectation here", async (t) => {
  t.same(
    blocks.map(({ document }) => document),
    EXPECTATIONS.map(({ document }) => document),
  );
});

t.test("the documents' TypeScript blocks compile in a strict project", async (t) => {
  const names = blocks.map((_, index) => `block${index}.ts`);
  blocks.forEach(({ text }, index) => void writeFileSync(join(project, names[index] ?? ""), text));
  const compilerOptions = {
    ...{ target: "es2022", lib: ["es2022", "esnext.disposable"], module: "nodenext", strict: true },
    ...{ types: ["node"], typeRoots: [join(root, "node_modules", "@types")] },
  };
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: names }));
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", project], { encoding: "utf8" });
  t.equal(stdout, "");
  t.equal(status, 0);
});

for (const [index, { document, guest, prints }] of EXPECTATIONS.entries()) {
  t.test(
    `block ${index} does what ${document} says`,
    { skip: guest === undefined ? false : missingKvm() },
    async (t) => {
      const folder = t.testdir({ "initramfs.cpio": "archive" });
      if (guest !== undefined) {
        const image = dialogueGuest(guest.texts, guest.end);
        for (const name of ["vmlinux", "kernel.elf"]) writeFileSync(join(folder, name), image);
      }
      const run = spawnSync(process.execPath, [join(project, `block${index}.js`)], { cwd: folder, encoding: "utf8" });
      t.equal(run.stdout, prints);
      t.equal(run.stderr, "");
      t.equal(run.status, 0);
    },
  );
}
