import t from "tap";
import { TextChannel, WaitError } from "../../../src/vmm/text-channel.ts";

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
