import { type Fd, fd } from "../../src/base/units.ts";
import { DescriptorSocket } from "../../src/host/descriptor-socket.ts";
import { EventFd } from "../../src/host/eventfd.ts";
import { libc } from "../../src/host/libc.ts";
import { UnixListener } from "../../src/host/unix-socket.ts";
import { type OutgoingMessage, type UserMessage, UserWire } from "../../src/vfio-user/protocol/wire.ts";
import { MemoryBlock } from "../../src/vfio-user/server/memory-block.ts";
import { fields } from "./user-client.ts";

/** What a command is answered with; an errno refuses it. */
export type Answer = Omit<OutgoingMessage, "id" | "command" | "isReply">;

const PAGE = 4096;
export const COMMAND = {
  version: 1,
  dmaMap: 2,
  dmaUnmap: 3,
  getInfo: 4,
  getRegionInfo: 5,
  getIrqInfo: 7,
  setIrqs: 8,
  regionRead: 9,
  regionWrite: 10,
  reset: 13,
} as const;
const EINVAL = 22;
/** Kinds of interrupt and their vectors: INTx, MSI-X, ERR, REQ. */
const VECTORS: Readonly<Record<number, number>> = { 0: 1, 2: 4, 3: 1, 4: 1 };
const MSIX = 2;
const MSIX_AT = 0x40;

/**
 * A vfio-user server as libvfio-user and the devices made with it behave (lib/irq.c, lib/pci_caps.c; SPDK's
 * ctrlr_interrupt_enabled), in plain code of its own, so that a test can bend each answer. BAR 0 has 16 KiB: registers,
 * a page that can be mapped, the MSI-X table and its pending bits. The first register's low byte is a vector. A write
 * interrupts with it, if MSI-X is enabled in the configuration space and not masked by {@link hasVectorMasks}. Reads
 * answer the number of writes.
 *
 * It serves one client at a time and never returns from {@link serve}.
 */
export class PlainServer {
  /** QEMU's server begins with all vectors masked (msix_init), and is told by SET_IRQS to unmask them. */
  hasVectorMasks = false;
  readonly config: Uint8Array = new Uint8Array(256);
  readonly memory: MemoryBlock = new MemoryBlock("plain", PAGE, PAGE);
  readonly #masked: Set<number> = new Set();
  readonly #triggers: Map<string, Fd> = new Map();
  #writes = 0;

  constructor() {
    this.config.set(fields([0x1234, 2], [0x5c5c, 2], [0, 4], [0x0580_0001, 4]));
    this.config[0x06] = 0x10; // a capability list
    this.config[0x34] = MSIX_AT;
    this.config[0x3d] = 1; // INTA
    this.config.set([0x11, 0, 3, 0, ...fields([0x2000, 4], [0x3000, 4])], MSIX_AT);
  }

  serve(path: string): never {
    const listener = UnixListener.listen(path, 1);
    const arrivals = new DescriptorSocket(listener.fd);
    process.stdout.write(`listening at ${path}\n`);
    for (;;) {
      while (!arrivals.wait("input", 1000).isReadable);
      const socket = listener.accept(() => undefined);
      if (socket === undefined) continue;
      this.serveOne(new UserWire(new DescriptorSocket(socket)));
    }
  }

