import { getEventListeners } from "node:events";
import t from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { TextChannel, textChannel, WaitError } from "../../../src/vmm/text-channel.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

t.test("TextChannel.waitFor() finds output that came before and after, and consumes what it matched", async (t) => {
  const channel = new TextChannel(() => undefined);
  channel.receive(bytes("one login: two "));
  t.equal((await channel.waitFor(/lo(gin):/))[1], "gin");
  const second = channel.waitFor("login:");
  channel.receive(bytes("log"));
  channel.receive(bytes("in: three"));
  t.equal((await second)[0], "login:");
  t.equal(channel.text, "one login: two login: three");
});

t.test("TextChannel.waitFor() puts a character together whose bytes come apart", async (t) => {
  const channel = new TextChannel(() => undefined);
  const found = channel.waitFor("ü!");
  const [first, ...rest] = bytes("ü!");
  channel.receive(Uint8Array.of(first ?? 0));
  channel.receive(Uint8Array.from(rest));
  t.equal((await found)[0], "ü!");
});

t.test("TextChannel.waitFor() rejects with the last output when the machine ends first", async (t) => {
  const channel = new TextChannel(() => undefined);
  const waiting = channel.waitFor(/never/);
  channel.receive(bytes("kernel panic"));
  channel.end("the guest powered off");
  await t.rejects(waiting, /the guest powered off[\s\S]*kernel panic/);
  await t.rejects(channel.waitFor(/later/), WaitError, "also when asked afterwards");
});

t.test("TextChannel.waitFor() rejects when its time is over", async (t) => {
  const channel = new TextChannel(() => undefined);
  await t.rejects(channel.waitFor(/never/, { timeoutMs: 1 }), /within 1 ms/);
});

t.test("TextChannel.write() sends text as UTF-8", async (t) => {
  const sent: number[] = [];
  const channel = new TextChannel((piece) => sent.push(...piece));
  channel.write("é\n");
  t.same(sent, [0xc3, 0xa9, 0x0a]);
});

t.test("TextChannel.waitFor() calls at the same time are independent: prompt or panic", async (t) => {
  const channel = new TextChannel(() => undefined);
  const login = channel.waitFor(/login:/, { timeoutMs: Infinity });
  const panic = channel.waitFor(/Kernel panic/, { timeoutMs: Infinity });
  channel.receive(bytes("Kernel panic - not syncing\n"));
  t.equal((await Promise.race([login, panic]))[0], "Kernel panic");
  const both = [channel.waitFor("sync"), channel.waitFor("syncing")];
  t.same(
    (await Promise.all(both)).map(([text]) => text),
    ["sync", "syncing"],
    "each sees the text that the other consumes",
  );
  t.equal((await channel.waitFor(/[\s\S]/))[0], "\n", "the furthest match is where the next call begins");
  channel.receive(bytes("login:"));
  await login;
});

t.test("TextChannel.waitFor() takes no notice of flags g and y, nor of lastIndex", async (t) => {
  const channel = new TextChannel(() => undefined);
  channel.receive(bytes("memory: 64 MiB, then 65 MiB\n"));
  const pattern = /(\d+) MiB/gy;
  pattern.lastIndex = 20;
  t.same([...(await channel.waitFor(pattern))], ["64 MiB", "64"]);
  t.same([...(await channel.waitFor(pattern))], ["65 MiB", "65"]);
  t.equal(pattern.lastIndex, 20);
  await t.rejects(channel.waitFor(pattern, { timeoutMs: 0 }), /within 0 ms/);
});

t.test("TextChannel.waitFor() finds a match of any length, also when nothing comes after it", async (t) => {
  const channel = new TextChannel(() => undefined);
  const dump = channel.waitFor(/<<([\s\S]*)>>/, { timeoutMs: Infinity });
  channel.receive(bytes("<<"));
  for (let index = 0; index < 100; index++) channel.receive(bytes("0123456789abcdef".repeat(64)));
  channel.receive(bytes(">>"));
  t.equal((await dump)[1]?.length, 100 * 1024);
});

t.test("TextChannel.waitFor() fails with the last output, and with the line of the call", async (t) => {
  const channel = new TextChannel(() => undefined);
  channel.receive(bytes("$ make test\n"));
  await channel.waitFor(/make test\n/);
  const theTestThatWaits = (): Promise<unknown> => channel.waitFor(/ok/, { timeoutMs: 0 });
  const error = await theTestThatWaits().catch((thrown: unknown) => thrown as WaitError);
  t.match(error, { name: "WaitError", output: "$ make test\n", message: /within 0 ms; the last output was:\n\$ make/ });
  t.match((error as WaitError).stack, /^WaitError: Cannot find \/ok\/[\s\S]*\n {4}at (\w+\.)?theTestThatWaits /);
  t.notMatch((error as WaitError).stack, /Timeout/);
});

t.test("TextChannel.waitFor() refuses a time that is none and a pattern that is none", async (t) => {
  const channel = new TextChannel(() => undefined);
  // Casts: what a program in JavaScript can pass.
  await t.rejects(channel.waitFor({ login: /login:/ } as unknown as RegExp), { name: "TypeError" });
  await t.rejects(channel.waitFor([/login:/, undefined] as unknown as RegExp[]), { name: "TypeError" });
  for (const timeoutMs of [-1, Number.NaN]) {
    await t.rejects(channel.waitFor("x", { timeoutMs }), { name: "RangeError", message: /give 0 or more/ });
  }
});

