import t from "tap";
import { NEAR, PatternSearch } from "../../../src/vmm/pattern-search.ts";
import { TextHistory } from "../../../src/vmm/text-history.ts";

class CountingHistory extends TextHistory {
  /** Characters handed out. */
  read = 0;

  override since(position: number): string {
    const text = super.since(position);
    this.read += text.length;
    return text;
  }
}

t.test("PatternSearch.find() reads each piece and as much before it once, however long the text is", async (t) => {
  const history = new CountingHistory(4 << 20);
  const search = new PatternSearch(history, /never/, 0);
  const pieces = 20_000;
  for (let index = 0; index < pieces; index++) {
    history.append("0123456789\n");
    search.find();
  }
  t.ok(history.read <= pieces * (NEAR + 11), `${history.read} characters were read`);
});

t.test("PatternSearch.find() finds what comes in pieces at once, behind any amount of text", async (t) => {
  for (const before of ["", "-".repeat(NEAR - 3), "-".repeat(10 * NEAR)]) {
    for (const [pattern, text] of [
      ["lo(g)in: ", "lo(g)in: "],
      [/lo(g)in: /, "login: "],
      [/^second\nthird$/m, "first\nsecond\nthird"],
      [/first.*third/s, "first\nsecond\nthird"],
      [/(?<=# )\bdone\b/, "# done"],
    ] as const) {
      const history = new TextHistory(4 << 20);
      const search = new PatternSearch(history, pattern, 0);
      history.append(before);
      t.equal(search.find(), undefined);
      for (const [index, character] of [...text].entries()) {
        history.append(character);
        const found = search.find();
        t.equal(found !== undefined, index === text.length - 1, `${pattern} at ${index} behind ${before.length}`);
      }
    }
  }
});

t.test("PatternSearch finds what text.match() finds: the first match and its groups", async (t) => {
  const old = "x".repeat(3 * NEAR);
  const history = new TextHistory(4 << 20);
  history.append("ignored ");
  const search = new PatternSearch(history, /[a-z ]*(?<what>login):/, history.end);
  for (const piece of [old, " log", "in:"]) {
    history.append(piece);
    const found = search.find();
    if (piece !== "in:") continue;
    t.equal(found?.[0], `${old} login:`);
    t.equal(found?.groups?.["what"], "login");
    t.equal(found?.index, 0);
  }
});

t.test("PatternSearch takes ^ for its start, not for the beginning of what it happens to look at", async (t) => {
  const history = new TextHistory(1 << 20);
  const search = new PatternSearch(history, /^a/, 0);
  history.append("b");
  let found: unknown;
  for (let index = 0; index < 3 * NEAR; index++) {
    history.append("a");
    found ??= search.find();
  }
  t.equal(found, undefined);
  t.equal(search.findAnywhere(), undefined);
  t.equal(new PatternSearch(history, /^a/, 1).findAnywhere()?.index, 0);
});

t.test("PatternSearch.findAnywhere() finds a match that is longer than find() looks back", async (t) => {
  const history = new TextHistory(4 << 20);
  const search = new PatternSearch(history, /BEGIN([\s\S]*)END/, 0);
  history.append("BEGIN");
  search.find();
  t.equal(search.isBehind, false);
  for (let index = 0; index < 3; index++) {
    history.append("-".repeat(NEAR));
    search.find();
  }
  history.append("END");
  t.equal(search.find(), undefined);
  t.equal(search.isBehind, true);
  t.equal(search.findAnywhere()?.[1]?.length, 3 * NEAR);
  t.equal(search.isBehind, false);
});
