import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory, projectRoot } from "../tools/cache.ts";

/*
 * Runs the unit and kvm tiers on other Node versions, which come as npm's `node` packages:
 * `node dist/test/nodes.js [22 24 26]`.
 */

const versions = process.argv.length > 2 ? process.argv.slice(2) : ["22", "24", "26"];
const root = projectRoot();
const results: string[] = [];
let isGreen = true;

for (const version of versions) {
  const folder = join(cacheDirectory(), `node-${version}`);
  const bin = join(folder, "node_modules", ".bin");
  if (!existsSync(join(bin, "node"))) {
    console.log(`fetching Node ${version} (about 100 MB) into ${folder}`);
    mkdirSync(folder, { recursive: true });
    // The package's install script puts the binary in place; it downloads nothing and compiles nothing.
    const args = [
      "install",
      "--prefix",
      folder,
      "--no-save",
      "--no-audit",
      "--no-fund",
      "--loglevel=error",
      `node@${version}`,
    ];
    if (spawnSync("npm", args, { cwd: folder, stdio: ["ignore", "inherit", "inherit"] }).status !== 0) {
      results.push(`Node ${version}: could not be fetched`);
      isGreen = false;
      continue;
    }
  }
  const PATH = `${bin}:${process.env["PATH"] ?? ""}`;
  const exact = spawnSync("node", ["--version"], { env: { ...process.env, PATH }, encoding: "utf8" }).stdout.trim();
  console.log(`\n==== Node ${exact}`);
  const run = spawnSync("node", [join(root, "dist", "test", "run.js"), "unit", "kvm"], {
    cwd: root,
    env: { ...process.env, PATH },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 28,
  });
  process.stdout.write(run.stdout);
  const last = run.stdout.trim().split("\n").pop() ?? "";
  results.push(`Node ${exact}: ${last}`);
  if (run.status !== 0) isGreen = false;
}

console.log(`\n== other Node versions\n${results.join("\n")}`);
process.exitCode = isGreen ? 0 : 1;
