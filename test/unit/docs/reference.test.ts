import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { projectRoot } from "../../../tools/cache.ts";
import { PAGES } from "../../../tools/reference.ts";

for (const [path, page] of Object.entries(PAGES)) {
  t.test(`${path} is what npm run reference makes`, async (t) => {
    t.equal(readFileSync(join(projectRoot(), path), "utf8"), page());
  });
}
