import type { Width } from "../../src/base/units.ts";

const COMMAND = 0x04;
const IO = 0x1;
const MEMORY = 0x2;
const INTX_DISABLE = 0x400;
const BASE_ADDRESSES: readonly number[] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24];

/**
 * A device's configuration space behind vfio-pci, by the rules of Linux' drivers/vfio/pci/vfio_pci_config.c:
 *
 * - `vfio_config_do_rw` cuts accesses into pieces inside a dword; what no table speaks of goes to the device as it is.
 * - `vfio_basic_config_write`: INTx disable is virtual. A write of COMMAND is the end of a back-door reset if it
 *   enables decode that the user has on and the device off. Other base addresses than the host's show it too. The base
 *   addresses are restored before the device gets the value.
 * - `vfio_msi_config_write`: MSI's control word goes to the device, with Enable only while the user has MSI armed.
 * - The MSI-X capability has no `writefn`: writes are dropped. Reads are the device's.
 */
export class FakeVfioConfig {
  /** The device's own registers. */
  readonly hardware: DataView;
  /** How often base addresses were restored. */
  restores = 0;
  #virtualCommand: number;
  readonly #baseAddresses: readonly number[];
  readonly #msi: number | undefined;
  readonly #msix: number | undefined;
  #isMsiOn = false;

  constructor(image: Uint8Array) {
    this.hardware = new DataView(image.slice().buffer);
    this.#virtualCommand = this.hardware.getUint16(COMMAND, true);
    this.#baseAddresses = BASE_ADDRESSES.map((at) => this.hardware.getUint32(at, true));
    this.#msi = this.find(0x05);
    this.#msix = this.find(0x11);
  }

  /** Whether the device itself answers at the host's base addresses. */
  isDecoding(space: "memory" | "io"): boolean {
    const command = this.hardware.getUint16(COMMAND, true);
    return (command & (space === "memory" ? MEMORY : IO)) !== 0 && !this.#hasOtherAddresses();
  }

  read(offset: number, width: Width): number {
    let value = 0;
    for (let byte = 0; byte < width; byte++) value += this.#readByte(offset + byte) * 2 ** (8 * byte);
    return value;
  }

  write(offset: number, width: Width, value: number): void {
    let at = 0;
    while (at < width) {
      const from = offset + at;
      const room = Math.min(width - at, 4 - (from % 4));
      const count = room >= 4 ? 4 : room >= 2 && from % 2 === 0 ? 2 : 1;
      this.#writePiece(from, count, Math.floor(value / 2 ** (8 * at)) % 2 ** (8 * count));
      at += count;
    }
  }

  /**
   * VFIO_DEVICE_SET_IRQS switches MSI or MSI-X on, with that many vectors, or off. MSI gets the power of two that holds
   * them. drivers/pci/msi/msi.c
   */
  switchMessages(kind: "msi" | "msix", vectors: number): void {
    const at = kind === "msi" ? this.#msi : this.#msix;
    if (kind === "msi") this.#isMsiOn = vectors > 0;
    if (at === undefined) return;
    const flags = this.hardware.getUint16(at + 2, true);
    if (kind === "msix") this.hardware.setUint16(at + 2, vectors > 0 ? flags | 0x8000 : flags & ~0x8000, true);
    else {
      const size = vectors > 0 ? Math.ceil(Math.log2(vectors)) << 4 : flags & 0x70;
      this.hardware.setUint16(at + 2, (flags & ~0x71) | size | (vectors > 0 ? 1 : 0), true);
    }
  }

  /**
   * The device's driver resets the chip by a register of a BAR, which the kernel does not see. Decode, bus mastering,
   * base addresses, MSI Enable and MSI-X Enable are lost. See tg3_chip_reset() of drivers/net/ethernet/broadcom/tg3.c
   */
  resetByBackDoor(): void {
    this.hardware.setUint16(COMMAND, 0, true);
    for (const at of BASE_ADDRESSES) this.hardware.setUint32(at, 0, true);
    if (this.#msi !== undefined) this.#clear(this.#msi + 2, 0x0001);
    if (this.#msix !== undefined) this.#clear(this.#msix + 2, 0x8000);
  }

  /** Where the first capability of that id is. */
  find(id: number): number | undefined {
    let at = this.hardware.getUint8(0x34);
    for (let count = 0; at >= 0x40 && count < 48; count++) {
      if (this.hardware.getUint8(at) === id) return at;
      at = this.hardware.getUint8(at + 1);
    }
    return undefined;
  }

  #readByte(at: number): number {
    const byte = this.hardware.getUint8(at);
    const disable = INTX_DISABLE >>> 8;
    return at === COMMAND + 1 ? (byte & ~disable) | ((this.#virtualCommand >>> 8) & disable) : byte;
  }

  #writePiece(at: number, count: number, value: number): void {
    if (at === COMMAND) this.#restoreWhereLost(value);
    for (let byte = 0; byte < count; byte++) this.#writeByte(at + byte, Math.floor(value / 2 ** (8 * byte)) & 0xff);
    if (at === COMMAND) this.#virtualCommand = (this.#virtualCommand & ~(IO | MEMORY)) | (value & (IO | MEMORY));
    const msi = this.#msi;
    if (msi !== undefined && at <= msi + 2 && at + count > msi + 2 && !this.#isMsiOn) this.#clear(msi + 2, 0x0001);
  }

  #restoreWhereLost(wanted: number): void {
    const physical = this.hardware.getUint16(COMMAND, true);
    const isLost = (wanted & this.#virtualCommand & ~physical & (IO | MEMORY)) !== 0;
    if (!isLost && !this.#hasOtherAddresses()) return;
    this.restores++;
    for (const [index, at] of BASE_ADDRESSES.entries()) {
      this.hardware.setUint32(at, this.#baseAddresses[index] ?? 0, true);
    }
  }

  #writeByte(at: number, value: number): void {
    if (this.#msix !== undefined && at >= this.#msix && at < this.#msix + 12) return;
    if (at !== COMMAND + 1) {
      this.hardware.setUint8(at, value);
      return;
    }
    const disable = INTX_DISABLE >>> 8;
    this.#virtualCommand = (this.#virtualCommand & ~INTX_DISABLE) | ((value & disable) << 8);
    this.hardware.setUint8(at, value & ~disable);
  }

  #hasOtherAddresses(): boolean {
    return BASE_ADDRESSES.some((at, index) => {
      const real = this.#baseAddresses[index] ?? 0;
      return real !== 0 && this.hardware.getUint32(at, true) !== real;
    });
  }

  #clear(at: number, bits: number): void {
    this.hardware.setUint16(at, this.hardware.getUint16(at, true) & ~bits, true);
  }
}
