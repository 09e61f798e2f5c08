import { setImmediate as turn } from "node:timers/promises";
import t, { type Test } from "tap";
import { type Fd, fd } from "../../../../src/base/units.ts";
import { EventSignals } from "../../../../src/host/event-signals.ts";
import type { Arrival, OutgoingMessage, UserMessage } from "../../../../src/vfio-user/protocol/wire.ts";
import { ClientMemory } from "../../../../src/vfio-user/server/client-memory.ts";
import { Connection } from "../../../../src/vfio-user/server/connection.ts";
import { ClientInterrupts } from "../../../../src/vfio-user/server/interrupts.ts";
import { DeviceModel } from "../../../../src/vfio-user/server/model.ts";
import { fields, version } from "../../../support/user-client.ts";

const [VERSION, REGION_READ, DMA_READ] = [1, 9, 11] as const;

/**
 * What a played client does while it is waited for: answers, sends something else, or nothing. Time goes by as told.
 */
type Play = (asked: OutgoingMessage) => { readonly takesMs: number; readonly arrival: Arrival };

/** A connection of a device without registers to a played client, on a played clock. */
class PlayedClient {
  readonly reports: string[] = [];
  readonly sent: OutgoingMessage[] = [];
  /** Of each look at the socket that may wait. */
  readonly deadlines: number[] = [];
  readonly arrivals: UserMessage[] = [];
  readonly connection: Connection;
  isClosed = false;
  #now = 1000;
  #play: Play = () => ({ takesMs: 0, arrival: "nothing" });

  constructor(t: Test) {
    const signals = new EventSignals();
    t.teardown(() => signals.close());
    const watcher = { watchRings: () => ({ setInterest: () => undefined, close: () => undefined }) };
    const identity = {
      ...{ vendorId: 1, deviceId: 1, revision: 0, classCode: 0 },
      ...{ subsystemVendorId: 0, subsystemId: 0 },
    };
    const device = { name: "none", identity, bars: [], interrupts: {}, reset: () => undefined };
    this.connection = new Connection({
      wire: {
        hasBacklog: false,
        send: (message) => void this.sent.push(message),
        receive: (deadline) => this.arrivals.shift() ?? this.#wait(deadline),
        close: () => undefined,
      },
      model: new DeviceModel(device, { onMaster: () => undefined, onIntxDisable: () => undefined }),
      memory: new ClientMemory(),
      interrupts: new ClientInterrupts([0, 0, 0], { signals, watcher, report: () => undefined }),
      report: (_level, text) => this.reports.push(text),
      now: () => this.#now,
      onClosed: () => {
        this.isClosed = true;
      },
    });
  }

  /** Lets the client send a command. */
  send(command: number, payload: Uint8Array): void {
    this.arrivals.push(message(this.arrivals.length, command, false, payload));
    this.connection.pump();
  }

  /** Lets the device read a byte of the client's memory. @returns Whether it was given. */
  read(play: Play): boolean {
    this.#play = play;
    return this.connection.read(0, 1) !== undefined;
  }

  #wait(deadline: number): Arrival {
    if (deadline === 0) return "nothing";
    this.deadlines.push(deadline);
    const asked = this.sent.at(-1);
    if (asked === undefined) throw new Error("Nothing was asked");
    const { takesMs, arrival } = this.#play(asked);
    this.#now = Math.min(deadline, this.#now + takesMs);
    return arrival;
  }
}

const message = (id: number, command: number, isReply: boolean, payload: Uint8Array): UserMessage => ({
  ...{ id, command, isReply, payload },
  ...{ wantsNoReply: false, error: 0, descriptors: [] },
});

const answersIn =
  (takesMs: number): Play =>
  ({ id }) => ({ takesMs, arrival: message(id, DMA_READ, true, fields([0, 8], [1, 8], [7, 2]).subarray(0, 17)) });

t.test("Connection waits 5 s in a turn of the event loop for all answers together, and then hangs up", async (t) => {
  const client = new PlayedClient(t);
  client.send(VERSION, version(0, 1));
  t.ok(client.read(answersIn(2000)));
  t.ok(client.read(answersIn(2000)));
  t.notOk(client.read(() => ({ takesMs: 2000, arrival: "nothing" })));
  t.same(client.deadlines, [6000, 6000, 6000]);
  t.match(client.reports, [/Cannot reach the client's memory: it does not answer/]);
  const asked = client.sent.length;
  t.notOk(client.read(answersIn(0)), "what is lost is not asked again");
  t.equal(client.sent.length, asked);
  t.notOk(client.isClosed, "not under the device's hands");
  await turn();
  t.ok(client.isClosed);
});

t.test("Connection waits for a client anew in the next turn", async (t) => {
  const client = new PlayedClient(t);
  client.send(VERSION, version(0, 1));
  t.ok(client.read(answersIn(4000)));
  await turn();
  t.ok(client.read(answersIn(4000)));
  t.same(client.deadlines, [6000, 10_000]);
});

t.test("Connection serves commands that cross an answer, and hangs up on a client that only sends", async (t) => {
  const client = new PlayedClient(t);
  client.send(VERSION, version(0, 1));
  const command = message(9, REGION_READ, false, fields([0, 8], [7, 4], [4, 4]));
  let crossing = 3;
  t.ok(client.read((asked) => (crossing-- > 0 ? { takesMs: 1, arrival: command } : answersIn(1)(asked))));
  const before = client.sent.length;
  await turn();
  t.equal(client.sent.length, before + 3);
  t.notOk(client.read(() => ({ takesMs: 0, arrival: command })));
  t.match(client.reports, [/it sends and does not answer/]);
  await turn();
  t.ok(client.isClosed);
});

t.test("Connection hangs up on a client that sends much and does not answer", async (t) => {
  const descriptors = new Array<Fd>(100).fill(fd(-1));
  for (const [what, arrival, most] of [
    ["bytes", message(9, 10, false, new Uint8Array(1 << 20)), 17],
    ["descriptors", { ...message(9, 10, false, new Uint8Array(0)), descriptors }, 3],
  ] as const) {
    const client = new PlayedClient(t);
    client.send(VERSION, version(0, 1));
    let count = 0;
    t.notOk(
      client.read(() => {
        count++;
        return { takesMs: 0, arrival };
      }),
    );
    t.equal(count, most, what);
    await turn();
    t.ok(client.isClosed);
  }
});
