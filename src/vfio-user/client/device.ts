import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import type { FdWatch, FdWatcher } from "../../base/signals.ts";
import { type Fd, PAGE_SIZE, type Width } from "../../base/units.ts";
import { closeAll, DescriptorSocket } from "../../host/descriptor-socket.ts";
import { MAX_DESCRIPTORS } from "../../host/rights.ts";
import { connectTo } from "../../host/unix-socket.ts";
import {
  type DeviceBackend,
  INTERRUPT_KINDS,
  type InterruptInfo,
  type InterruptKind,
  type MappedRegion,
  type RegionArea,
  type RegionInfo,
  type ResetMethod,
  VFIO_PCI_CONFIG_REGION_INDEX,
} from "../../passthrough/backend.ts";
import { PCI_CFG_SPACE_SIZE } from "../../pci/ids.ts";
import { DEVICE_INFO, VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET } from "../../vfio/abi.ts";
import { vfioStruct } from "../../vfio/calls.ts";
import { NO_INTERRUPT } from "../../vfio/irqs.ts";
import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  DEFAULT_MAX_MSG_FDS,
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_MAJOR,
  VFIO_USER_MINOR,
  VFIO_USER_VERSION,
} from "../protocol/abi.ts";
import { decodeVersion, encodeVersion } from "../protocol/version.ts";
import { UserWire } from "../protocol/wire.ts";
import { UserChannel } from "./channel.ts";
import { disableUserInterrupts, maskUserIntx, queryUserInterrupt, setUserTriggers } from "./interrupts.ts";
import { answerDma, type SharedMemory, shareMemory, unshareMemory } from "./memory.ts";
import { mapUserRegion, queryUserRegion, readUserRegion, type UserRegion, writeUserRegion } from "./region.ts";
import { WaitBudget } from "./wait-budget.ts";

export interface UserDeviceOptions {
  /** As messages call it. */
  readonly name: string;
  /** Where its server listens. */
  readonly socket: string;
  /** What the device reaches by DMA. */
  readonly memory: SharedMemory;
  readonly watcher: FdWatcher;
  readonly report: Report;
  /** The server is gone, hangs, or talks nonsense; called once at most, and not before the constructor is through. */
  readonly onLost: (reason: string) => void;
  /** How long the server may take, in milliseconds, as {@link WaitBudget} counts it; Infinity: as long as it likes. */
  readonly timeoutMs?: number;
  /** How often the device thread's loop has come round; each message counts as a turn when absent. */
  readonly turns?: () => number;
  /** A time of `performance.now()` after which the server is not waited for any more; it may change. */
  readonly cutOff?: () => number;
}

const DEFAULT_TIMEOUT_MS = 5000;

/**
 * A device whose other end is a process: a vfio-user 0.1 server behind a unix socket. It is to the rest of this folder what a device of the
 * kernel's is. Guest RAM is shared with the server from the first moment to {@link close}.
 *
 * When the server is lost, reads answer `undefined`, writes false, and switching things off does nothing.
 */
export class UserDevice implements DeviceBackend {
  readonly name: string;
  readonly #channel: UserChannel;
  readonly #memory: SharedMemory;
  readonly #regions: UserRegion[] = [];
  readonly #interrupts: Map<InterruptKind, InterruptInfo> = new Map();
  readonly #maxDescriptors: number;
  readonly #canReset: boolean;
  readonly #watch: FdWatch;
  #messages = 0;
  #isNegotiated = false;
  #isReady = false;
  #isClosed = false;