t.test("TextChannel says where output is missing, counts it, and puts no character together across it", async (t) => {
  const channel = new TextChannel(() => undefined);
  channel.receive(bytes("before"));
  channel.receive(Uint8Array.of(0xc3)); // the first half of é
  const waiting = channel.waitFor(/befo.*re/, { timeoutMs: 0 });
  channel.receive(Uint8Array.of(0xa9, 0x2e), 1234);
  channel.receive(bytes("after"), 6);
  t.equal(channel.droppedBytes, 1240);
  const lost = (count: number): string => `\n[tsvmm: ${count} bytes of output were dropped here]\n`;
  t.equal(channel.text, `before\ufffd${lost(1234)}\ufffd.${lost(6)}after`);
  t.equal((await waiting)[0], "before");
  await t.rejects(
    Promise.all([channel.waitFor("x", { timeoutMs: 0 }), channel.receive(bytes(""), 7)]),
    /within 0 ms; 7 bytes of output were dropped meanwhile/,
  );
});

t.test("TextChannel keeps the last 4 Mi characters of any amount of output", async (t) => {
  const channel = new TextChannel(() => undefined);
  const piece = bytes("0123456789abcdef".repeat(4096));
  for (let index = 0; index < 100; index++) channel.receive(piece);
  t.equal(channel.text.length, 4 << 20);
  t.equal(channel.text.slice(-4), "cdef");
});

t.test("TextChannel.onOutput() listeners that throw do not keep the output from others", async (t) => {
  const channel = new TextChannel(() => undefined);
  const seen: string[] = [];
  channel.onOutput(() => {
    throw new Error("an assertion of the test");
  });
  channel.onOutput((text) => seen.push(text));
  const found = channel.waitFor("out");
  const thrown = new Promise((resolve) => process.once("uncaughtException", resolve));
  channel.receive(bytes("output"));
  t.match(await thrown, { message: "an assertion of the test" });
  t.same(seen, ["output"]);
  await found;
});

t.test("TextChannel.waitFor() takes several patterns and says which one came first", async (t) => {
  const channel = new TextChannel(() => undefined);
  const waiting = channel.waitFor([/(\w+) login:/, /Kernel (panic)/, "panic"]);
  channel.receive(bytes("Kernel panic - not syncing, no login:"));
  const found = await waiting;
  t.same([found.patternIndex, ...found], [1, "Kernel panic", "panic"], "its match begins first");
  const rest = await channel.waitFor(["sync", /login:/]);
  t.same([rest.patternIndex, rest[0]], [0, "sync"], "the search goes on behind the match");
  t.equal((await channel.waitFor("login:")).patternIndex, 0, "one pattern is the first");
  await t.rejects(channel.waitFor([]), TypeError);
  await t.rejects(channel.waitFor([/never/, "ever"], { timeoutMs: 0 }), /Cannot find \/never\/ or ever in/);
});

t.test("TextChannel.waitFor() ends with the reason of an aborted signal, and keeps no hold on it", async (t) => {
  const channel = new TextChannel(() => undefined);
  const abort = new AbortController();
  const { signal } = abort;
  const waiting = channel.waitFor(/never/, { signal, timeoutMs: Infinity });
  const found = channel.waitFor(/came/, { signal });
  channel.receive(bytes("it came"));
  t.equal((await found)[0], "came");
  t.equal(getEventListeners(signal, "abort").length, 1, "a wait that is over listens no more");
  const reason = new Error("the test is over");
  abort.abort(reason);
  await t.rejects(waiting, reason);
  await t.rejects(channel.waitFor(/came/, { signal }), reason, "also when it was aborted before");
  t.equal(getEventListeners(signal, "abort").length, 0);
});

t.test("TextChannel.waitFor() tells of resets since the last match, and can end at one", async (t) => {
  const channel = new TextChannel(() => undefined);
  const strict = channel.waitFor(/login:/, { failOnReset: true });
  const patient = channel.waitFor(/login:/);
  channel.receive(bytes("booting\n"));
  channel.reset();
  await t.rejects(strict, /the guest was reset; the guest was reset once since the last match[\s\S]*booting/);
  channel.reset();
  await t.rejects(channel.waitFor(/never/, { timeoutMs: 0 }), /the guest was reset 2 times since the last match/);
  channel.receive(bytes("login:"));
  t.equal((await patient)[0], "login:");
  const late = await channel.waitFor(/never/, { timeoutMs: 0 }).catch((error: unknown) => String(error));
  t.notMatch(late, /reset/, "the match begins the count anew");
});

t.test("TextChannel says how the machine ended to a program that writes, and where output goes instead", async (t) => {
  const channel = new TextChannel(() => t.fail("nothing is sent"), { timeoutMs: 1 });
  await t.rejects(channel.waitFor(/never/), /within 1 ms/, "the machine's own default");
  channel.end("the guest powered off");
  t.throws(
    () => channel.write("x"),
    new HostError("TSVMM_MACHINE_OFF", "Cannot write to the guest: the guest powered off"),
  );
  const file = textChannel("serial", { kind: "file" }, () => t.fail("nothing is sent"));
  const refusal = { name: "SpecError", path: "serial", message: /by this program: it goes to a file \(give it the/ };
  t.throws(() => file.write("x"), refusal);
  await t.rejects(file.waitFor(/never/), refusal, "at once, not after a minute");
  t.throws(() => textChannel("console", { kind: "off" }, () => undefined).write("x"), /console: .* it is "off"/);
  textChannel("console", { kind: "api" }, (sent) => t.equal(sent.length, 1)).write("x");
});
