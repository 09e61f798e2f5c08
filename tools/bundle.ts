import { chmodSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type BuildOptions, build } from "esbuild";
import { projectRoot } from "./cache.ts";

/*
 * Makes the program's bundles: one file for each thread, which start in half the time of the hundred modules they are
 * made of.
 *
 *   node dist/tools/bundle.js [--out DIRECTORY]
 *
 * Each thread's entry file becomes a CommonJS file of the same name. A worker is started by a path relative to the
 * module that starts it: `../vcpu/vcpu-worker.js` in `vmm/control`. So the bundles lie in folders that keep those paths
 * true. Packages stay outside: koffi's binary is loaded by `host/libc.ts`, pino when it is first used.
 */

/** Entry files below src, one for each kind of thread, by the bundle's name. */
const ENTRIES: Readonly<Record<string, string>> = {
  main: "main.ts",
  "vcpu/vcpu-worker": "vmm/vcpu/vcpu-worker.ts",
  "device/device-worker": "vmm/device/device-worker.ts",
  "device/entropy-worker": "host/entropy/entropy-worker.ts",
  "control/storage-worker": "host/disk/storage-worker.ts",
};

/**
 * What `import.meta.url` becomes in a CommonJS file: `fileUrl`, made here of the file's own path or of a path beside
 * it.
 */
const fileUrl = (path: string): string => `const fileUrl = require("node:url").pathToFileURL(${path}).href;`;
/** The control thread's code counts as lying in a folder beside those of the workers. */
const fileUrlOf = (name: string): string => fileUrl(name === "main" ? '__dirname + "/control/main.js"' : "__filename");

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
  logLevel: "warning",
};

/** Writes the bundles into a folder, which is emptied first; the packages have to be found from there. */
export async function bundle(folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const source = join(projectRoot(), "src");
  await Promise.all(
    Object.entries(ENTRIES).map(([name, entry]) =>
      build({
        ...COMMON,
        entryPoints: [join(source, entry)],
        outfile: join(folder, `${name}.js`),
        banner: { js: fileUrlOf(name) },
      }),
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
