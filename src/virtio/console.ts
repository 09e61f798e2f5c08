import type { CharBackend } from "../base/backends.ts";
import { RegisterBank, type RegisterHandler } from "../base/registers.ts";
import type { Width } from "../base/units.ts";
import { type Chain, gather, scatter, sliceSegments } from "./chain.ts";
import type { VirtioDevice, VirtioTransport } from "./device.ts";
import type { Virtqueue } from "./queue.ts";

/** The device has a size in characters. VIRTIO 1.2 §5.3.3 */
const VIRTIO_CONSOLE_F_SIZE = 1n << 0n;

const RECEIVE_QUEUE = 0;
const TRANSMIT_QUEUE = 1;

/** Bytes copied out at a time. */
const PIECE_BYTES = 4096;
/** Bytes sent in one turn of the device thread. */
const TRANSMIT_BYTES_PER_TURN = 1 << 20;
/**
 * Most bytes of one transmit request; Linux sends 32 KiB at most. The rest is dropped, so that a request cannot keep us
 * for seconds.
 */
const MAX_TRANSMIT_BYTES = 1 << 20;

type ConsoleRegister = "cols" | "rows" | "max_nr_ports" | "emerg_wr";

/** struct virtio_console_config. VIRTIO 1.2 §5.3.4 */
export const CONSOLE_CONFIG: RegisterBank<ConsoleRegister> = new RegisterBank("virtio_console_config", 12, [
  [0x00, 2, "cols", "ro"],
  [0x02, 2, "rows", "ro"],
  [0x04, 4, "max_nr_ports", "ro"],
  [0x08, 4, "emerg_wr", "wo"],
]);

/**
 * A console of one port. VIRTIO 1.2 §5.3
 *
 * It keeps no input of its own. Input that finds no buffer of the driver stays with the backend, which is told when
 * there is room again. So a guest that does not read slows down the sender, and memory use is bounded by the backend's
 * limit.
 */
export class VirtioConsole implements VirtioDevice, RegisterHandler<ConsoleRegister>, Disposable {
  readonly name: string;
  readonly deviceId = 3;
  readonly classCode = 0x07_80_00; // communication controller, other
  readonly features: bigint = VIRTIO_CONSOLE_F_SIZE;
  readonly queueSizes: readonly number[] = [128, 128];
  readonly configSizeBytes = 12;
  readonly isBusy = false;
  readonly #backend: CharBackend;
  #transport: VirtioTransport | undefined;
  #receive: Virtqueue | undefined;
  #transmit: Virtqueue | undefined;
  #isStarved = true; // the backend was told that we had no room
  #columns: number;
  #rows: number;

  /** @param size In characters; 0 where it is unknown. */
  constructor(name: string, backend: CharBackend, size: { readonly columns: number; readonly rows: number }) {
    this.name = name;
    this.#backend = backend;
    this.#columns = size.columns;
    this.#rows = size.rows;
    backend.onInput((bytes) => this.#takeInput(bytes));
  }

  /** Tells the guest that the terminal has another size, in characters. */
  resize(columns: number, rows: number): void {
    if (columns === this.#columns && rows === this.#rows) return;
    this.#columns = columns;
    this.#rows = rows;
    this.#transport?.configChanged();
  }

  attach(transport: VirtioTransport): void {
    this.#transport = transport;
  }

  readConfig(offset: number, width: Width): number {
    return CONSOLE_CONFIG.read(this, offset, width);
  }

  writeConfig(offset: number, width: Width, value: number): void {
    CONSOLE_CONFIG.write(this, offset, width, value);
  }

  readRegister(name: ConsoleRegister): number {
    switch (name) {
      case "cols":
        return this.#columns & 0xffff;
      case "rows":
        return this.#rows & 0xffff;
      case "max_nr_ports": // without VIRTIO_CONSOLE_F_MULTIPORT
      case "emerg_wr": // without VIRTIO_CONSOLE_F_EMERG_WRITE
        return 0;
      default:
        return name satisfies never;
    }
  }

  writeRegister(): void {}

  activate(queues: readonly (Virtqueue | undefined)[]): void {
    this.#receive = queues[RECEIVE_QUEUE];
    this.#transmit = queues[TRANSMIT_QUEUE];
  }

  queueNotified(index: number): void {
    if (index === TRANSMIT_QUEUE) {
      const queue = this.#transmit;
      queue?.drain(TRANSMIT_BYTES_PER_TURN, (chain) => this.#send(queue, chain));
    } else if (this.#isStarved) {
      this.#isStarved = false;
      this.#backend.inputReady();
    }
  }

  reset(): void {
    this.#receive = undefined;
    this.#transmit = undefined;
    this.#isStarved = true;
  }

  close(): void {
    this.reset();
    this.#backend.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Answers how many bytes it has sent. */
  #send(queue: Virtqueue, chain: Chain): number {
    if (chain.readableBytes > MAX_TRANSMIT_BYTES) {
      this.#transport?.misbehaved("a console request was cut", {
        bytes: chain.readableBytes,
        keptBytes: MAX_TRANSMIT_BYTES,
      });
    }
    const total = Math.min(chain.readableBytes, MAX_TRANSMIT_BYTES);
    for (let offset = 0; offset < total; offset += PIECE_BYTES) {
      // A new array each time: the backend may keep it until it can write.
      const piece = new Uint8Array(Math.min(PIECE_BYTES, total - offset));
      gather(queue.memory, sliceSegments(chain.readable, offset, piece.length), piece);
      this.#backend.write(piece);
    }
    queue.complete(chain, 0);
    return total;
  }

  /** Puts input in the driver's buffers, one after another; how much found room. */
  #takeInput(bytes: Uint8Array): number {
    const queue = this.#receive;
    let taken = 0;
    while (taken < bytes.length) {
      const chain = queue?.pop();
      if (queue === undefined || chain === undefined) {
        // No buffer. The next one is worth a notification; if one came just now, go on.
        if (queue?.requestNotification() === true) continue;
        this.#isStarved = true;
        break;
      }
      if (chain.writableBytes === 0) {
        queue.fail("a console receive buffer is not writable");
        continue;
      }
      const count = scatter(queue.memory, chain.writable, bytes.subarray(taken));
      taken += count;
      queue.complete(chain, count);
    }
    return taken;
  }
}
