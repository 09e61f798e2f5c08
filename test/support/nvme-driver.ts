import type { GuestMemory } from "../../src/base/guest-memory.ts";
import { gpa } from "../../src/base/units.ts";
import type { UserDevice } from "../../src/vfio-user/client/device.ts";
import { until } from "./user-server.ts";

/** A command as the driver gives it; what is absent is 0. */
export interface NvmeCommand {
  readonly opcode: number;
  readonly nsid?: number;
  readonly prp1?: number;
  readonly prp2?: number;
  /** Dwords 10 to 15. */
  readonly dwords?: readonly number[];
  readonly flags?: number;
}

/** What the controller answered. */
export interface NvmeResult {
  /** Status code and type, without the "do not retry" bit. */
  readonly status: number;
  readonly mayRetry: boolean;
  readonly result: number;
  readonly cid: number;
}

const CONFIG = 7;

/** A pair of queues of 16 entries each: submissions at a page, completions at the next. */
export class QueuePair {
  readonly id: number;
  readonly base: number;
  tail = 0;
  head = 0;
  phase = 1;

  constructor(id: number, base: number) {
    this.id = id;
    this.base = base;
  }
}

const ENTRIES = 16;
const ADMIN_QUEUES = 0x1_0000;
const IO_QUEUES = 0x1_2000;

/** Admin commands that make queue pair 1, with vector 1. */
export const CREATE_QUEUES: readonly NvmeCommand[] = [
  { opcode: 0x05, prp1: IO_QUEUES + 0x1000, dwords: [((ENTRIES - 1) << 16) | 1, 0x0001_0003] },
  { opcode: 0x01, prp1: IO_QUEUES, dwords: [((ENTRIES - 1) << 16) | 1, 0x0001_0001] },
];

/** Where the driver finds the controller's registers and its configuration space. */
export type NvmeRegions = Pick<UserDevice, "readRegion" | "writeRegion">;

/**
 * An NVMe driver that polls, over a device's backend: registers by its regions, everything else in guest RAM below
 * 0x14000.
 */
export class NvmeDriver {
  readonly #device: NvmeRegions;
  readonly #memory: GuestMemory;
  readonly admin: QueuePair = new QueuePair(0, ADMIN_QUEUES);
  readonly io: QueuePair = new QueuePair(1, IO_QUEUES);
  #nextId = 0x100;

  constructor(device: NvmeRegions, memory: GuestMemory) {
    this.#device = device;
    this.#memory = memory;
  }

  read(offset: number): number {
    return this.#device.readRegion(0, offset, 4) ?? -1;
  }

  write(offset: number, value: number): void {
    this.#device.writeRegion(0, offset, 4, value);
  }

  /** Decode and bus mastering on; admin queues set; the controller ready. */
  start(): void {
    this.#device.writeRegion(CONFIG, 0x04, 2, 0x6);
    this.write(0x24, ((ENTRIES - 1) << 16) | (ENTRIES - 1));
    this.write(0x28, ADMIN_QUEUES);
    this.write(0x2c, 0);
    this.write(0x30, ADMIN_QUEUES + 0x1000);
    this.write(0x34, 0);
    this.write(0x14, 0x0046_0001); // entry sizes 16 and 64, enabled
    until("the controller is ready", () => (this.read(0x1c) & 1) === 1);
  }

  createQueues(): void {
    for (const command of CREATE_QUEUES) this.run(command);
  }

  /** Carries a command of the admin queue out. */
  run(command: NvmeCommand): NvmeResult {
    this.submit(this.admin, command);
    return this.take(this.admin);
  }

  /** Carries a command of queue 1 out. */
  runIo(command: NvmeCommand): NvmeResult {
    this.submit(this.io, command);
    return this.take(this.io);
  }

  /** Puts a command into a queue and rings. @returns Its id. */
  submit(queue: QueuePair, command: NvmeCommand): number {
    const cid = this.#nextId++;
    const entry = new DataView(new ArrayBuffer(64));
    entry.setUint8(0, command.opcode);
    entry.setUint8(1, command.flags ?? 0);
    entry.setUint16(2, cid, true);
    entry.setUint32(4, command.nsid ?? 0, true);
    entry.setBigUint64(24, BigInt(command.prp1 ?? 0), true);
    entry.setBigUint64(32, BigInt(command.prp2 ?? 0), true);
    for (const [index, value] of (command.dwords ?? []).entries()) entry.setUint32(40 + 4 * index, value, true);
    this.#memory.write(gpa(queue.base + 64 * queue.tail), new Uint8Array(entry.buffer));
    queue.tail = (queue.tail + 1) % ENTRIES;
    this.write(0x1000 + 8 * queue.id, queue.tail);
    return cid;
  }

  /** Whether a completion is there. */
  hasCompletion(queue: QueuePair): boolean {
    const status = this.#memory.readU16(gpa(queue.base + 0x1000 + 16 * queue.head + 14)) ?? 0;
    return (status & 1) === queue.phase;
  }

  /** Waits for the next completion and takes it. */
  take(queue: QueuePair): NvmeResult {
    until("the command completes", () => this.read(0x1c) >= 0 && this.hasCompletion(queue));
    const at = queue.base + 0x1000 + 16 * queue.head;
    const status = (this.#memory.readU16(gpa(at + 14)) ?? 0) >>> 1;
    const taken = {
      status: status & 0x7ff,
      mayRetry: (status & 0x4000) === 0,
      result: this.#memory.readU32(gpa(at)) ?? 0,
      cid: this.#memory.readU16(gpa(at + 12)) ?? 0,
    };
    queue.head = (queue.head + 1) % ENTRIES;
    if (queue.head === 0) queue.phase ^= 1;
    this.write(0x1004 + 8 * queue.id, queue.head);
    return taken;
  }
}
