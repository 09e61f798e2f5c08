import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { invariant } from "../base/invariant.ts";

/** The package's version, from the `package.json` above this file. */
export function packageVersion(): string {
  for (let directory = dirname(fileURLToPath(import.meta.url)); ; directory = dirname(directory)) {
    try {
      const parsed: unknown = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
      if (typeof parsed === "object" && parsed !== null && "version" in parsed && "name" in parsed) {
        if (parsed.name === "tsvmm") return String(parsed.version);
      }
    } catch {
      // No package.json here: look one directory higher.
    }
    invariant(dirname(directory) !== directory, "package.json is missing");
  }
}
