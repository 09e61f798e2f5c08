import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import type { GuestMemory } from "../base/guest-memory.ts";
import type { Doorbell, Doorbells, InterruptLine, MsiRouter } from "../base/signals.ts";
import { type Gpa, gpa, hex, type Width } from "../base/units.ts";
import { ConfigSpace } from "../pci/config-space.ts";
import type { BarIndex, BarRequest, PciFunction } from "../pci/function.ts";
import {
  PCI_CAP_ID_VNDR,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_MSIX_FLAGS,
  PCI_STATUS,
  PCI_STATUS_INTERRUPT,
} from "../pci/ids.ts";
import { MsixCapability, nameTableEntry } from "../pci/msix.ts";
import type { FunctionVectors } from "../pci/vectors.ts";
import { COMMON_CONFIG, CommonConfig } from "./common-config.ts";
import type { VirtioDevice } from "./device.ts";
import type { VirtioInspection } from "./inspection.ts";

// Kinds of structures. VIRTIO 1.2 §4.1.4
const VIRTIO_PCI_CAP_COMMON_CFG = 1;
const VIRTIO_PCI_CAP_NOTIFY_CFG = 2;
const VIRTIO_PCI_CAP_ISR_CFG = 3;
const VIRTIO_PCI_CAP_DEVICE_CFG = 4;
const VIRTIO_PCI_CAP_PCI_CFG = 5;

/** struct virtio_pci_cap, then what some kinds append. VIRTIO 1.2 §4.1.4 */
const CAP = { bar: 4, offset: 8, length: 12, size: 16, notify_off_multiplier: 16, pci_cfg_data: 16 } as const;

const ISR_QUEUE = 1;
const ISR_CONFIG = 2;

/*
 * BAR 0, a page for each structure:
 *
 * | offset | size           | structure                                                                             |
 * | 0x0000 | 0x38           | common configuration                                                                  |
 * | 0x1000 | 1              | ISR status                                                                            |
 * | 0x2000 | by device      | device-specific configuration                                                         |
 * | 0x3000 | 4 each queue   | notifications: the doorbell of queue i is at 0x3000 + 4 i                             |
 * | 0x4000 | 16 each vector | MSI-X table: vector 0 for configuration changes by custom, then one for each queue    |
 * | 0x5000 | 8              | MSI-X pending bits                                                                    |
 */
const BAR = 0;
const BAR_BYTES = 0x8000;
const PAGE_BYTES = 0x1000; // an access over a border is done byte by byte
const PAGE_COMMON = 0x0000;
const PAGE_ISR = 0x1000;
const PAGE_DEVICE = 0x2000;
const PAGE_NOTIFY = 0x3000;
const PAGE_MSIX_TABLE = 0x4000;
const PAGE_MSIX_PBA = 0x5000;
const NOTIFY_OFF_MULTIPLIER = 4;

/** What a virtio device needs to become a PCI function. */
export interface VirtioPciOptions {
  readonly name: string;
  readonly device: VirtioDevice;
  readonly memory: GuestMemory;
  readonly router: MsiRouter;
  readonly doorbells: Doorbells;
  /**
   * The pin for drivers without MSI-X; this function's own, where pins share a wire the levels are joined behind it.
   */
  readonly line: InterruptLine;
  readonly report: Report;
  /**
   * Runs `work` on the device thread's next turn, in order. A queue that the guest refills as fast as it is emptied
   * then lets others have a turn. Without it such a queue would keep the thread.
   */
  readonly defer?: (work: () => void) => void;
}

/**
 * A virtio device on the PCI bus, modern only. VIRTIO 1.2 §4.1
 *
 * It interrupts by MSI-X when the guest has switched that on, by its pin otherwise. A queue's notification is a
 * doorbell while the BAR answers; one that traps nevertheless has the same effect.
 */
export class VirtioPciFunction implements PciFunction, Disposable {
  readonly name: string;
  readonly config: ConfigSpace;
  readonly barRequests: readonly BarRequest[] = [
    { kind: "mem64", index: BAR, sizeBytes: BAR_BYTES, isPrefetchable: false }, // reading the ISR clears it
  ];
  readonly #options: VirtioPciOptions;
  readonly #device: VirtioDevice;
  readonly #queueCount: number;
  readonly #common: CommonConfig;
  readonly #msix: MsixCapability;
  readonly #pciCfg: number; // offset of that capability
  readonly #reported: Set<string> = new Set();
  #doorbells: readonly Doorbell[] = [];
  #isr = 0;
  #isLineHigh = false;

