/**
 * Finds lines of code and comments over 120 columns: `node dist/tools/widths.js`. A regular expression may be longer,
 * since it cannot be broken. The formatter keeps Markdown prose within 100.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "./cache.ts";

const COLUMNS = 120;

const files = execFileSync("git", ["ls-files", "*.ts"], { cwd: projectRoot(), encoding: "utf8" }).trim().split("\n");
const wide = files.flatMap((file) =>
  readFileSync(join(projectRoot(), file), "utf8")
    .split("\n")
    .flatMap((line, index) => (line.length > COLUMNS && !/^\s*\//.test(line) ? [`${file}:${index + 1}`] : [])),
);
for (const place of wide) console.error(`${place} is over ${COLUMNS} columns`);
if (wide.length > 0) process.exitCode = 1;
