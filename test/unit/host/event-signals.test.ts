import { readdirSync } from "node:fs";
import t from "tap";
import { type Fd, fd } from "../../../src/base/units.ts";
import { EventSignals } from "../../../src/host/event-signals.ts";
import { EventFd } from "../../../src/host/eventfd.ts";
import { libc } from "../../../src/host/libc.ts";
import { socketPair } from "../../support/socket-pair.ts";

t.test("EventSignals.signal() adds one, as often as it is called", async (t) => {
  const signals = new EventSignals();
  const event = EventFd.create();
  for (let round = 0; round < 1000; round++) signals.signal(event.fd);
  t.equal(event.drain(), 1000);
  signals.close();
  signals.close();
  event.close();
});

t.test("EventSignals.signal() does not wait for a full counter without O_NONBLOCK", async (t) => {
  const signals = new EventSignals();
  const event = fd(libc.eventfd(0, 0));
  const full = Uint8Array.of(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
  libc.write(event, full, 8);
  for (let round = 0; round < 10; round++) signals.signal(event);
  t.equal(libc.read(event, new Uint8Array(8), 8), 8, "it is readable");
  signals.signal(event);
  const count = new Uint8Array(8);
  libc.read(event, count, 8);
  t.same([...count], [1, 0, 0, 0, 0, 0, 0, 0]);
  libc.close(event);
  signals.close();
});

t.test("EventSignals.isEventFd() tells eventfds from everything else, and signals none", async (t) => {
  const signals = new EventSignals();
  const event = EventFd.create();
  t.equal(signals.isEventFd(event.fd), true);
  t.equal(event.drain(), 0);
  const [socket, other] = socketPair(t);
  const files: Readonly<Record<string, Fd>> = {
    epoll: fd(libc.epollCreate(0)),
    memfd: fd(libc.memfdCreate("no", 0)),
    "/dev/null": fd(libc.open("/dev/null", 2, 0)),
    "a directory": fd(libc.open("/", 0, 0)),
    "a terminal": fd(libc.open("/dev/ptmx", 2 | 0o400, 0)),
    socket,
    other,
    "a closed descriptor": fd(0x7fff_ffff),
  };
  for (const [name, file] of Object.entries(files)) {
    t.equal(signals.isEventFd(file), false, name);
    t.throws(() => signals.signal(file), /Cannot signal an eventfd: io_submit failed with E(INVAL|BADF)/, name);
    libc.close(file);
  }
  signals.signal(event.fd);
  t.equal(event.drain(), 1);
  event.close();
  signals.close();
});

t.test("EventSignals gives its descriptors back", async (t) => {
  const before = readdirSync("/proc/self/fd").length;
  for (let round = 0; round < 20; round++) new EventSignals().close();
  t.equal(readdirSync("/proc/self/fd").length, before);
});
