import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { ERROR_SECTIONS, ERRORS } from "../../../src/base/errors.ts";
import { projectRoot } from "../../../tools/cache.ts";

const sources = readdirSync(join(projectRoot(), "src"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") && !file.startsWith("base/error-codes/"))
  .map((file) => readFileSync(join(projectRoot(), "src", file), "utf8"))
  .join("\n");

t.test("each error code is that of some throw site, and is in one section of the reference", async (t) => {
  const codes = Object.keys(ERRORS);
  const unused = codes.filter((code) => !sources.includes(`"${code}"`));
  t.same(unused, []);
  t.same(ERROR_SECTIONS.flatMap(([, list]) => list).sort(), codes.sort());
});

t.test("what is said of an error code is whole sentences of at most 25 words, and advice has no period", async (t) => {
  for (const [code, { title, meaning, look, advice, remedy }] of Object.entries(ERRORS)) {
    t.match(code, /^TSVMM_[A-Z]+(_[A-Z]+)*$/);
    t.notMatch(title, /\.$/, code);
    t.notMatch(advice ?? "", /\.$/, code);
    for (const text of [meaning, look, remedy]) {
      t.match(text, /\.$/, code);
      for (const sentence of text.split(/\. |; |: /)) t.ok(sentence.split(" ").length <= 25, `${code}: ${sentence}`);
    }
  }
});
