import { chmodSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build, type BuildOptions } from "esbuild";
import { projectRoot } from "../guest-images/cache.ts";

/*
 * Makes the program's bundles: one file for each thread, which start in half the time of the hundred modules they are made of.
 *
 *   node dist/tools/bundle.js [--out DIRECTORY]
 *
 * Each thread's entry file becomes a CommonJS file of the same name, so that `new Worker(new URL("vcpu-worker.js", import.meta.url))` finds
 * its neighbour here as it does beside the modules. Packages stay outside: koffi's binary is loaded by `host/libc.ts`, pino when it is
 * first used.
 */

/** Entry files below src, one for each kind of thread, by the bundle's name. */
const ENTRIES: Readonly<Record<string, string>> = {
  main: "main.ts",
  "device-worker": "vmm/device-worker.ts",
  "vcpu-worker": "vmm/vcpu-worker.ts",
  "storage-worker": "host/storage-worker.ts",
};

/** `import.meta.url` in a CommonJS file. */
const URL_OF_FILE = 'const fileUrl = require("node:url").pathToFileURL(__filename).href;';

const COMMON: BuildOptions = {
  bundle: true,
  platform: "node",
  format: "cjs", // the loader of ES modules takes 5 to 10 ms more in each thread
  target: "node20",
  packages: "external",
  // Names stay, so that a stack trace in a bug report can be read.
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: "none",
  define: { "import.meta.url": "fileUrl" },
  banner: { js: URL_OF_FILE },
  logLevel: "warning",
};

/** Writes the bundles into a folder, which is emptied first; the packages have to be found from there. */
export async function bundle(folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const source = join(projectRoot(), "src");
  await Promise.all(
    Object.entries(ENTRIES).map(([name, entry]) =>
      build({ ...COMMON, entryPoints: [join(source, entry)], outfile: join(folder, `${name}.js`) }),
    ),
  );
  // The package's own says "module".
  writeFileSync(join(folder, "package.json"), `${JSON.stringify({ type: "commonjs" })}\n`);
  chmodSync(join(folder, "main.js"), 0o755);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const out = { type: "string", default: join(projectRoot(), "dist", "bundle") } as const;
  await bundle(parseArgs({ options: { out } }).values.out);
}
