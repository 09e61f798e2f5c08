import type { Width } from "../../../src/base/units.ts";
import { RAM_BASE } from "./handed-memory.ts";
import type { Operation } from "./operations.ts";

/** Where a driver lets BAR 0 of its virtio function answer. */
export const driverBar = (fn: number): number => 0x40_8000_0000 + 0x10_0000 * fn;

/** Descriptors in each queue of the drivers here. */
export const QUEUE_SIZE = 16;

/** RAM for a queue and its buffers. */
export const QUEUE_BYTES = 0x8000;

/** Parts of a queue, from the start of RAM; half of it is for buffers. */
export interface QueueLayout {
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  readonly indirect: number;
  readonly buffers: number;
  readonly buffersSizeBytes: number;
}

export function queueLayout(fn: number, queue: number): QueueLayout {
  const base = QUEUE_BYTES * (2 * fn + (queue % 2));
  return {
    descriptors: base,
    available: base + 0x1000,
    used: base + 0x2000,
    indirect: base + 0x3000,
    buffers: base + 0x4000,
    buffersSizeBytes: 0x4000,
  };
}

/** Queues of each virtio function, in the world's order: disk, console, entropy. */
export const queueCount = (fn: number): number => (fn === 1 ? 2 : 1);

/** What a driver does until DRIVER_OK, with clean rings. VIRTIO 1.2 §3.1.1 */
export function driverStart(fn: number, features: readonly [low: number, high: number] = [0, 1]): readonly Operation[] {
  const operations: Operation[] = [];
  const config = (offset: number, width: Width, value: number): void => {
    operations.push({ op: "config", fn, via: "ecam", offset, width, value });
  };
  const common = (offset: number, width: Width, value: number): void => {
    operations.push({ op: "bar", fn, bar: 0, offset, width, value });
  };
  config(0x04, 2, 0);
  config(0x10, 4, driverBar(fn) % 2 ** 32);
  config(0x14, 4, Math.floor(driverBar(fn) / 2 ** 32));
  config(0x04, 2, 0x0006);
  for (const status of [0, 1, 3]) common(0x14, 1, status);
  for (const [half, bits] of features.entries()) {
    common(0x08, 4, half);
    common(0x0c, 4, bits);
  }
  common(0x14, 1, 0x0b);
  for (let queue = 0; queue < queueCount(fn); queue++) {
    const { descriptors, available, used } = queueLayout(fn, queue);
    for (const ring of [available, used]) operations.push({ op: "ram", offset: ring, width: 4, value: 0 });
    common(0x16, 2, queue);
    common(0x18, 2, QUEUE_SIZE);
    common(0x1a, 2, queue + 1);
    for (const [part, offset] of [descriptors, available, used].entries()) {
      common(0x20 + 8 * part, 4, (RAM_BASE + offset) % 2 ** 32);
      common(0x24 + 8 * part, 4, Math.floor(RAM_BASE / 2 ** 32));
    }
    common(0x1c, 2, 1);
  }
  common(0x14, 1, 0x0f);
  return operations;
}
