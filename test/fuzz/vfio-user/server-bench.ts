import { HostError } from "../../../src/base/errors.ts";
import type { FdWatcher, MsiRoute } from "../../../src/base/signals.ts";
import { fd, gpa, gsi } from "../../../src/base/units.ts";
import { EventSignals } from "../../../src/host/event-signals.ts";
import { EventFd } from "../../../src/host/eventfd.ts";
import { PassthroughFunction } from "../../../src/passthrough/function.ts";
import { UserDevice } from "../../../src/vfio-user/client/device.ts";
import { UserWire } from "../../../src/vfio-user/protocol/wire.ts";
import { ClientMemory } from "../../../src/vfio-user/server/client-memory.ts";
import { Connection } from "../../../src/vfio-user/server/connection.ts";
import type { UserPciDevice } from "../../../src/vfio-user/server/device.ts";
import { ClientInterrupts } from "../../../src/vfio-user/server/interrupts.ts";
import { MemoryBlock } from "../../../src/vfio-user/server/memory-block.ts";
import { DeviceModel } from "../../../src/vfio-user/server/model.ts";
import { FakePassthroughHost } from "../../support/fake-passthrough-host.ts";
import { randomNumbers } from "../../support/random-numbers.ts";
import { tamper } from "../../support/tampered-message.ts";
import { openDescriptors, type SharedFiles, settledDescriptors } from "./files.ts";
import { MemorySocket } from "./memory-socket.ts";
import type { Operation } from "./server-operations.ts";

/** A device with its server, as the machine has it. */
interface Life {
  readonly socket: MemorySocket;
  readonly serverSocket: MemorySocket;
  /** `undefined` when the server was refused at the start. */
  readonly device: UserDevice | undefined;
  readonly fn: PassthroughFunction | undefined;
}

/** A machine's end of vfio-user beside a server that tampers with its messages, and what must hold of the machine. */
export class ServerBench {
  readonly #files: SharedFiles;
  readonly #descriptors = openDescriptors();
  readonly #signals = new EventSignals();
  readonly #block = new MemoryBlock("scratch", 4096, 4096);
  readonly #tampers: { after: number; readonly seed: number }[] = [];
  #life: Life | undefined;
  #onReady: (() => void) | undefined;
  #losses = 0;

  constructor(files: SharedFiles) {
    this.#files = files;
  }

  /** @returns What is wrong now. */
  run(operation: Operation): string | undefined {
    const life = this.#life;
    if (life !== undefined) {
      life.socket.cutOff = Number.POSITIVE_INFINITY;
      life.serverSocket.cutOff = Number.POSITIVE_INFINITY;
    }
    switch (operation.op) {
      case "open":
        return this.#closeLife() ?? this.#open(operation.isFunction);
      case "tamper":
        this.#tampers.push({ after: operation.after, seed: operation.seed });
        return undefined;
      case "push":
        if (life?.serverSocket.isClosed === false && !life.socket.isClosed) {
          const words = Uint32Array.from(operation.words);
          life.serverSocket.send(new Uint8Array(words.buffer).subarray(0, operation.count));
        }
        return undefined;
      case "turn":
        life?.socket.onWait();
        if (life?.socket.isReadable === true) this.#onReady?.();
        return this.#judgeLoss();
      default:
        this.#use(operation);
        return this.#judgeLoss();
    }
  }