  constructor(options: VirtioPciOptions) {
    const { name, device, memory, router } = options;
    this.name = name;
    this.#options = options;
    this.#device = device;
    this.#queueCount = device.queueSizes.length;
    this.config = new ConfigSpace(name, 256);
    this.config.setIdentity({
      vendorId: 0x1af4,
      deviceId: 0x1040 + device.deviceId,
      revision: 1,
      classCode: device.classCode,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x0040 + device.deviceId, // 0x40 and higher: no transitional device (§4.1.2.1)
      interruptPin: 1,
    });
    this.#msix = new MsixCapability({
      config: this.config,
      router,
      vectorCount: this.#queueCount + 1,
      table: { bar: BAR, offset: PAGE_MSIX_TABLE },
      pba: { bar: BAR, offset: PAGE_MSIX_PBA },
    });
    this.#addCapability(VIRTIO_PCI_CAP_COMMON_CFG, PAGE_COMMON, COMMON_CONFIG.sizeBytes);
    const notify = this.#addCapability(
      VIRTIO_PCI_CAP_NOTIFY_CFG,
      PAGE_NOTIFY,
      NOTIFY_OFF_MULTIPLIER * this.#queueCount,
    );
    this.config.set32(notify + CAP.notify_off_multiplier, NOTIFY_OFF_MULTIPLIER);
    this.#addCapability(VIRTIO_PCI_CAP_ISR_CFG, PAGE_ISR, 1);
    if (device.configSizeBytes > 0) this.#addCapability(VIRTIO_PCI_CAP_DEVICE_CFG, PAGE_DEVICE, device.configSizeBytes);
    this.#pciCfg = this.#addCapability(VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
    this.#openWindow();
    this.config.onWrite(PCI_COMMAND, 2, () => this.#updateLine());
    this.config.onWrite(this.#msix.offset + PCI_MSIX_FLAGS, 2, () => this.#updateLine());
    this.#common = new CommonConfig({
      device,
      memory,
      vectorCount: this.#msix.vectorCount,
      interrupt: (kind, vector) => this.#interrupt(kind, vector),
      wasReset: () => this.#setIsr(0),
      misbehaved: (text, details) => this.#reportOnce(text, details),
      defer: options.defer,
    });
  }

  /**
   * True while a backend may still write to guest memory for requests that a reset has ended: wait before the memory is
   * loaded anew.
   */
  get isBusy(): boolean {
    return this.#device.isBusy;
  }

  readBar(index: BarIndex, offset: number, width: Width): number {
    if (index !== BAR) return 0;
    const at = offset & 0xfff;
    if (at + width > PAGE_BYTES) {
      let value = 0;
      for (let byte = 0; byte < width; byte++) value += this.readBar(index, offset + byte, 1) * 2 ** (8 * byte);
      return value;
    }
    switch (offset - at) {
      case PAGE_COMMON:
        return COMMON_CONFIG.read(this.#common, at, width);
      case PAGE_ISR:
        return at === 0 ? this.#takeIsr() : 0;
      case PAGE_DEVICE:
        return at < this.#device.configSizeBytes ? this.#device.readConfig(at, width) : 0;
      case PAGE_MSIX_TABLE:
        return this.#msix.readTable(at, width);
      case PAGE_MSIX_PBA:
        return this.#msix.readPba(at, width);
      default:
        return 0;
    }
  }

  writeBar(index: BarIndex, offset: number, width: Width, value: number): void {
    if (index !== BAR) return;
    const at = offset & 0xfff;
    if (at + width > PAGE_BYTES) {
      for (let byte = 0; byte < width; byte++) this.writeBar(index, offset + byte, 1, (value >>> (8 * byte)) & 0xff);
      return;
    }
    switch (offset - at) {
      case PAGE_COMMON:
        COMMON_CONFIG.write(this.#common, at, width, value);
        return;
      case PAGE_DEVICE:
        if (at < this.#device.configSizeBytes) this.#device.writeConfig(at, width, value);
        return;
      case PAGE_NOTIFY:
        // The address says which queue; the value says it again.
        if (at % NOTIFY_OFF_MULTIPLIER === 0) this.#common.notify(at / NOTIFY_OFF_MULTIPLIER);
        return;
      case PAGE_MSIX_TABLE:
        this.#msix.writeTable(at, width, value);
        return;
    }
  }

  describeBar(index: BarIndex, offset: number): string | undefined {
    if (index !== BAR) return undefined;
    const at = offset & 0xfff;
    switch (offset - at) {
      case PAGE_COMMON:
        return COMMON_CONFIG.nameAt(at);
      case PAGE_ISR:
        return "ISR status";
      case PAGE_DEVICE:
        return `device configuration +${hex(at)}`;
      case PAGE_NOTIFY:
        return `notification of queue ${Math.floor(at / NOTIFY_OFF_MULTIPLIER)}`;
      case PAGE_MSIX_TABLE:
        return nameTableEntry(at);
      case PAGE_MSIX_PBA:
        return "MSI-X pending bits";
      default:
        return undefined;
    }
  }

  barPlaced(index: BarIndex, address: Gpa | undefined): void {
    if (index !== BAR) return;
    for (const doorbell of this.#doorbells) doorbell.unregister();
    this.#doorbells = [];
    if (address === undefined) return;
    this.#doorbells = this.#device.queueSizes.flatMap((_, queue) => {
      const doorbell = gpa(address + PAGE_NOTIFY + NOTIFY_OFF_MULTIPLIER * queue);
      try {
        // Any width: KVM finds such a doorbell by the address alone, without decoding the guest's instruction.
        return [this.#options.doorbells.register(doorbell, 0, () => this.#common.notify(queue))];
      } catch (error) {
        if (!(error instanceof HostError)) throw error;
        this.#reportOnce("not all queues have doorbells: notifications exit, which takes longer", {
          queue,
          error: error.message,
        });
        return [];
      }
    });
  }

  /** How its queues and vectors are set up; plain data. Reads no register that a read changes. */
  inspect(): VirtioInspection {
    return { deviceId: this.#device.deviceId, isr: this.#isr, ...this.#common.inspect() };
  }

  inspectVectors(): FunctionVectors {
    return { msix: this.#msix.inspect() };
  }

  reset(): void {
    this.#common.reset();
    this.#msix.reset();
    this.#setIsr(0);
  }

  close(): void {
    this.barPlaced(BAR, undefined);
    this.reset();
    this.#device.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #addCapability(kind: number, offset: number, length: number): number {
    const hasMore = kind === VIRTIO_PCI_CAP_NOTIFY_CFG || kind === VIRTIO_PCI_CAP_PCI_CFG;
    const size = hasMore ? CAP.size + 4 : CAP.size;
    const body = new Uint8Array(size - 2);
    body[0] = size; // cap_len, at 2
    body[1] = kind; // cfg_type, at 3
    const at = this.config.addCapability(PCI_CAP_ID_VNDR, body);
    this.config.set8(at + CAP.bar, BAR);
    this.config.set32(at + CAP.offset, offset);
    this.config.set32(at + CAP.length, length);
    return at;
  }

  /** The window in configuration space to the BAR, for drivers that cannot map it. VIRTIO 1.2 §4.1.4.9 */
  #openWindow(): void {
    const { config } = this;
    const at = this.#pciCfg;
    config.allowWrites(at + CAP.bar, 1, 0xff);
    config.allowWrites(at + CAP.offset, 4, 0xffff_ffff);
    config.allowWrites(at + CAP.length, 4, 0xffff_ffff);
    config.overlay(at + CAP.pci_cfg_data, 4, {
      read: (offset, width) => {
        const target = this.#windowTarget();
        if (target === undefined) return 0;
        const shift = 8 * (offset - at - CAP.pci_cfg_data);
        const value = this.readBar(BAR, target.offset, target.width) >>> shift;
        return width === 4 ? value : value & (width === 2 ? 0xffff : 0xff);
      },
      write: (offset, width, value) => {
        const target = this.#windowTarget();
        if (target === undefined || offset !== at + CAP.pci_cfg_data || width < target.width) return;
        const kept = target.width === 4 ? value : value & (target.width === 2 ? 0xffff : 0xff);
        this.writeBar(BAR, target.offset, target.width, kept);
      },
    });
  }

  /** Where the window leads; `undefined` unless it is an aligned access of 1, 2 or 4 bytes inside the BAR. */
  #windowTarget(): { readonly offset: number; readonly width: Width } | undefined {
    const offset = this.config.get32(this.#pciCfg + CAP.offset);
    const width = this.config.get32(this.#pciCfg + CAP.length);
    if (this.config.get8(this.#pciCfg + CAP.bar) !== BAR) return undefined;
    if ((width !== 1 && width !== 2 && width !== 4) || offset % width !== 0) return undefined;
    return offset + width <= BAR_BYTES ? { offset, width } : undefined;
  }

  #interrupt(kind: "queue" | "config", vector: number): void {
    // The configuration bit is set in either mode, the queue bit only for the pin (§4.1.4.5.1).
    if (kind === "config") this.#setIsr(this.#isr | ISR_CONFIG);
    else if (!this.#msix.isEnabled) this.#setIsr(this.#isr | ISR_QUEUE);
    if (this.#msix.isEnabled) this.#msix.signal(vector); // a vector that is not there, NO_VECTOR too, is silent
  }

  /** Reading the ISR clears it and so lowers the pin. VIRTIO 1.2 §4.1.4.5 */
  #takeIsr(): number {
    const isr = this.#isr;
    this.#setIsr(0);
    return isr;
  }

  #setIsr(isr: number): void {
    this.#isr = isr;
    this.#updateLine();
  }

  /**
   * Makes the pin and the status register's interrupt bit agree with ISR, MSI-X enable and the command register's
   * disable bit.
   */
  #updateLine(): void {
    const isAsking = this.#isr !== 0 && !this.#msix.isEnabled;
    const status = this.config.get16(PCI_STATUS) & ~PCI_STATUS_INTERRUPT;
    this.config.set16(PCI_STATUS, isAsking ? status | PCI_STATUS_INTERRUPT : status);
    const isDisabled = (this.config.get16(PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE) !== 0;
    const isHigh = isAsking && !isDisabled;
    if (isHigh === this.#isLineHigh) return;
    this.#isLineHigh = isHigh;
    this.#options.line.setLevel(isHigh);
  }

  #reportOnce(text: string, details: Readonly<Record<string, unknown>> | undefined): void {
    if (this.#reported.has(text)) return;
    this.#reported.add(text);
    this.#options.report("warn", `${this.name}: ${text}`, details);
  }
}
