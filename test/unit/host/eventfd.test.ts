import t from "tap";
import { EventFd } from "../../../src/host/eventfd.ts";
import { libc } from "../../../src/host/libc.ts";

t.test("EventFd.drain() answers how often signal() was called and starts again from zero", async (t) => {
  const event = EventFd.create();
  t.equal(event.drain(), 0);
  event.signal();
  event.signal();
  event.signal();
  t.equal(event.drain(), 3);
  t.equal(event.drain(), 0);
  event.close();
});

t.test("EventFd.signal() does not block when the counter is full", async (t) => {
  const event = EventFd.create();
  libc.write(event.fd, Uint8Array.of(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 8);
  event.signal();
  t.equal(event.drain(), 2 ** 64); // 2^64 - 2, as near as a number comes
  event.close();
});

t.test("EventFd.isSignalled looks without taking, and does not wait where O_NONBLOCK is gone", async (t) => {
  const event = EventFd.create();
  libc.fcntl(event.fd, 4, 0); // F_SETFL
  t.equal(event.isSignalled, false);
  event.signal();
  t.equal(event.isSignalled, true);
  t.equal(event.drain(), 1);
  t.equal(event.isSignalled, false);
  event.close();
});

t.test("EventFd.attach() uses an eventfd and leaves closing to its owner", async (t) => {
  const owner = EventFd.create();
  const other = EventFd.attach(owner.fd);
  other.signal();
  other.close();
  t.equal(other.fd, -1);
  t.equal(owner.drain(), 1);
  owner.close();
});

t.test("EventFd.close() may be called twice; later use is an error that names the call", async (t) => {
  const event = EventFd.create();
  event.close();
  event.close();
  t.throws(() => event.signal(), { name: "SyscallError", call: "write", errno: "EBADF" });
  t.throws(() => event.drain(), { name: "SyscallError", call: "read", errno: "EBADF" });
});
