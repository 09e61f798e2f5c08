import { setImmediate as turn } from "node:timers/promises";
import { type Fd, gpa } from "../../../src/base/units.ts";
import { closeAll } from "../../../src/host/descriptor-socket.ts";
import { EpollLoop } from "../../../src/host/epoll.ts";
import { EventSignals } from "../../../src/host/event-signals.ts";
import { EduDevice } from "../../../src/vfio-user/devices/edu.ts";
import { NvmeDevice } from "../../../src/vfio-user/devices/nvme.ts";
import { type UserMessage, UserWire } from "../../../src/vfio-user/protocol/wire.ts";
import { ClientMemory } from "../../../src/vfio-user/server/client-memory.ts";
import { Connection } from "../../../src/vfio-user/server/connection.ts";
import type { DeviceHost, UserPciDevice } from "../../../src/vfio-user/server/device.ts";
import { ClientInterrupts } from "../../../src/vfio-user/server/interrupts.ts";
import { DeviceModel } from "../../../src/vfio-user/server/model.ts";
import type { AnswerKind, Operation } from "./client-operations.ts";
import { openDescriptors, RAM_BYTES, type SharedFiles, settledDescriptors } from "./files.ts";
import { MemorySocket } from "./memory-socket.ts";
import { judgeReply, type SentCommand } from "./replies.ts";

const PAGE = 4096;
const DMA_READ = 11;
/** DMA requests that one message may cause: a transfer of the longest kind, in pieces of the smallest size. */
const MOST_REQUESTS = 20_000;

/** A client's life: what it sent, and what the server may do with its memory. */
interface Client {
  readonly socket: MemorySocket;
  readonly serverSocket: MemorySocket;
  readonly connection: Connection;
  /** Commands that a reply must come to, in this order. */
  readonly awaited: SentCommand[];
  /** It has sent what cannot be understood, or has not answered: any end is right. */
  isOutOfStep: boolean;
  closedCount: number;
}

/** A device server of this process with a played client, and what must hold of the server. */
export class ClientBench {
  readonly #files: SharedFiles;
  readonly #descriptors = openDescriptors();
  readonly #signals = new EventSignals();
  readonly #loop = new EpollLoop();
  readonly #memory = new ClientMemory();
  readonly #interrupts: ClientInterrupts;
  readonly #model: DeviceModel;
  /** Guest RAM as it must be where the device may not write. */
  readonly #shadow: Uint8Array;
  /** Pages that some client of this run has given the device to write. */
  readonly #given = new Set<number>();
  #client: Client;
  #answers: AnswerKind = "well";
  #nextId = 0;
  #requests = 0;
  #isAnswering = false;
  #wrong: string | undefined;

