import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { projectRoot } from "../tools/cache.ts";
import { ensurePrerequisites, type Prerequisite } from "../tools/prerequisites.ts";
import { type Batch, runBatches } from "./batches.ts";

/*
 * Runs the tests tier by tier and closes with one line of totals: `node dist/test/run.js [tier …]`.
 * A tier that cannot run here says why; with CI=true that is a failure unless the machine truly lacks the device node.
 */

interface Tier {
  readonly name: string;
  /** What it shows, as text. */
  readonly about: string;
  readonly folders: readonly string[];
  readonly needs: readonly Prerequisite[];
  /** Files that share a process with the others of their folder. */
  readonly shared: RegExp;
  /** Processes at a time. */
  readonly jobs: number;
  /** Longest a process may take, in seconds: against hangs. */
  readonly timeoutSeconds: number;
  /** A device node without which the tier cannot run. */
  readonly deviceNode?: string;
}

const COMPILER: Prerequisite = {
  program: "gcc",
  package: "gcc",
  purpose: "checks struct layouts against the C headers",
};
const HEADERS: Prerequisite = {
  program: "/usr/include/linux/kvm.h",
  package: "linux-libc-dev",
  purpose: "the kernel's C headers",
};
const LIBC_HEADERS: Prerequisite = {
  program: "/usr/include/stdio.h",
  package: "libc6-dev",
  purpose: "the C library's headers",
};

const TIERS: readonly Tier[] = [
  {
    name: "unit",
    about: "architecture, ABI against the C headers, pure parts with fakes",
    folders: [".", "abi", "unit"],
    needs: [
      COMPILER,
      LIBC_HEADERS,
      HEADERS,
      { program: "iasl", package: "acpica-tools", purpose: "an independent ACPI compiler" },
      { program: "lspci", package: "pciutils", purpose: "an independent reader of configuration spaces" },
    ],
    // What these do is about the process: its signals, terminal and descriptors, which some count.
    shared: /^(?!unit\/(host\/|vfio-user\/client\/))/,
    jobs: 2,
    timeoutSeconds: 240,
  },
  {
    name: "kvm",
    about: "tiny guests on /dev/kvm",
    folders: ["kvm"],
    needs: [],
    shared: /^(?!)/,
    jobs: 1,
    timeoutSeconds: 240,
    deviceNode: "/dev/kvm",
  },
  {
    name: "lab",
    about: "Linux guests with real VFIO devices in a nested host (minutes: all of it may be emulated)",
    folders: ["lab"],
    needs: [],
    shared: /^(?!)/,
    jobs: 1,
    timeoutSeconds: 3000,
  },
];

interface Totals {
  pass: number;
  fail: number;
  skip: number;
}

const root = projectRoot();
const compiled = join(root, "dist", "test");

/** Compiled test files directly in a tier's folders and below them (directly only for the test folder itself). */
function testFiles(tier: Tier): string[] {
  return tier.folders.flatMap((folder) => {
    const path = join(compiled, folder);
    if (!existsSync(path)) return [];
    return readdirSync(path, { recursive: folder !== ".", encoding: "utf8" })
      .filter((name) => name.endsWith(".test.js"))
      .sort()
      .map((name) => join(path, name));
  });
}

function batchesOf(tier: Tier, files: readonly string[]): readonly Batch[] {
  const batches = new Map<string, string[]>();
  for (const file of files) {
    const folder = relative(compiled, dirname(file));
    const name = tier.shared.test(relative(compiled, file))
      ? join("test", folder)
      : join("test", relative(compiled, file));
    const batch = batches.get(name);
    if (batch === undefined) batches.set(name, [file]);
    else batch.push(file);
  }
  return [...batches].map(([name, batch]) => ({ name, files: batch }));
}

async function runTier(tier: Tier, files: readonly string[]): Promise<Totals> {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-test-"));
  const progress = join(folder, "progress");
  const stopShowing = showProgress(progress);
  const totals = { pass: 0, fail: 0, skip: 0 };
  try {
    await runBatches(batchesOf(tier, files), {
      jobs: tier.jobs,
      timeoutSeconds: tier.timeoutSeconds,
      env: { ...process.env, TSVMM_TEST_PROGRESS: progress },
      onDone: ({ name, pass, fail, skip, trouble }) => {
        totals.pass += pass;
        totals.fail += fail;
        totals.skip += skip;
        console.log(fail > 0 ? `not ok: ${name}\n${trouble}` : `ok: ${name}, ${pass} assertions`);
      },
    });
    return totals;
  } finally {
    stopShowing();
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Shows lines that a slow test appends to a file, as they come: what a test prints is kept until its process's end.
 * Answers how to stop.
 */
function showProgress(path: string): () => void {
  writeFileSync(path, "");
  let shown = 0;
  const show = (): void => {
    const text = readFileSync(path, "utf8");
    process.stdout.write(text.slice(shown));
    shown = text.length;
  };
  const timer = setInterval(show, 1000);
  return () => {
    clearInterval(timer);
    show();
  };
}

async function main(names: readonly string[]): Promise<number> {
  const unknown = names.filter((name) => !TIERS.some((tier) => tier.name === name));
  if (unknown.length > 0) {
    console.error(
      `run: no tier is called ${unknown.join(", ")}; there are ${TIERS.map((tier) => tier.name).join(", ")}`,
    );
    return 2;
  }
  const chosen = names.length === 0 ? TIERS : TIERS.filter((tier) => names.includes(tier.name));
  const sum: Totals = { pass: 0, fail: 0, skip: 0 };
  const summary: string[] = [];
  let isGreen = true;
  for (const [index, tier] of chosen.entries()) {
    console.log(`\n== ${index + 1}/${chosen.length} ${tier.name}: ${tier.about}`);
    const files = testFiles(tier);
    if (tier.deviceNode !== undefined && !existsSync(tier.deviceNode)) {
      summary.push(`${tier.name.padEnd(6)} skipped: this machine has no ${tier.deviceNode}`);
      console.log(`skipped: this machine has no ${tier.deviceNode}; load the module kvm_intel or kvm_amd`);
      sum.skip += files.length;
      continue;
    }
    await ensurePrerequisites(tier.needs, (text) => console.log(text));
    const started = Date.now();
    const totals = await runTier(tier, files);
    const seconds = Math.round((Date.now() - started) / 1000);
    // A tier in which nothing ran is a failure.
    if (totals.pass + totals.fail + totals.skip === 0) totals.fail = 1;
    if (totals.fail > 0) isGreen = false;
    sum.pass += totals.pass;
    sum.fail += totals.fail;
    sum.skip += totals.skip;
    const skipped = totals.skip > 0 ? `, ${totals.skip} skipped` : "";
    summary.push(
      `${tier.name.padEnd(6)} ${totals.pass} passed, ${totals.fail} failed${skipped} in ${seconds} s ` +
        `(${files.length} files)`,
    );
  }
  console.log(`\n== summary\n${summary.join("\n")}`);
  if (sum.skip > 0 && process.env["CI"] === "true")
    console.log(`${sum.skip} skipped: see above for what would enable them`);
  console.log(`${sum.pass} passed, ${sum.fail} failed`);
  return isGreen ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