  serveOne(wire: UserWire): void {
    for (const trigger of this.#triggers.values()) libc.close(trigger);
    this.#triggers.clear();
    for (let vector = 0; vector < 4; vector++) this.#masked.add(vector);
    for (;;) {
      const message = wire.receive(Number.POSITIVE_INFINITY);
      if (typeof message === "string") return wire.close();
      try {
        this.answer(wire, message);
      } catch {
        return wire.close(); // the client hung up meanwhile
      }
    }
  }

  /** Takes a message; the descriptors that came with it are ours. */
  answer(wire: UserWire, message: UserMessage): void {
    const answer = this.handle(message);
    if (message.wantsNoReply) return;
    const { id, command } = message;
    wire.send({ id, command, isReply: true, ...answer }, Number.POSITIVE_INFINITY);
  }

  handle({ command, payload, descriptors }: UserMessage): Answer {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    switch (command) {
      case COMMAND.version:
        return this.version();
      case COMMAND.dmaMap:
        for (const file of descriptors) libc.close(file);
        return {};
      case COMMAND.dmaUnmap:
        return { payload };
      case COMMAND.getInfo:
        return { payload: fields([16, 4], [3, 4], [9, 4], [5, 4]) };
      case COMMAND.getRegionInfo:
        return this.regionInfo(view.getUint32(8, true), view.getUint32(0, true));
      case COMMAND.getIrqInfo: {
        const index = view.getUint32(8, true);
        return { payload: fields([16, 4], [1, 4], [index, 4], [VECTORS[index] ?? 0, 4]) };
      }
      case COMMAND.setIrqs:
        return this.setIrqs(view, descriptors);
      case COMMAND.regionRead: {
        const [offset, index, count] = [view.getUint32(0, true), view.getUint32(8, true), view.getUint32(12, true)];
        return { payload: Uint8Array.from([...payload.subarray(0, 16), ...this.read(index, offset, count)]) };
      }
      case COMMAND.regionWrite:
        this.write(view.getUint32(8, true), view.getUint32(0, true), payload.subarray(16));
        return { payload: payload.slice(0, 16) };
      case COMMAND.reset:
        return {};
      default:
        return { error: EINVAL };
    }
  }

  version(): Answer {
    const json = { capabilities: { max_msg_fds: 8, max_data_xfer_size: 1 << 20 } };
    return {
      payload: Uint8Array.from([...fields([0, 2], [1, 2]), ...new TextEncoder().encode(JSON.stringify(json)), 0]),
    };
  }

  regionInfo(index: number, room: number): Answer {
    if (index === 7) return { payload: fields([32, 4], [3, 4], [7, 4], [0, 4], [256, 8], [0, 8]) };
    if (index !== 0) return { payload: fields([32, 4], [0, 4], [index, 4], [0, 4], [0, 8], [0, 8]) };
    const argsz = 32 + 16 + 16;
    if (room < argsz) return { payload: fields([argsz, 4], [7, 4], [0, 4], [0, 4], [0x4000, 8], [0, 8]) };
    const sparse = fields([1, 2], [1, 2], [0, 4], [1, 4], [0, 4], [PAGE, 8], [PAGE, 8]);
    const info = fields([argsz, 4], [15, 4], [0, 4], [32, 4], [0x4000, 8], [0, 8]);
    return { payload: Uint8Array.from([...info, ...sparse]), descriptors: [this.memory.share()] };
  }

  setIrqs(view: DataView, descriptors: readonly Fd[]): Answer {
    const field = (offset: number): number => view.getUint32(offset, true);
    const [flags, index, start, count] = [field(4), field(8), field(12), field(16)];
    if (start + count > (VECTORS[index] ?? 0)) return { error: EINVAL };
    if ((flags & 0x38) === 0x20) this.#connect(index, start, count, descriptors);
    else if (index === MSIX && (flags & 0x38) === 0x10 && this.hasVectorMasks) {
      // QEMU's loop goes from `start` up to `count` (vfu_msix_irq_state).
      for (let vector = start; vector < count; vector++) this.#masked.delete(vector);
    } else for (const file of descriptors) libc.close(file);
    return {};
  }

  read(index: number, offset: number, count: number): Uint8Array {
    if (index === 7) return this.config.slice(offset, offset + count);
    if (offset >= PAGE && offset + count <= 2 * PAGE)
      return this.memory.bytes.slice(offset - PAGE, offset - PAGE + count);
    return offset === 0 ? fields([this.#writes, 4]).subarray(0, count) : new Uint8Array(count);
  }

  write(index: number, offset: number, bytes: Uint8Array): void {
    if (index === 7) this.config.set(bytes, offset);
    else if (offset >= PAGE && offset + bytes.length <= 2 * PAGE) this.memory.bytes.set(bytes, offset - PAGE);
    else if (offset === 0) {
      this.#writes++;
      this.#interrupt(bytes[0] ?? 0);
    }
  }

  #connect(index: number, start: number, count: number, descriptors: readonly Fd[]): void {
    const end = count === 0 ? (VECTORS[index] ?? 0) : start + count;
    for (let vector = start; vector < end; vector++) {
      const key = `${index} ${vector}`;
      libc.close(this.#triggers.get(key) ?? fd(-1));
      this.#triggers.delete(key);
      const file = descriptors[vector - start];
      if (file !== undefined) this.#triggers.set(key, file);
    }
  }

  #interrupt(vector: number): void {
    const isEnabled = ((this.config[MSIX_AT + 3] ?? 0) & 0x80) !== 0;
    const trigger = this.#triggers.get(`${MSIX} ${vector}`);
    if (isEnabled && trigger !== undefined && !(this.hasVectorMasks && this.#masked.has(vector))) {
      EventFd.attach(trigger).signal();
    }
  }
}