  constructor(files: SharedFiles, kind: "nvme" | "edu") {
    this.#files = files;
    files.ram.fill(gpa(0), RAM_BYTES);
    this.#shadow = new Uint8Array(RAM_BYTES);
    const memory = this.#memory;
    let interrupts: ClientInterrupts | undefined;
    const host: DeviceHost = {
      memory,
      report: () => undefined,
      get usesMessages() {
        return interrupts?.usesMessages ?? false;
      },
      signal: (vector) => interrupts?.signal(vector),
      setIntx: (isHigh) => interrupts?.setIntx(isHigh),
    };
    const device: UserPciDevice = kind === "nvme" ? new NvmeDevice(host, files.store, "fuzz") : new EduDevice(host);
    const { msi = 0, msix } = device.interrupts;
    const pins = device.identity.interruptPin === undefined ? 0 : 1;
    const parts = { signals: this.#signals, watcher: this.#loop, report: () => undefined };
    this.#interrupts = new ClientInterrupts([pins, msi, msix?.vectors ?? 0], parts);
    interrupts = this.#interrupts;
    this.#model = new DeviceModel(device, {
      onMaster: (isEnabled) => {
        memory.isEnabled = isEnabled;
      },
      onIntxDisable: (isDisabled) => {
        this.#interrupts.isIntxDisabled = isDisabled;
      },
    });
    this.#client = this.#connect();
  }

  /** @returns What is wrong now. */
  async run(operation: Operation): Promise<string | undefined> {
    const { socket, serverSocket } = this.#client;
    socket.cutOff = Number.POSITIVE_INFINITY;
    serverSocket.cutOff = Number.POSITIVE_INFINITY;
    this.#requests = 0;
    await this.#execute(operation);
    if (this.#requests > MOST_REQUESTS) return `one message caused ${this.#requests} DMA requests`;
    return this.#wrong;
  }

  /** The end: everything is answered, given back and where it may be. @returns What is not. */
  async close(): Promise<string | undefined> {
    await this.#turns();
    const wrong = this.#judgeEnd();
    this.#disconnect();
    await this.#turns();
    this.#loop.close();
    this.#signals.close();
    if (wrong !== undefined || this.#wrong !== undefined) return wrong ?? this.#wrong;
    if (this.#client.closedCount !== 1) return `the end of a client was told of ${this.#client.closedCount} times`;
    if (!this.#files.isImageWhole) return "the disk image has another size";
    const left = (await settledDescriptors(this.#descriptors)) - this.#descriptors;
    return (left > 0 ? `${left} descriptors are left` : undefined) ?? this.#judgeMemory();
  }

  async #execute(operation: Operation): Promise<void> {
    switch (operation.op) {
      case "device":
        return;
      case "send":
        return this.#send(operation);
      case "write": {
        const { region, offset, width, value, noReply } = operation;
        const words = [offset, 0, region, width];
        const tail = Uint8Array.from({ length: width }, (_, byte) => (value >>> (8 * byte)) & 0xff);
        return this.#command(10, words, { tail, noReply });
      }
      case "raw":
        return this.#deliver(() => {
          const bytes = bytesOf(operation.words).subarray(0, operation.count);
          if (bytes.length > 0) this.#client.socket.send(bytes);
          this.#client.isOutOfStep = true;
        });
      case "ram":
        this.#files.ram.write(gpa(operation.at), bytesOf(operation.words));
        this.#shadow.set(bytesOf(operation.words), operation.at);
        return;
      case "answers":
        this.#answers = operation.how;
        return;
      case "turn":
        this.#loop.wait(0);
        return this.#turns();
      case "reconnect":
        await this.#turns();
        this.#wrong ??= this.#judgeEnd();
        this.#disconnect();
        await this.#turns();
        this.#client = this.#connect();
        return;
      default:
        operation satisfies never;
    }
  }

  /** Twice: what is put off may put off more. */
  async #turns(): Promise<void> {
    await turn();
    await turn();
    this.#receive();
  }

  #connect(): Client {
    const [socket, serverSocket] = MemorySocket.pair();
    const connection = new Connection({
      wire: new UserWire(serverSocket, () => serverSocket.cutOff),
      model: this.#model,
      memory: this.#memory,
      interrupts: this.#interrupts,
      report: () => undefined,
      onClosed: () => {
        client.closedCount++;
        this.#memory.remote = undefined;
        this.#memory.clear();
        this.#interrupts.clear();
        this.#model.reset();
      },
    });
    const client: Client = { socket, serverSocket, connection, awaited: [], isOutOfStep: false, closedCount: 0 };
    serverSocket.onWait = () => this.#receive();
    this.#memory.remote = connection;
    this.#answers = "well";
    return client;
  }

  #disconnect(): void {
    this.#client.socket.close();
    this.#client.connection.pump();
    this.#client.connection.close();
  }

  #send({ command, words, text, files = [], noReply, reply }: Extract<Operation, { op: "send" }>): void {
    const tail = text === undefined ? new Uint8Array(0) : new TextEncoder().encode(`${text}\0`);
    this.#command(command, words, {
      ...{ tail, noReply: noReply === true, isReply: reply === true },
      files: files.map((kind) => this.#files.get(kind)),
    });
  }

  #command(
    command: number,
    words: readonly number[],
    rest: {
      readonly tail: Uint8Array;
      readonly noReply: boolean;
      readonly isReply?: boolean;
      readonly files?: readonly Fd[];
    },
  ): void {
    const { tail, noReply, isReply = false, files = [] } = rest;
    const payload = new Uint8Array([...bytesOf(words), ...tail]);
    this.#deliver(() => {
      const id = this.#nextId++ & 0xffff;
      if (command === 2 && payload.length >= 32) this.#give(words);
      const { socket, awaited } = this.#client;
      if (isReply)
        this.#client.isOutOfStep = true; // the server hangs up on it
      else if (!noReply) awaited.push({ id, command, payload });
      new UserWire(socket).send({ id, command, isReply, wantsNoReply: noReply, payload, descriptors: files }, 0);
    });
  }

  /** DMA_MAP: whether the server takes it or not, it may write there only where it was offered. */
  #give(words: readonly number[]): void {
    const [, flags = 0, offsetLow = 0, offsetHigh = 0, , , sizeLow = 0, sizeHigh = 0] = words;
    if ((flags & 2) === 0) return;
    const offset = offsetLow + offsetHigh * 2 ** 32;
    const end = Math.min(RAM_BYTES, offset + sizeLow + sizeHigh * 2 ** 32);
    for (let page = Math.floor(offset / PAGE); page < end / PAGE; page++) this.#given.add(page);
  }

  /** Lets the client send, and the server take it. */
  #deliver(send: () => void): void {
    if (this.#client.closedCount > 0 || this.#client.serverSocket.isClosed) return;
    send();
    this.#client.connection.pump();
    this.#receive();
  }

  /** Takes what the server has sent; its requests are answered as told. */
  #receive(): void {
    const { socket } = this.#client;
    if (this.#isAnswering || socket.isClosed) return;
    this.#isAnswering = true;
    const wire = new UserWire(socket);
    for (let arrival = wire.receive(0); typeof arrival !== "string"; arrival = wire.receive(0)) {
      if (arrival.isReply) this.#wrong ??= this.#judge(arrival);
      else this.#answer(arrival, wire);
      closeAll(arrival.descriptors);
      if (socket.isClosed) break;
    }
    this.#isAnswering = false;
  }

  #judge(reply: UserMessage): string | undefined {
    const { awaited, isOutOfStep } = this.#client;
    const [sent] = awaited;
    if (isOutOfStep) return undefined;
    if (sent === undefined) return `a reply to message ${reply.id}, command ${reply.command}, which wanted none`;
    if (reply.id !== sent.id || reply.command !== sent.command) {
      return `a reply to message ${reply.id}, command ${reply.command}; ${sent.id}, ${sent.command} waits for one`;
    }
    awaited.shift();
    return judgeReply(sent, reply);
  }

  #answer({ id, command, payload }: UserMessage, wire: UserWire): void {
    this.#requests++;
    const count = Number(new DataView(payload.buffer, payload.byteOffset).getBigUint64(8, true));
    const right = new Uint8Array(command === DMA_READ ? 16 + count : 16);
    right.set(payload.subarray(0, 16));
    const reply = (message: { readonly payload?: Uint8Array; readonly error?: number }, otherId = id): void =>
      wire.send({ id: otherId, command, isReply: true, ...message }, 0);
    switch (this.#answers) {
      case "well":
        return reply({ payload: right });
      case "short":
        return reply({ payload: right.subarray(0, right.length - 1) });
      case "long":
        return reply({ payload: new Uint8Array([...right, 1, 2, 3]) });
      case "error":
        return reply({ error: 14 });
      case "other":
        this.#client.isOutOfStep = true;
        return reply({ payload: right }, id + 1);
      case "commands":
        this.#client.awaited.push({ id: 0xfffe, command: 7, payload: new Uint8Array(16) });
        wire.send({ id: 0xfffe, command: 7, isReply: false, payload: new Uint8Array(16) }, 0);
        return reply({ payload: right });
      case "silence":
        this.#client.isOutOfStep = true;
        return;
      case "hangUp":
        this.#client.isOutOfStep = true;
        this.#client.socket.close();
        return;
      default:
        this.#answers satisfies never;
    }
  }

  /** Everything that wants a reply has one. */
  #judgeEnd(): string | undefined {
    const { awaited, isOutOfStep, closedCount } = this.#client;
    const [sent] = awaited;
    return sent === undefined || isOutOfStep || closedCount > 0
      ? undefined
      : `message ${sent.id}, command ${sent.command}, has no reply`;
  }

  #judgeMemory(): string | undefined {
    const found = new Uint8Array(PAGE);
    for (let page = 0; page < RAM_BYTES / PAGE; page++) {
      if (this.#given.has(page)) continue;
      this.#files.ram.read(gpa(page * PAGE), found);
      if (Buffer.compare(found, this.#shadow.subarray(page * PAGE, (page + 1) * PAGE)) !== 0)
        return `page ${page} was written to, which the device was not given`;
    }
    return undefined;
  }
}

function bytesOf(words: readonly number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(4 * words.length));
  for (const [at, word] of words.entries()) view.setUint32(4 * at, word, true);
  return new Uint8Array(view.buffer);
}
