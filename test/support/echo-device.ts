import type { Width } from "../../src/base/units.ts";
import type { Chain } from "../../src/virtio/chain.ts";
import type { VirtioDevice, VirtioTransport } from "../../src/virtio/device.ts";
import type { Virtqueue } from "../../src/virtio/queue.ts";

/**
 * The plainest virtio device: two queues, gives every chain back with the size of its writable part, remembers what it
 * saw.
 */
export class EchoDevice implements VirtioDevice {
  readonly name = "echo";
  readonly deviceId = 42;
  readonly classCode = 0xff_00_00;
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly configSizeBytes = 8;
  isBusy = false;
  bytesPerTurn: number = Number.POSITIVE_INFINITY;
  readonly chains: Chain[] = [];
  /** "activate 0x…", "notified 1", "reset", "close". */
  readonly log: string[] = [];
  /** Called for each chain before it is given back. */
  onChain: ((chain: Chain) => void) | undefined;
  transport: VirtioTransport | undefined;
  queues: readonly (Virtqueue | undefined)[] = [];
  readonly #config = new DataView(new ArrayBuffer(8));

  constructor(features = 0n, queueSizes: readonly number[] = [16, 16]) {
    this.features = features;
    this.queueSizes = queueSizes;
  }

  attach(transport: VirtioTransport): void {
    this.transport = transport;
  }

  readConfig(offset: number, width: Width): number {
    let value = 0;
    for (let i = 0; i < width && offset + i < 8; i++) value += this.#config.getUint8(offset + i) * 2 ** (8 * i);
    return value;
  }

  writeConfig(offset: number, width: Width, value: number): void {
    for (let i = 0; i < width && offset + i < 8; i++) this.#config.setUint8(offset + i, value >>> (8 * i));
  }

  activate(queues: readonly (Virtqueue | undefined)[], driverFeatures: bigint): void {
    this.queues = queues;
    this.log.push(`activate 0x${driverFeatures.toString(16)}`);
  }

  queueNotified(index: number): void {
    this.log.push(`notified ${index}`);
    const queue = this.queues[index];
    queue?.drain(this.bytesPerTurn, (chain) => {
      this.chains.push(chain);
      this.onChain?.(chain);
      queue.complete(chain, chain.writableBytes);
      return chain.readableBytes + chain.writableBytes;
    });
  }

  reset(): void {
    this.queues = [];
    this.log.push("reset");
  }

  close(): void {
    this.log.push("close");
  }
}