  /** @throws HostError when nobody listens, or the server is none that can be used; nothing is left behind then. */
  constructor(options: UserDeviceOptions) {
    const { name, memory } = options;
    this.name = name;
    this.#memory = memory;
    const wire = new UserWire(new DescriptorSocket(connectTo(options.socket)), options.cutOff);
    const watch = options.watcher.watch(wire.fd, "input", () => this.#channel.pump());
    this.#watch = watch;
    this.#channel = new UserChannel({
      name,
      wire,
      budget: new WaitBudget({
        limitMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
        turns: options.turns ?? (() => ++this.#messages),
      }),
      onCommand: (command, payload) => answerDma(memory, command, payload),
      onLost: (reason) => {
        watch.close();
        if (this.#isReady) options.onLost(reason);
      },
    });
    try {
      this.#maxDescriptors = this.#negotiate();
      this.#isNegotiated = true;
      const { flags, regions, kinds } = this.#queryInfo();
      this.#canReset = (flags & VFIO_DEVICE_FLAGS_RESET) !== 0;
      for (let index = 0; index < regions; index++) this.#regions.push(queryUserRegion(this.#channel, index));
      const config = this.#regions[VFIO_PCI_CONFIG_REGION_INDEX]?.info.sizeBytes ?? 0;
      if (config < PCI_CFG_SPACE_SIZE) throw new HostError(`Cannot use ${name}: it has no configuration space`);
      for (const kind of INTERRUPT_KINDS) {
        this.#interrupts.set(kind, queryUserInterrupt(this.#channel, kind, kinds));
      }
      shareMemory(this.#channel, memory);
      if (this.#canReset) this.#channel.request(VFIO_USER_DEVICE_RESET, new Uint8Array(0));
      this.#isReady = true;
    } catch (error) {
      const isTurnedAway = !this.#isNegotiated && this.#channel.isSilent && error instanceof HostError;
      this.close();
      throw isTurnedAway ? new HostError(error.message, "does it serve another machine already?") : error;
    }
  }

  /** True when the server is gone for good. */
  get isLost(): boolean {
    return this.#channel.isLost;
  }

  region(index: number): RegionInfo | undefined {
    return this.#regions[index]?.info;
  }

  interrupt(kind: InterruptKind): InterruptInfo {
    return this.#interrupts.get(kind) ?? NO_INTERRUPT;
  }

  readRegion(index: number, offset: number, width: Width): number | undefined {
    if (!this.#answers(index, offset, width)) return undefined;
    return attempt(() => readUserRegion(this.#channel, index, offset, width));
  }

  writeRegion(index: number, offset: number, width: Width, value: number): boolean {
    if (!this.#answers(index, offset, width)) return false;
    const isPosted = index !== VFIO_PCI_CONFIG_REGION_INDEX;
    return (
      attempt(() => {
        writeUserRegion(this.#channel, index, offset, width, value, isPosted);
        return true;
      }) ?? false
    );
  }

  mapRegion(index: number, area: RegionArea): MappedRegion {
    const region = this.#regions[index];
    if (region === undefined) throw new RangeError(`Cannot map region ${index} of ${this.name}: it has none`);
    return mapUserRegion(`BAR ${index} of ${this.name}`, region, area);
  }

  setTrigger(kind: InterruptKind, start: number, triggers: readonly Fd[]): void {
    setUserTriggers(this.#channel, kind, start, triggers, this.#maxDescriptors);
  }

  disableInterrupts(kind: InterruptKind): void {
    if (this.interrupt(kind).count === 0 || this.#channel.isLost) return;
    disableUserInterrupts(this.#channel, kind);
  }

  maskIntx(): void {
    maskUserIntx(this.#channel, "mask");
  }

  unmaskIntx(): void {
    maskUserIntx(this.#channel, "unmask");
  }

  setIntxResample(resample: Fd): void {
    maskUserIntx(this.#channel, { unmaskOn: resample });
  }

  setErrorEvent(event: Fd): void {
    this.setTrigger("error", 0, [event]);
  }

  setRequestEvent(event: Fd): void {
    this.setTrigger("request", 0, [event]);
  }

  reset(): ResetMethod | false {
    if (!this.#canReset || this.#channel.isLost) return false;
    this.#channel.request(VFIO_USER_DEVICE_RESET, new Uint8Array(0));
    return "vfio-user";
  }

  /** Takes guest RAM back from the server, then hangs up. Calling it twice is harmless. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const hasMemory = this.#isReady && !this.#channel.isLost;
    this.#isReady = false; // what becomes of the server now is nobody's concern
    if (hasMemory) attempt(() => unshareMemory(this.#channel, this.#memory));
    this.#watch.close();
    this.#channel.close();
    closeAll(this.#regions.flatMap(({ file }) => (file === undefined ? [] : [file])));
  }

  /** Agrees on a version. @returns How many descriptors the server takes with a message. */
  #negotiate(): number {
    const offer = encodeVersion({
      maxMessageDescriptors: MAX_DESCRIPTORS,
      maxTransferBytes: DEFAULT_MAX_DATA_XFER_SIZE,
      pageSizes: PAGE_SIZE,
    });
    const reply = this.#channel.request(VFIO_USER_VERSION, offer);
    const version = decodeVersion(new Uint8Array(reply.buffer, reply.byteOffset, reply.byteLength));
    if (version === undefined) throw this.#channel.lose("its server's version cannot be understood");
    const { major, minor, capabilities } = version;
    if (major !== VFIO_USER_MAJOR || minor > VFIO_USER_MINOR) {
      throw this.#channel.lose(`its server speaks vfio-user ${major}.${minor}, not 0.1`);
    }
    return Math.min(MAX_DESCRIPTORS, Math.max(1, capabilities.maxMessageDescriptors ?? DEFAULT_MAX_MSG_FDS));
  }

  #queryInfo(): { readonly flags: number; readonly regions: number; readonly kinds: number } {
    const { bytes } = vfioStruct(DEVICE_INFO.size);
    const view = this.#channel.request(VFIO_USER_DEVICE_GET_INFO, bytes);
    if (view.byteLength < DEVICE_INFO.size) throw this.#channel.lose("its server answers DEVICE_GET_INFO too shortly");
    const flags = view.getUint32(DEVICE_INFO.flags, true);
    if ((flags & VFIO_DEVICE_FLAGS_PCI) === 0) throw new HostError(`Cannot use ${this.name}: it is not a PCI device`);
    const regions = Math.min(view.getUint32(DEVICE_INFO.num_regions, true), VFIO_PCI_CONFIG_REGION_INDEX + 1);
    return { flags, regions, kinds: view.getUint32(DEVICE_INFO.num_irqs, true) };
  }

  #answers(index: number, offset: number, width: Width): boolean {
    return !this.#channel.isLost && offset + width <= (this.#regions[index]?.info.sizeBytes ?? 0);
  }
}

/** `undefined` where the server refuses or is lost: the guest sees a device that does not answer. */
function attempt<Result>(work: () => Result): Result | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof HostError) return undefined;
    throw error;
  }
}
