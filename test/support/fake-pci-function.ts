import { type Gpa, hex, type Width } from "../../src/base/units.ts";
import { ConfigSpace } from "../../src/pci/config-space.ts";
import type { BarIndex, BarRequest, PciFunction } from "../../src/pci/function.ts";

/** A PCI function with BARs that remember what was written to them, and a log of what the root told it. */
export class FakePciFunction implements PciFunction {
  readonly name: string;
  readonly config: ConfigSpace;
  readonly barRequests: readonly BarRequest[];
  /** "bar 0 at 0xc0000000", "bar 0 off", "reset", "close", in order. */
  readonly log: string[] = [];
  /** Called at each barPlaced, to look at the bus at that moment. */
  onPlaced: ((index: BarIndex, address: Gpa | undefined) => void) | undefined;
  readonly #bytes: Map<string, number> = new Map();

  constructor(name: string, barRequests: readonly BarRequest[], sizeBytes: 256 | 4096 = 4096) {
    this.name = name;
    this.config = new ConfigSpace(name, sizeBytes);
    this.barRequests = barRequests;
    this.config.setIdentity({
      vendorId: 0x1234,
      deviceId: 0x5678,
      revision: 1,
      classCode: 0xff0000,
      subsystemVendorId: 0x1234,
      subsystemId: 0x0001,
      interruptPin: 1,
    });
  }

  readBar(index: BarIndex, offset: number, width: Width): number {
    let value = 0;
    for (let byte = 0; byte < width; byte++) {
      value += (this.#bytes.get(`${index}+${offset + byte}`) ?? 0) * 2 ** (8 * byte);
    }
    return value;
  }

  writeBar(index: BarIndex, offset: number, width: Width, value: number): void {
    for (let byte = 0; byte < width; byte++)
      this.#bytes.set(`${index}+${offset + byte}`, (value >>> (8 * byte)) & 0xff);
  }

  barPlaced(index: BarIndex, address: Gpa | undefined): void {
    this.log.push(address === undefined ? `bar ${index} off` : `bar ${index} at ${hex(address)}`);
    this.onPlaced?.(index, address);
  }

  reset(): void {
    this.log.push("reset");
  }

  close(): void {
    this.log.push("close");
  }
}
