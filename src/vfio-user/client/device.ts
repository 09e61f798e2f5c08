import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import type { FdWatch, FdWatcher } from "../../base/signals.ts";
import { allOrNothing } from "../../base/undo-stack.ts";
import type { Fd, Halves, Width } from "../../base/units.ts";
import { closeAll, DescriptorSocket } from "../../host/descriptor-socket.ts";
import { SyscallError } from "../../host/errors.ts";
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
import { PCI_CFG_SPACE_EXP_SIZE, PCI_CFG_SPACE_SIZE } from "../../pci/ids.ts";
import { NO_INTERRUPT } from "../../vfio/irqs.ts";
import { VFIO_USER_DEVICE_RESET } from "../protocol/abi.ts";
import { UserWire } from "../protocol/wire.ts";
import { UserChannel } from "./channel.ts";
import {
  disableUserInterrupts,
  maskUserIntx,
  queryUserInterrupt,
  setUserTriggers,
  unmaskUserVectors,
} from "./interrupts.ts";
import { answerDma, type SharedMemory, shareMemory, unshareMemory } from "./memory.ts";
import { MessageControls } from "./message-control.ts";
import { negotiate, queryUserDevice, type ServerLimits } from "./negotiation.ts";
import {
  mapUserRegion,
  postUserWide,
  queryUserRegion,
  readUserBytes,
  type UserRegion,
  writeUserRegion,
} from "./region.ts";
import { WaitBudget } from "./wait-budget.ts";

export interface UserDeviceOptions {
  /** As messages call it. */
  readonly name: string;
  /** Where its server listens, or a connection to it, which is the device's from then on. */
  readonly socket: string | DescriptorSocket;
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
const REGISTER_BYTES = 4;

/**
 * `DeviceBackend` for a vfio-user 0.1 server on a Unix socket. Guest RAM is shared with the server from the first
 * moment to {@link close}.
 *
 * When the server is lost, reads answer `undefined`, writes false, and switching things off does nothing.
 */
export class UserDevice implements DeviceBackend, Disposable {
  readonly name: string;
  readonly #channel: UserChannel;
  readonly #memory: SharedMemory;
  readonly #regions: UserRegion[] = [];
  readonly #interrupts: Map<InterruptKind, InterruptInfo> = new Map();
  readonly #limits: ServerLimits;
  readonly #canReset: boolean;
  readonly #controls: MessageControls;
  readonly #watch: FdWatch;
  /**
   * Configuration space, read in one message, until the first message that may change it. A start reads all of it,
   * register by register.
   */
  #image: Uint8Array | undefined;
  #hasVectorMasks = true;
  #messages = 0;
  #isNegotiated = false;
  #isReady = false;
  #isClosed = false;

