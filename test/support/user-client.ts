import type { Test } from "tap";
import type { Fd } from "../../src/base/units.ts";
import { closeAll, DescriptorSocket } from "../../src/host/descriptor-socket.ts";
import { connectTo } from "../../src/host/unix-socket.ts";
import { type Arrival, type UserMessage, UserWire } from "../../src/vfio-user/protocol/wire.ts";

/** How long a test waits for a server. */
const PATIENCE_MS = 10_000;

/** Bytes of numbers: each with its width in bytes. */
export function fields(...values: readonly (readonly [value: number, width: 2 | 4 | 8])[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.reduce((sum, [, width]) => sum + width, 0)));
  let at = 0;
  for (const [value, width] of values) {
    if (width === 8) view.setBigUint64(at, BigInt(value), true);
    else if (width === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += width;
  }
  return new Uint8Array(view.buffer);
}

/** The payload of VERSION; `json` without its NUL, which is added. */
export const version = (major: number, minor: number, json?: string): Uint8Array =>
  Uint8Array.from([
    ...fields([major, 2], [minor, 2]),
    ...(json === undefined ? [] : new TextEncoder().encode(`${json}\0`)),
  ]);

/** A vfio-user client made of messages, for what the real one never does. */
export class RawClient {
  readonly socket: DescriptorSocket;
  readonly wire: UserWire;
  readonly #received: Fd[] = [];
  #nextId = 1;

  constructor(t: Test, path: string) {
    this.socket = new DescriptorSocket(connectTo(path));
    this.wire = new UserWire(this.socket);
    t.teardown(() => {
      closeAll(this.#received);
      this.wire.close();
    });
  }

  send(command: number, payload: Uint8Array, descriptors: readonly Fd[] = []): number {
    const id = this.#nextId++;
    this.wire.send({ id, command, isReply: false, payload, descriptors }, performance.now() + PATIENCE_MS);
    return id;
  }

  /** Descriptors that come with it are closed at the test's end. */
  receive(): Arrival {
    const arrival = this.wire.receive(performance.now() + PATIENCE_MS);
    if (typeof arrival !== "string") this.#received.push(...arrival.descriptors);
    return arrival;
  }

  /** The next message, which there must be. */
  message(): UserMessage {
    const arrival = this.receive();
    if (typeof arrival === "string") throw new Error(`Expected a message, found ${arrival}`);
    return arrival;
  }

  /** Sends a command and takes the reply. */
  request(command: number, payload: Uint8Array, descriptors: readonly Fd[] = []): UserMessage {
    const id = this.send(command, payload, descriptors);
    const reply = this.message();
    if (!reply.isReply || reply.id !== id) throw new Error(`Expected the reply to ${id}, found message ${reply.id}`);
    return reply;
  }

  /** VERSION 0.1, without capabilities when there are none to offer. */
  negotiate(capabilities?: object): UserMessage {
    const json = capabilities === undefined ? undefined : JSON.stringify({ capabilities });
    return this.request(1, version(0, 1, json));
  }
}
