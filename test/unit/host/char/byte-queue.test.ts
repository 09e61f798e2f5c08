import t from "tap";
import { ByteQueue } from "../../../../src/host/char/byte-queue.ts";
import { EscapeKeys } from "../../../../src/host/char/escape-keys.ts";
import { InputPump } from "../../../../src/host/char/input-pump.ts";
import { bytes, text } from "../../../support/host-bench.ts";

/** Takes everything, in as many pieces as the queue gives it. */
function drain(queue: ByteQueue): string {
  let all = "";
  for (let piece = queue.peek(); piece.length > 0; piece = queue.peek()) {
    all += text(piece);
    queue.drop(piece.length);
  }
  return all;
}

t.test("ByteQueue gives bytes back in order across its wrap and its growth", async (t) => {
  const queue = new ByteQueue(1000);
  let expected = "";
  let found = "";
  for (let round = 0; round < 200; round++) {
    const chunk = String.fromCharCode(65 + (round % 26)).repeat(round % 37);
    t.equal(queue.push(bytes(chunk)), 0);
    expected += chunk;
    const piece = queue.peek();
    const taken = Math.min(piece.length, (round * 7) % 41);
    found += text(piece.subarray(0, taken));
    queue.drop(taken);
    if (queue.length > 900) found += drain(queue);
  }
  t.equal(found + drain(queue), expected);
  t.equal(queue.length, 0);
});

t.test("ByteQueue.push() drops the oldest bytes when it is full and counts them", async (t) => {
  const queue = new ByteQueue(8);
  t.equal(queue.push(bytes("abcdef")), 0);
  t.equal(queue.push(bytes("ghij")), 2);
  t.equal(queue.length, 8);
  t.equal(drain(queue), "cdefghij");
  queue.push(bytes("xyz"));
  t.equal(queue.push(bytes("0123456789")), 5, "more than the whole queue: three old ones, two new ones");
  t.equal(drain(queue), "23456789");
});

t.test("ByteQueue.drop() beyond its length empties it", async (t) => {
  const queue = new ByteQueue(8);
  queue.drop(3);
  queue.push(bytes("ab"));
  queue.drop(10);
  t.equal(queue.length, 0);
  t.equal(queue.peek().length, 0);
});

t.test("EscapeKeys quits on Ctrl-A x, doubles Ctrl-A, passes the rest on as typed", async (t) => {
  let quits = 0;
  const keys = new EscapeKeys(() => quits++);
  t.equal(text(keys.feed(bytes("ls\r"))), "ls\r");
  t.equal(text(keys.feed(bytes("a\x01\x01b"))), "a\x01b");
  t.equal(text(keys.feed(bytes("\x01c"))), "\x01c");
  t.equal(quits, 0);
  t.equal(text(keys.feed(bytes("a\x01xb"))), "ab");
  t.equal(quits, 1);
  t.equal(text(keys.feed(bytes("x"))), "x");
});

t.test("EscapeKeys waits for the key after Ctrl-A across reads", async (t) => {
  let quits = 0;
  const keys = new EscapeKeys(() => quits++);
  t.equal(text(keys.feed(bytes("\x01"))), "");
  t.equal(text(keys.feed(bytes("\x01"))), "\x01");
  t.equal(text(keys.feed(bytes("\x01"))), "");
  t.equal(text(keys.feed(bytes("x"))), "");
  t.equal(quits, 1);
});

t.test("InputPump keeps what the device does not take and offers it after inputReady()", async (t) => {
  let idles = 0;
  let room = 3;
  let taken = "";
  const pump = new InputPump(() => idles++);
  pump.add(bytes("hello"));
  t.equal(pump.isIdle, false, "no listener");
  pump.onInput((offered) => {
    const count = Math.min(room, offered.length);
    taken += text(offered.subarray(0, count));
    room -= count;
    return count;
  });
  t.equal(taken, "hel");
  t.equal(pump.pendingBytes, 2);
  t.equal(idles, 0);
  pump.add(bytes("!"));
  room = 10;
  pump.inputReady();
  t.equal(taken, "hello!");
  t.equal(idles, 1);
  t.ok(pump.isIdle);
});

t.test("InputPump asks again when the device makes room while it takes", async (t) => {
  let room = 2;
  let taken = "";
  const pump = new InputPump();
  pump.onInput((offered) => {
    const count = Math.min(room, offered.length);
    taken += text(offered.subarray(0, count));
    room -= count;
    if (room === 0 && taken.length === 2) {
      room = 8; // the guest reads at once, and the device says so from inside
      pump.inputReady();
    }
    return count;
  });
  pump.add(bytes("abcd"));
  t.equal(taken, "abcd");
});