  /** @throws HostError without a listener, and for a server that cannot be used; nothing is left open then. */
  constructor(options: UserDeviceOptions) {
    const { name, memory } = options;
    this.name = name;
    this.#memory = memory;
    const { socket } = options;
    const { wire, watch } = allOrNothing((undo) => {
      const connection = undo.own(typeof socket === "string" ? new DescriptorSocket(connectTo(socket)) : socket);
      const wire = new UserWire(connection, options.cutOff);
      return { wire, watch: options.watcher.watch(wire.fd, "input", () => this.#channel.pump()) };
    });
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
      this.#limits = negotiate(this.#channel);
      this.#isNegotiated = true;
      const { canReset, regions, kinds } = queryUserDevice(this.#channel, name);
      this.#canReset = canReset;
      for (let index = 0; index < Math.min(regions, VFIO_PCI_CONFIG_REGION_INDEX + 1); index++) {
        this.#regions.push(queryUserRegion(this.#channel, index));
      }
      const config = this.#regions[VFIO_PCI_CONFIG_REGION_INDEX]?.info.sizeBytes ?? 0;
      if (config < PCI_CFG_SPACE_SIZE)
        throw new HostError("TSVMM_USER_DEVICE_UNSUITABLE", `Cannot use ${name}: it has no configuration space`);
      for (const kind of INTERRUPT_KINDS) {
        this.#interrupts.set(kind, queryUserInterrupt(this.#channel, kind, kinds));
      }
      shareMemory(this.#channel, memory, this.#limits.maxDescriptors > 0);
      if (this.#canReset) this.#channel.request(VFIO_USER_DEVICE_RESET, new Uint8Array(0));
      this.#image = this.#readConfig();
      this.#controls = new MessageControls(this.#image, (offset, value) => {
        this.writeRegion(VFIO_PCI_CONFIG_REGION_INDEX, offset, 2, value);
      });
      this.#isReady = true;
    } catch (error) {
      const isTurnedAway = !this.#isNegotiated && this.#channel.isSilent && error instanceof HostError;
      this.close();
      throw isTurnedAway ? new HostError(error.code, error.message, "does it serve another machine already?") : error;
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
    const isKnown = index === VFIO_PCI_CONFIG_REGION_INDEX && offset + width <= (this.#image?.length ?? 0);
    if (isKnown && this.#image !== undefined) return littleEndian(this.#image.subarray(offset, offset + width));
    return attempt(() => littleEndian(readUserBytes(this.#channel, index, offset, width)));
  }

  writeRegion(index: number, offset: number, width: Width, value: number): boolean {
    if (!this.#answers(index, offset, width)) return false;
    this.#image = undefined;
    const isPosted = index !== VFIO_PCI_CONFIG_REGION_INDEX;
    return (
      attempt(() => {
        writeUserRegion(this.#channel, index, offset, width, value, isPosted);
        return true;
      }) ?? false
    );
  }

  readWide(index: number, offset: number): Halves | undefined {
    if (!this.#answers(index, offset, 8)) return undefined;
    return attempt(() => {
      const bytes = readUserBytes(this.#channel, index, offset, 8);
      return { low: littleEndian(bytes.subarray(0, 4)), high: littleEndian(bytes.subarray(4)) };
    });
  }

  writeWide(index: number, offset: number, value: Halves): boolean {
    if (!this.#answers(index, offset, 8)) return false;
    this.#image = undefined;
    const write = (): boolean => {
      postUserWide(this.#channel, index, offset, value);
      return true;
    };
    return attempt(write) ?? false;
  }

  readBytes(index: number, target: Uint8Array): number {
    let done = 0;
    while (done < target.length) {
      const count = Math.min(target.length - done, this.#limits.maxTransferBytes);
      if (!this.#answers(index, done, count)) break;
      const piece = attempt(() => readUserBytes(this.#channel, index, done, count));
      if (piece === undefined) break;
      target.set(piece, done);
      done += count;
    }
    return done;
  }

  mapRegion(index: number, area: RegionArea): MappedRegion {
    const region = this.#regions[index];
    if (region === undefined) throw new RangeError(`Cannot map region ${index} of ${this.name}: it has none`);
    return mapUserRegion(`BAR ${index} of ${this.name}`, region, area);
  }

  setTrigger(kind: InterruptKind, start: number, triggers: readonly Fd[]): void {
    this.#image = undefined;
    setUserTriggers(this.#channel, kind, start, triggers, this.#limits.maxDescriptors);
    if (kind !== "msi" && kind !== "msix") return;
    const vectors = start + triggers.length;
    this.#controls.enable(kind, vectors);
    // QEMU's server begins with every vector of MSI-X masked. Servers without such masks may refuse, and are not asked
    // again.
    if (kind === "msix" && this.#hasVectorMasks) {
      const unmask = (): boolean => {
        unmaskUserVectors(this.#channel, kind, vectors);
        return true;
      };
      this.#hasVectorMasks = attempt(unmask) ?? false;
    }
  }

  disableInterrupts(kind: InterruptKind): void {
    if (this.interrupt(kind).count === 0 || this.#channel.isLost) return;
    if (kind === "msi" || kind === "msix") this.#controls.disable(kind);
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
    this.#image = undefined;
    this.#channel.request(VFIO_USER_DEVICE_RESET, new Uint8Array(0));
    return "vfio-user";
  }

  /** Takes guest RAM back from the server, then hangs up. Calling it twice is harmless. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const hasMemory = this.#isReady && !this.#channel.isLost;
    this.#isReady = false; // a loss of the server is not reported from now on
    if (hasMemory) attempt(() => unshareMemory(this.#channel, this.#memory));
    this.#watch.close();
    this.#channel.close();
    closeAll(this.#regions.flatMap(({ file }) => (file === undefined ? [] : [file])));
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** @returns The whole configuration space, read in as many messages as the server's limit needs. */
  #readConfig(): Uint8Array {
    const { info } = this.#regions[VFIO_PCI_CONFIG_REGION_INDEX] ?? {};
    const isExtended = (info?.sizeBytes ?? 0) >= PCI_CFG_SPACE_EXP_SIZE;
    const image = new Uint8Array(isExtended ? PCI_CFG_SPACE_EXP_SIZE : PCI_CFG_SPACE_SIZE);
    const step = Math.min(image.length, this.#limits.maxTransferBytes & ~3);
    for (let at = 0; at < image.length; at += step) {
      const count = Math.min(step, image.length - at);
      image.set(this.#readConfigPiece(at, count), at);
    }
    return image;
  }

  /** A server may refuse long reads, or registers; those read as all ones, as on a bus. */
  #readConfigPiece(at: number, count: number): Uint8Array {
    try {
      return readUserBytes(this.#channel, VFIO_PCI_CONFIG_REGION_INDEX, at, count);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      const piece = new Uint8Array(count).fill(0xff);
      if (count > REGISTER_BYTES) {
        for (let offset = 0; offset < count; offset += REGISTER_BYTES) {
          piece.set(this.#readConfigPiece(at + offset, REGISTER_BYTES), offset);
        }
      }
      return piece;
    }
  }

  #answers(index: number, offset: number, width: number): boolean {
    return !this.#channel.isLost && offset + width <= (this.#regions[index]?.info.sizeBytes ?? 0);
  }
}

function littleEndian(bytes: Uint8Array): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
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
