import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { fromCLibrary } from "../../../src/host/c-library.ts";
import { projectRoot } from "../../../tools/cache.ts";

/** What koffi says on Alpine, with musl's own words behind the colon. */
const onAlpine = (): never => {
  throw new Error(
    "Failed to load shared library: Error loading shared library libc.so.6: No such file or directory (needed by ...)",
  );
};

t.test("fromCLibrary() says in one sentence that the C library is musl", async (t) => {
  const said = t.throws(() => fromCLibrary(onAlpine, () => undefined));
  t.ok(said instanceof HostError);
  t.equal(
    (said as HostError).message, // cast: looked at above
    "Cannot load the C library: this Node.js runs with musl (Alpine), tsvmm needs glibc (use a system or an image " +
      "with glibc, such as node:22-bookworm-slim)",
  );
});

t.test("fromCLibrary() passes the loader's words on where the C library is glibc, and answers otherwise", async (t) => {
  t.throws(() => fromCLibrary(onAlpine), /^Cannot load the C library: Failed to load shared library/);
  t.equal(
    fromCLibrary(() => 7),
    7,
  );
});

t.test("package.json lets npm install only where glibc is", async (t) => {
  const manifest: unknown = JSON.parse(readFileSync(join(projectRoot(), "package.json"), "utf8"));
  t.match(manifest, { os: ["linux"], cpu: ["x64"], libc: ["glibc"] });
});
