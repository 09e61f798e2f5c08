import t from "tap";
import { type LabEvent, ReportStream } from "../../../lab/report-stream.ts";

const TOKEN = "0123456789abcdef";
const mark = (text: string): string => `\x1e${TOKEN} ${text}\n`;

/** The events of a stream that comes in pieces of so many bytes; neighbouring pieces of output are joined, as text. */
function events(text: string, pieceBytes: number): (Exclude<LabEvent, { kind: "output" }> | string)[] {
  const found: (Exclude<LabEvent, { kind: "output" }> | string)[] = [];
  const stream = new ReportStream(TOKEN, (event) => {
    if (event.kind !== "output") return void found.push(event);
    const last = found.at(-1);
    if (typeof last === "string") found[found.length - 1] = last + event.bytes.toString();
    else found.push(event.bytes.toString());
  });
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += pieceBytes) stream.push(bytes.subarray(at, at + pieceBytes));
  return found;
}

const RUN = `${mark("ready 6.1.0")}${mark("begin 000-a")}one\ntwo${mark("end 000-a 3")}${mark("done")}`;

for (const pieceBytes of [1, 7, 1000]) {
  t.test(`ReportStream tells reports from output that comes ${pieceBytes} bytes at a time`, (t) => {
    t.same(events(RUN, pieceBytes), [
      { kind: "ready", text: "6.1.0" },
      { kind: "begin", scenario: "000-a" },
      "one\ntwo",
      { kind: "end", scenario: "000-a", status: 3 },
      { kind: "done" },
    ]);
    t.end();
  });
}

t.test("ReportStream takes a mark with another token for output", (t) => {
  const text = "\x1e0000000000000000 end x 0\n";
  t.same(events(text, 5), [text]);
  t.end();
});

t.test("ReportStream passes output on that has no newline, but for what may begin a mark", (t) => {
  const found: string[] = [];
  const stream = new ReportStream(TOKEN, (event) => void (event.kind === "output" && found.push(`${event.bytes}`)));
  stream.push(Buffer.from("prompt# "));
  t.same(found, ["prompt# "]);
  stream.push(Buffer.from("\x1e0123"));
  t.same(found, ["prompt# "]);
  stream.push(Buffer.from("!"));
  t.same(found.join(""), "prompt# \x1e0123!");
  t.end();
});