  async close(): Promise<string | undefined> {
    const wrong = this.#closeLife();
    this.#block.close();
    this.#signals.close();
    const left = (await settledDescriptors(this.#descriptors)) - this.#descriptors;
    return wrong ?? (left > 0 ? `${left} descriptors are left` : undefined);
  }

  #open(isFunction: boolean): string | undefined {
    const [socket, serverSocket] = MemorySocket.pair();
    this.#serve(serverSocket, socket);
    this.#losses = 0;
    this.#onReady = undefined;
    let device: UserDevice | undefined;
    let fn: PassthroughFunction | undefined;
    try {
      device = this.#connect(socket);
      if (isFunction) fn = this.#makeFunction(device);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      if (this.#losses > 1) return `the loss of a server was told ${this.#losses} times`;
    }
    this.#life = { socket, serverSocket, device: isFunction && fn === undefined ? undefined : device, fn };
    return undefined;
  }

  #connect(socket: MemorySocket): UserDevice {
    const watcher: FdWatcher = {
      watch: (_file, _interest, onReady) => {
        this.#onReady = () => onReady(true, false);
        return {
          setInterest: () => undefined,
          close: () => {
            this.#onReady = undefined;
          },
        };
      },
    };
    return new UserDevice({
      ...{ name: "thing", socket, memory: this.#files.ram, watcher, report: () => undefined },
      onLost: () => this.#losses++,
      cutOff: () => socket.cutOff,
    });
  }

  #makeFunction(device: UserDevice): PassthroughFunction {
    const host = new FakePassthroughHost();
    const route: MsiRoute = {
      ...{ name: "route", isMasked: true, isPending: false, eventFd: this.#files.event.fd },
      ...{ setMessage: () => undefined, mask: () => undefined, unmask: () => undefined },
      ...{ signal: () => undefined, inject: () => undefined, release: () => undefined },
    };
    const parts = {
      ...host,
      createEvent: EventFd.create,
      router: { allocate: () => route, batch: (work: () => void) => work() },
    };
    const events = { onError: () => undefined, onRequest: () => undefined };
    const fn = new PassthroughFunction(device, { bars: "map", excludedMmapBars: [] }, parts, events);
    fn.wireIntx(gsi(16));
    return fn;
  }

  /** A right server but for what tampers with its messages. */
  #serve(serverSocket: MemorySocket, socket: MemorySocket): void {
    const device: UserPciDevice = {
      name: "scratch",
      identity: {
        ...{ vendorId: 0x1234, deviceId: 0x5c5c, revision: 1, classCode: 0x05_8000 },
        ...{ subsystemVendorId: 0, subsystemId: 0, interruptPin: 1 },
      },
      bars: [{ request: { kind: "mem32", index: 0, sizeBytes: 0x4000, isPrefetchable: false }, memory: this.#block }],
      interrupts: { msi: 4, msix: { vectors: 3, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 0x800 } } },
      reset: () => undefined,
    };
    const memory = new ClientMemory();
    const watcher = { watchRings: () => ({ setInterest: () => undefined, close: () => undefined }) };
    const parts = { signals: this.#signals, watcher, report: () => undefined };
    const interrupts = new ClientInterrupts([1, 4, 3], parts);
    const connection = new Connection({
      wire: new UserWire(serverSocket, () => serverSocket.cutOff),
      model: new DeviceModel(device, { onMaster: () => undefined, onIntxDisable: () => undefined }),
      ...{ memory, interrupts, report: () => undefined },
      onClosed: () => {
        memory.clear();
        interrupts.clear();
      },
    });
    serverSocket.onSend = (piece) => {
      const [due] = this.#tampers;
      if (due === undefined || due.after-- > 0) return [piece];
      this.#tampers.shift();
      return tamper(piece, randomNumbers(due.seed), this.#files.event.fd);
    };
    socket.onWait = () => connection.pump();
  }

  #use(operation: Exclude<Operation, { readonly op: "open" | "tamper" | "push" | "turn" }>): void {
    const { device, fn } = this.#life ?? {};
    if (fn !== undefined) return useFunction(fn, operation); // nothing may be thrown
    if (device === undefined) return;
    try {
      this.#useDevice(device, operation);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
    }
  }

  #useDevice(
    device: UserDevice,
    operation: Exclude<Operation, { readonly op: "open" | "tamper" | "push" | "turn" }>,
  ): void {
    const event = this.#files.event.fd;
    switch (operation.op) {
      case "read":
        return void device.readRegion(operation.region, operation.offset, operation.width);
      case "write":
        return void device.writeRegion(operation.region, operation.offset, operation.width, operation.value);
      case "trigger": {
        const triggers = Array.from({ length: operation.count }, (_, at) => (at === 1 ? fd(-1) : event));
        return device.setTrigger(operation.kind, operation.start, triggers);
      }
      case "disable":
        return device.disableInterrupts(operation.kind);
      case "mask":
        if (operation.how === "mask") return device.maskIntx();
        return operation.how === "unmask" ? device.unmaskIntx() : device.setIntxResample(event);
      case "map":
      case "place": {
        const area = device.region(0)?.mappableAreas[0];
        if (area === undefined || area.offset % 4096 !== 0) return;
        const mapped = device.mapRegion(0, area);
        mapped.unmap();
        return;
      }
      case "reset":
        return void device.reset();
      default:
        operation satisfies never;
    }
  }

  #judgeLoss(): string | undefined {
    const device = this.#life?.device;
    if (device === undefined) return undefined;
    const wanted = device.isLost ? 1 : 0;
    return this.#losses === wanted
      ? undefined
      : `a server that is ${wanted ? "" : "not "}lost was told ${this.#losses} times`;
  }

  #closeLife(): string | undefined {
    const life = this.#life;
    if (life === undefined) return undefined;
    this.#life = undefined;
    life.fn?.close();
    life.device?.close();
    life.socket.onWait();
    life.serverSocket.close();
    life.socket.onWait();
    return this.#onReady === undefined ? undefined : "the socket of a device that is closed is watched";
  }
}

/** What a guest does to a passed-through function. */
function useFunction(fn: PassthroughFunction, operation: Operation): void {
  switch (operation.op) {
    case "read":
      if (operation.region === 7) fn.config.read(operation.offset % 256, operation.width);
      else fn.readBar(0, operation.offset, operation.width);
      return;
    case "write":
      if (operation.region === 7) fn.config.write(operation.offset % 256, operation.width, operation.value);
      else fn.writeBar(0, operation.offset, operation.width, operation.value);
      return;
    case "place":
      fn.barPlaced(0, operation.address === undefined ? undefined : gpa(operation.address));
      return;
    case "reset":
      return fn.reset();
    case "map":
      return void fn.isPresent();
    default:
  }
}
