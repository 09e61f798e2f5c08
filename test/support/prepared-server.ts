import type { Test } from "tap";
import type { Fd } from "../../src/base/units.ts";
import { DescriptorSocket } from "../../src/host/descriptor-socket.ts";
import { UserChannel, type UserChannelParts } from "../../src/vfio-user/client/channel.ts";
import { WaitBudget } from "../../src/vfio-user/client/wait-budget.ts";
import { type UserMessage, UserWire } from "../../src/vfio-user/protocol/wire.ts";
import { socketPair } from "./socket-pair.ts";

/** Ids of a channel's messages count up from here. */
const FIRST_ID = 2;

/**
 * The other end of a {@link UserChannel} in the same thread. Its replies are in the socket before the channel asks, so
 * no request waits. Ids are those that the channel's next messages will have.
 */
export class PreparedServer {
  readonly socket: DescriptorSocket;
  readonly wire: UserWire;
  readonly channel: UserChannel;
  readonly lost: string[] = [];
  #nextId = FIRST_ID;
  #turns = 0;

  constructor(t: Test, parts: Partial<UserChannelParts> = {}) {
    const [client, server] = socketPair(t);
    this.socket = new DescriptorSocket(server);
    this.wire = new UserWire(this.socket);
    this.channel = new UserChannel({
      name: "thing",
      wire: new UserWire(new DescriptorSocket(client)),
      budget: new WaitBudget({ limitMs: 1000, turns: () => this.#turns++ }),
      onCommand: () => 0,
      onLost: (reason) => this.lost.push(reason),
      ...parts,
    });
    t.teardown(() => {
      this.channel.close();
      this.wire.close();
    });
  }

  /** Sends the answer to the channel's next message. */
  reply(command: number, payload: Uint8Array, descriptors: readonly Fd[] = []): void {
    const id = this.#nextId++;
    this.wire.send({ id, command, isReply: true, payload, descriptors }, performance.now() + 1000);
  }

  /** Takes the channel's next message. */
  take(): UserMessage {
    const arrival = this.wire.receive(performance.now() + 1000);
    if (typeof arrival === "string") throw new Error(`Nothing was sent: ${arrival}`);
    return arrival;
  }
}
