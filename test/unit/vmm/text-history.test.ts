import t from "tap";
import { TextHistory } from "../../../src/vmm/text-history.ts";

/** Text in which each position can be told from its neighbours. */
const numbered = (start: number, length: number): string =>
  Array.from({ length }, (_, index) => String.fromCharCode(0x21 + ((start + index) % 89))).join("");

t.test("TextHistory.since() answers what was appended from a position on, whatever the pieces were", async (t) => {
  const history = new TextHistory(1 << 20);
  let length = 0;
  for (const piece of [1, 0, 4095, 2, 16_384, 7, 70_000, 3]) {
    history.append(numbered(length, piece));
    length += piece;
  }
  t.equal(history.end, length);
  for (const position of [0, 1, 4096, 4097, 20_482, 20_489, 90_488, length - 3, length - 1, length, length + 5]) {
    t.equal(history.since(position), numbered(position, Math.max(0, length - position)), `from ${position} on`);
  }
});

t.test("TextHistory keeps the newest characters, and at most one chunk more than its limit in memory", async (t) => {
  const limit = 100_000;
  const history = new TextHistory(limit);
  let mostRetained = 0;
  for (let length = 0; length < 1_000_000; length += 77) {
    history.append(numbered(length, 77));
    mostRetained = Math.max(mostRetained, history.retained);
  }
  t.equal(history.start, history.end - limit);
  t.equal(history.since(0), numbered(history.start, limit), "older positions answer with what is left");
  t.ok(mostRetained < limit + 2 * 16_384 + 77, `${mostRetained} characters`);
});
