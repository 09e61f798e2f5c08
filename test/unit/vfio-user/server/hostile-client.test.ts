import { once } from "node:events";
import { readdirSync } from "node:fs";
import t, { type Test } from "tap";
import { type Fd, fd } from "../../../../src/base/units.ts";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { libc } from "../../../../src/host/libc.ts";
import { socketPair } from "../../../support/socket-pair.ts";
import { fields, RawClient } from "../../../support/user-client.ts";
import { type ServerProcess, startServer } from "../../../support/user-server.ts";

/* Clients that mean harm with what they hand over. The server must answer on, and end in order. */

const EINVAL = 22;
const [SET_IRQS, REGION_READ, REGION_WRITE] = [8, 9, 10] as const;
const [TRIGGER_NONE, TRIGGER_EVENTFD, UNMASK_EVENTFD, UNMASK_NONE, MASK_NONE] = [0x21, 0x24, 0x14, 0x11, 0x09] as const;
const RAISE = 0x60;

class EduClient extends RawClient {
  constructor(t: Test, { socket }: ServerProcess) {
    super(t, socket);
    this.negotiate();
  }

  /** SET_IRQS for the pin. @returns Its errno. */
  pin(flags: number, files: readonly Fd[] = [], count = 1): number {
    return this.request(SET_IRQS, fields([20, 4], [flags, 4], [0, 4], [0, 4], [count, 4]), files).error;
  }

  write(offset: number, value: number): void {
    this.request(REGION_WRITE, fields([offset, 8], [0, 4], [4, 4], [value, 4]));
  }

  /** The identification, which a server that lives answers. */
  identification(): number {
    const { payload } = this.request(REGION_READ, fields([0, 8], [0, 4], [4, 4]));
    return new DataView(payload.buffer, payload.byteOffset).getUint32(16, true);
  }
}

async function endsInOrder(t: Test, { process: server }: ServerProcess): Promise<void> {
  server.kill("SIGTERM");
  t.same(await once(server, "close"), [0, null], "SIGTERM ends it in order");
}

t.test("DeviceServer takes only eventfds for eventfds", async (t) => {
  const server = await startServer(t, "edu");
  const client = new EduClient(t, server);
  const event = EventFd.create();
  const [socket, peer] = socketPair(t);
  const others: Readonly<Record<string, Fd>> = {
    "a socket": socket,
    "its other end": peer,
    "a terminal": fd(libc.open("/dev/ptmx", 2 | 0o400, 0)),
    "a memfd": fd(libc.memfdCreate("no", 0)),
    "an epoll": fd(libc.epollCreate(0)),
    "/dev/null": fd(libc.open("/dev/null", 2, 0)),
  };
  t.equal(client.pin(TRIGGER_EVENTFD, [event.fd]), 0);
  for (const [name, file] of Object.entries(others)) {
    t.equal(client.pin(TRIGGER_EVENTFD, [file]), EINVAL, `${name} to be triggered`);
    t.equal(client.pin(UNMASK_EVENTFD, [file]), EINVAL, `${name} to unmask by`);
    libc.close(file);
  }
  client.write(RAISE, 1);
  t.equal(event.drain(), 1, "what was there before is there still");
  event.close();
  await endsInOrder(t, server);
});

t.test("DeviceServer waits for no eventfd, whatever its counter and flags are", async (t) => {
  const server = await startServer(t, "edu");
  const client = new EduClient(t, server);
  const blocking = fd(libc.eventfd(0, 0));
  libc.write(blocking, Uint8Array.of(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 8);
  t.equal(client.pin(TRIGGER_EVENTFD, [blocking]), 0);
  const unmask = fd(libc.eventfd(0, 0));
  t.equal(client.pin(UNMASK_EVENTFD, [unmask]), 0);
  client.write(RAISE, 1);
  t.equal(client.identification(), 0x0100_00ed, "after a signal to a full counter");
  for (let round = 0; round < 200; round++) {
    // Signalled and taken back at once: a read that follows a poll would wait.
    libc.write(unmask, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0), 8);
    libc.read(unmask, new Uint8Array(8), 8);
  }
  t.equal(client.identification(), 0x0100_00ed, "after unmaskings that were taken back");
  libc.close(blocking);
  libc.close(unmask);
  await endsInOrder(t, server);
});

t.test("DeviceServer unmasks the pin at each write of the unmask eventfd, which it never reads", async (t) => {
  const server = await startServer(t, "edu");
  const client = new EduClient(t, server);
  const [trigger, unmask] = [EventFd.create(), EventFd.create()];
  client.pin(TRIGGER_EVENTFD, [trigger.fd]);
  client.pin(UNMASK_EVENTFD, [unmask.fd]);
  client.write(RAISE, 1);
  t.equal(trigger.drain(), 1);
  for (let round = 0; round < 20; round++) {
    unmask.signal();
    let count = 0;
    while (count === 0) {
      client.identification(); // gives the server a turn
      count = trigger.drain();
    }
    t.equal(count, 1, "a level that is still high signals again");
  }
  t.equal(unmask.drain(), 20);
  trigger.close();
  unmask.close();
});

t.test("DeviceServer leaves nothing of a client to the next one", async (t) => {
  const server = await startServer(t, "edu");
  const descriptors = (): number => readdirSync(`/proc/${server.process.pid}/fd`).length;
  const before = descriptors();
  const [old, trigger, unmask] = [EventFd.create(), EventFd.create(), EventFd.create()];
  for (const leave of ["masked", "with an unmask eventfd", "disabled", "high"] as const) {
    const first = new EduClient(t, server);
    first.pin(TRIGGER_EVENTFD, [old.fd]);
    if (leave === "masked") first.pin(MASK_NONE);
    if (leave === "with an unmask eventfd") first.pin(UNMASK_EVENTFD, [unmask.fd]);
    if (leave === "disabled") first.request(REGION_WRITE, Uint8Array.from([...fields([4, 8], [7, 4], [2, 4]), 0, 4]));
    if (leave === "high") first.write(RAISE, 1);
    if (leave === "with an unmask eventfd") first.pin(TRIGGER_EVENTFD); // its trigger goes, the unmasking stays
    first.wire.close();
    const next = new EduClient(t, server);
    t.equal(descriptors(), before + 1, `${leave}: no descriptor but the next client's socket`);
    next.pin(TRIGGER_EVENTFD, [trigger.fd]);
    t.equal(trigger.drain(), 0, `${leave}: the pin is low`);
    next.write(RAISE, 1);
    t.equal(trigger.drain(), 1, `${leave}: the pin is neither masked nor disabled`);
    unmask.signal();
    next.identification();
    next.identification();
    t.equal(trigger.drain(), 0, `${leave}: the client that has gone cannot unmask it`);
    t.equal(next.pin(UNMASK_NONE), 0);
    t.equal(trigger.drain(), 1);
    t.equal(next.pin(TRIGGER_NONE, [], 0), 0);
    next.wire.close();
  }
  for (const event of [old, trigger, unmask]) event.close();
});
