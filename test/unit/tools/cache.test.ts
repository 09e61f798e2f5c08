import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { cacheDirectory, cached, fingerprint } from "../../../tools/cache.ts";

const folder = t.testdir();
process.env["TSVMM_CACHE"] = folder;

t.test("cached() fills a directory once", async (t) => {
  let fills = 0;
  const fill = async (directory: string): Promise<void> => {
    fills++;
    writeFileSync(join(directory, "file"), "content");
  };
  const first = await cached("a/once", fill);
  t.equal(await cached("a/once", fill), first);
  t.equal(fills, 1);
  t.equal(first, join(cacheDirectory(), "a/once"));
  t.equal(readFileSync(join(first, "file"), "utf8"), "content");
});

t.test("cached() leaves nothing behind when filling fails, and passes the error on", async (t) => {
  await t.rejects(
    cached("b/broken", async (directory) => {
      writeFileSync(join(directory, "half"), "");
      throw new Error("no network");
    }),
    { message: "no network" },
  );
  t.same(readdirSync(join(folder, "b")), []);
});

t.test("cached() removes what a run that is no longer alive left half-done, and no other's", async (t) => {
  // Process ids stay below 2^22.
  const [dead, alive] = [join(folder, "c/.partial-4194304-x"), join(folder, `c/.partial-${process.ppid}-x`)];
  for (const directory of [dead, alive]) mkdirSync(directory, { recursive: true });
  await cached("c/new", async () => undefined);
  t.notOk(existsSync(dead));
  t.ok(existsSync(alive));
});

t.test("fingerprint() tells where one input ends and the next begins", (t) => {
  t.not(fingerprint("ab", "c"), fingerprint("a", "bc"));
  t.equal(fingerprint("ab", "c"), fingerprint("ab", "c"));
  t.end();
});
