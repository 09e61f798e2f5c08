import t from "tap";
import { ApiOutput, KEPT_BYTES, MESSAGE_BYTES } from "../../../../src/vmm/device/api-output.ts";
import { giveCredit, makeCredit } from "../../../../src/vmm/shared/credit.ts";

interface Message {
  readonly bytes: Uint8Array;
  readonly droppedBytes: number;
}

function setUp(messages: number) {
  const credit = makeCredit(messages);
  const sent: Message[] = [];
  const lines: string[] = [];
  const output = new ApiOutput({
    name: "serial",
    credit,
    post: (bytes, droppedBytes) => sent.push({ bytes, droppedBytes }),
    report: (level, text) => lines.push(`${level} ${text}`),
  });
  return { credit, sent, lines, output, take: () => sent.splice(0) };
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const texts = (messages: readonly Message[]): string[] => messages.map(({ bytes }) => new TextDecoder().decode(bytes));

t.test("ApiOutput sends at once while there is credit, then joins what comes until there is again", async (t) => {
  const { credit, output, take, lines } = setUp(2);
  for (const text of ["a", "b", "c", "d", "e"]) output.write(bytes(text));
  t.same(texts(take()), ["a", "b"]);
  output.resume();
  t.same(take(), [], "a doorbell that rang for something else");
  t.equal(giveCredit(credit, 1), true, "the doorbell is to be rung");
  output.resume();
  t.same(texts(take()), ["cde"]);
  t.equal(giveCredit(credit, 2), false, "not when nothing waits");
  output.write(bytes("f"));
  t.same(texts(take()), ["f"]);
  t.same(lines, []);
});

t.test("ApiOutput bounds messages on their way and bytes kept, drops the oldest and counts it", async (t) => {
  const messages = 4;
  const { credit, output, sent, lines } = setUp(messages);
  // Each byte can be told from its neighbours, and 251 divides no size used here.
  const written = Uint8Array.from({ length: 5_000_000 }, (_, index) => index % 251);
  for (let start = 0; start < written.length; start += 1000) output.write(written.slice(start, start + 1000));
  t.equal(sent.length, messages);
  const first = sent.reduce((sum, message) => sum + message.bytes.length, 0);
  t.equal(first, messages * 1000);
  t.same(lines, ["warn serial: output is being dropped: the program does not take it fast enough"]);

  while (giveCredit(credit, messages)) {
    const before = sent.length;
    output.resume();
    t.ok(sent.length - before <= messages, "no more than there is credit for");
  }
  t.ok(sent.every((message) => message.bytes.length <= MESSAGE_BYTES));
  const lost = written.length - first - KEPT_BYTES;
  t.same(
    sent.map(({ droppedBytes }) => droppedBytes).filter((count) => count > 0),
    [lost],
    "told once, where it is missing",
  );
  const received = Buffer.concat(sent.map((message) => message.bytes));
  const expected = [written.subarray(0, first), written.subarray(written.length - KEPT_BYTES)];
  t.ok(received.equals(Buffer.concat(expected)), "what was sent first, and the newest");
  t.same(lines.slice(1), [`warn serial: ${lost} bytes of output were dropped`]);
});

t.test("ApiOutput.flush() sends everything, and what comes after waits until that was taken", async (t) => {
  const { credit, output, take } = setUp(1);
  output.write(bytes("a"));
  output.write(new Uint8Array(2 * MESSAGE_BYTES));
  output.flush();
  t.same(
    take().map((message) => message.bytes.length),
    [1, MESSAGE_BYTES, MESSAGE_BYTES],
  );
  output.write(bytes("b"));
  t.equal(giveCredit(credit, 2), true);
  output.resume();
  t.same(take(), []);
  t.equal(giveCredit(credit, 1), true);
  output.resume();
  t.same(texts(take()), ["b"]);
});
