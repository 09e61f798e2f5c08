import { mkdirSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { newestCachedPackage } from "../../../guest-images/debian-package.ts";

t.test("newestCachedPackage() answers the newest version as apt spells it, colon and all", async (t) => {
  const cache = t.testdir();
  for (const entry of ["busybox-static_1%3a1.35.0-4", "busybox-static_1%3a1.9.0-1", "busybox_1%3a2.0-1"]) {
    mkdirSync(join(cache, "packages", entry), { recursive: true });
  }
  const before = process.env["TSVMM_CACHE"];
  process.env["TSVMM_CACHE"] = cache;
  t.teardown(() => {
    if (before === undefined) delete process.env["TSVMM_CACHE"];
    else process.env["TSVMM_CACHE"] = before;
  });
  t.same(newestCachedPackage(/^busybox-static$/), {
    name: "busybox-static",
    version: "1:1.35.0-4",
    directory: join(cache, "packages", "busybox-static_1%3a1.35.0-4"),
  });
  t.equal(newestCachedPackage(/^qemu$/), undefined);
});
