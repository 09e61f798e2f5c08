import { join } from "node:path";
import t from "tap";
import { drawTerminal } from "../../../tools/terminal-picture.ts";
import { readRecording, type TerminalRecording, writeRecording } from "../../../tools/terminal-recording.ts";

const recording = (...texts: readonly string[]): TerminalRecording => ({
  ...{ columns: 20, rows: 4, title: "a <command>" },
  output: texts.map((text, index) => ({ seconds: index / 8, text })),
});

t.test("drawTerminal() shows the last screen, with what was overwritten and scrolled away gone", async (t) => {
  const picture = await drawTerminal(recording("one\r\ntwo\r\nthree\r\n", "four\r\nfi", "ve\rFI"));
  const shown = [...picture.matchAll(/<text [^>]*textLength[^>]*>([^<]*)</g)].map(([, text]) => text);
  t.same(shown, ["two", "three", "four", "FIve"]);
});

t.test("drawTerminal() keeps columns, colours and bold, and escapes what XML would take for its own", async (t) => {
  const picture = await drawTerminal(recording("\x1b[1;32myes\x1b[0m  a<b&c\r\n"));
  t.match(picture, /fill="#98c379" font-weight="bold" textLength="25.2">yes</);
  t.match(picture, /x="39.2" y="61" fill="#d6dae2" textLength="58.8"> {2}a&#60;b&#38;c</, "three cells to the right");
  t.match(picture, /<title>a &#60;command&#62;</);
});

t.test("readRecording() reads what writeRecording() wrote, and refuses other files", async (t) => {
  const path = join(t.testdir({}), "run.cast");
  writeRecording(path, recording("one\r\n", "two"));
  t.same(readRecording(path), recording("one\r\n", "two"));
  const other = join(t.testdir({ other: '{"version":1,"width":80,"height":24}\n' }), "other");
  t.throws(() => readRecording(other), /no asciicast v2/);
});
