import type { BusDevice } from "../base/bus.ts";
import { allOnes, type Width } from "../base/units.ts";
import { ConfigSpace } from "./config-space.ts";
import type { BarRequest, PciFunction } from "./function.ts";
import { PCI_CFG_SPACE_SIZE } from "./ids.ts";
import type { PciRoot } from "./root.ts";

/**
 * Function 0:0.0: what a guest finds first and takes for the way to everything else. It has identity and nothing more.
 */
export class HostBridge implements PciFunction, Disposable {
  readonly name = "host bridge";
  readonly config: ConfigSpace = new ConfigSpace("host bridge", PCI_CFG_SPACE_SIZE);
  readonly barRequests: readonly BarRequest[] = [];

  constructor() {
    this.config.setIdentity({
      vendorId: 0x8086,
      deviceId: 0x0d57,
      revision: 0,
      classCode: 0x060000,
      subsystemVendorId: 0,
      subsystemId: 0,
    });
  }

  readBar(): number {
    return 0;
  }

  writeBar(): void {
    // No BARs.
  }

  barPlaced(): void {
    // No BARs.
  }

  reset(): void {
    // No state beside the configuration space.
  }

  close(): void {
    // Holds nothing.
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export const CONFIG_PORTS_SIZE = 8;

const CONFIG_ENABLE = 0x8000_0000;
/** Enable bit, bus, device, function, register; the rest reads as zero. */
const CONFIG_ADDRESS_BITS = 0x80ff_fffc;

/**
 * Configuration mechanism 1: an address at port 0xCF8, data at 0xCFC. PCI Local Bus 3.0 §3.2.2.3.2
 *
 * Only an access of four bytes at 0xCF8 reaches the address. Narrower ones belong to other chips (0xCF9 is the PC's
 * reset control) and go to `others`, at offsets 0 to 3.
 */
export class ConfigPorts implements BusDevice {
  readonly name = "PCI configuration ports";
  readonly #root: PciRoot;
  readonly #others: BusDevice | undefined;
  #address = 0;

  constructor(root: PciRoot, others?: BusDevice) {
    this.#root = root;
    this.#others = others;
  }

  read(offset: number, width: Width): number {
    if (offset === 0 && width === 4) return this.#address;
    if (offset + width <= 4) return this.#others?.read(offset, width) ?? allOnes(width);
    if (offset < 4) return allOnes(width);
    if ((this.#address & CONFIG_ENABLE) === 0) return allOnes(width);
    const { bus, device, fn, register } = this.#target(offset);
    return this.#root.configRead(bus, device, fn, register, width);
  }

  write(offset: number, width: Width, value: number): void {
    if (offset === 0 && width === 4) {
      this.#address = (value & CONFIG_ADDRESS_BITS) >>> 0;
    } else if (offset + width <= 4) {
      this.#others?.write(offset, width, value);
    } else if (offset >= 4 && (this.#address & CONFIG_ENABLE) !== 0) {
      const { bus, device, fn, register } = this.#target(offset);
      this.#root.configWrite(bus, device, fn, register, width, value);
    }
  }

  describe(offset: number): string {
    if (offset < 4) return "address";
    if ((this.#address & CONFIG_ENABLE) === 0) return "data, not enabled";
    const { bus, device, fn, register } = this.#target(offset);
    return this.#root.describe(bus, device, fn, register);
  }

  /** The address register as after power-on. */
  reset(): void {
    this.#address = 0;
  }

  #target(offset: number): { bus: number; device: number; fn: number; register: number } {
    const address = this.#address;
    return {
      bus: (address >>> 16) & 0xff,
      device: (address >>> 11) & 0x1f,
      fn: (address >>> 8) & 7,
      register: (address & 0xfc) + offset - 4,
    };
  }
}

/** Memory-mapped configuration: 4 KiB a function, from bus 0 on. PCI Express Base 3.0 §7.2.2 */
export class Ecam implements BusDevice {
  readonly name = "PCI ECAM";
  readonly #root: PciRoot;

  constructor(root: PciRoot) {
    this.#root = root;
  }

  read(offset: number, width: Width): number {
    return this.#root.configRead(offset >>> 20, (offset >>> 15) & 0x1f, (offset >>> 12) & 7, offset & 0xfff, width);
  }

  write(offset: number, width: Width, value: number): void {
    const device = (offset >>> 15) & 0x1f;
    this.#root.configWrite(offset >>> 20, device, (offset >>> 12) & 7, offset & 0xfff, width, value);
  }

  describe(offset: number): string {
    return this.#root.describe(offset >>> 20, (offset >>> 15) & 0x1f, (offset >>> 12) & 7, offset & 0xfff);
  }
}
