import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Why tests that ask the C headers cannot run here; `false` when they can. For tap's `skip` option.
 * In CI (`CI=true`) it is always `false`: a missing compiler fails the tests there instead of hiding them.
 */
export function missingCompiler(): string | false {
  if (process.env["CI"] === "true") return false;
  const found = spawnSync("gcc", ["--version"], { stdio: "ignore" }).status === 0;
  return found ? false : "gcc is not installed (Debian: apt install gcc libc6-dev)";
}

/**
 * Asks the C compiler what expressions are worth: constants, `sizeof(struct x)`, `offsetof(struct x, y)`, ioctl
 * numbers.
 *
 * @param includes Header names without brackets, in order: `["stdint.h", "linux/kvm.h"]`. A line that starts with `#`
 *   or that ends with `;` is put into the program as it is (a `#define`, a declaration). The program includes stddef.h
 *   and stdio.h.
 * @param expressions Integer expressions, which are the keys of the answer. Unsigned 32-bit values stay positive; a
 *   64-bit value is read as signed.
 * @throws Error with gcc's own words when the program does not compile, and when a value does not fit a safe integer.
 */
export function evaluateC(includes: readonly string[], expressions: readonly string[]): Map<string, number> {
  const directory = mkdtempSync(join(tmpdir(), "tsvmm-c-headers-"));
  try {
    const source = join(directory, "main.c");
    const program = join(directory, "main");
    writeFileSync(source, programText(includes, expressions));
    const compiled = spawnSync("gcc", ["-w", "-O0", "-o", program, source], { encoding: "utf8" });
    if (compiled.status !== 0) {
      throw new Error(`Cannot compile the expressions: ${compiled.error?.message ?? compiled.stderr}`);
    }
    const run = spawnSync(program, { encoding: "utf8", maxBuffer: 1 << 26 });
    if (run.status !== 0) throw new Error(`Cannot run the compiled expressions: status ${run.status}`);
    const lines = run.stdout.trimEnd().split("\n");
    const values = new Map<string, number>();
    for (const [index, expression] of expressions.entries()) {
      const value = Number(lines[index]);
      if (!Number.isSafeInteger(value)) throw new Error(`Cannot use ${expression}: it is worth ${lines[index]}`);
      values.set(expression, value);
    }
    return values;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function programText(includes: readonly string[], expressions: readonly string[]): string {
  const isVerbatim = (line: string): boolean => line.startsWith("#") || line.endsWith(";");
  return [
    "#define _GNU_SOURCE",
    "#include <stddef.h>",
    "#include <stdio.h>",
    ...includes.map((include) => (isVerbatim(include) ? include : `#include <${include}>`)),
    "int main(void) {",
    ...expressions.map((expression) => `  printf("%lld\\n", (long long)(${expression}));`),
    "  return 0;",
    "}",
    "",
  ].join("\n");
}
