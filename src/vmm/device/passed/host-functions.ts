import { invariant } from "../../../base/invariant.ts";
import { UndoStack } from "../../../base/undo-stack.ts";
import type { DeviceBackend, DeviceSource } from "../../../passthrough/backend.ts";
import { PassthroughFunction, type PassthroughHost } from "../../../passthrough/function.ts";
import { withRom } from "../../../passthrough/rom.ts";
import { parseBdf } from "../../../pci/bdf.ts";
import type { PlanDma } from "../../shared/plan.ts";
import { type ResolvedDevice, sourceFunction } from "../../shared/resolved-machine.ts";
import { DEVICE_STEP_SECONDS } from "../../shared/thread-progress.ts";
import { reportFunction } from "./function-facts.ts";
import type { PassedFunction } from "./passed-functions.ts";
import { groupBySlot } from "./passthrough-slots.ts";
import { PeerDma } from "./peer-dma.ts";
import { type DmaMemory, mapRamForDma } from "./ram-dma.ts";
import type { ErrorPolicy } from "./removals.ts";
import { readRom } from "./rom-file.ts";

/** Told of a step of closing before it is made, with the seconds that the kernel may sleep in it. */
export type OnStep = (text: string, allowanceSeconds: number) => void;

/** What a board's functions of the host are made of. */
export interface HostFunctionsParts {
  readonly devices: readonly ResolvedDevice[];
  /** Opened for these devices; it belongs to the {@link HostFunctions} from now on. */
  readonly source: DeviceSource;
  readonly memory: DmaMemory;
  readonly host: Omit<PassthroughHost, "peerDma">;
  /** Runs work in the device thread's next turn. */
  readonly defer: (work: () => void) => void;
  /** The host reports an error of a function; by its id. */
  readonly onError: (id: string, policy: ErrorPolicy) => void;
  /** The host wants a function back, and waits; by its id, again and again. */
  readonly onRequest: (id: string) => void;
  readonly onStep: OnStep;
}

/** Functions that go into one slot; any free one where the user named none. */
export interface PassthroughGroup {
  readonly slot: number | undefined;
  readonly members: readonly { readonly function: PassthroughFunction; readonly functionNumber: number }[];
}

interface OpenFunction {
  readonly device: ResolvedDevice;
  readonly backend: DeviceBackend;
  readonly function: PassthroughFunction;
}

/**
 * The functions of the host that a board has, with all that they share: the source they come from, and guest RAM in its
 * addresses.
 */
export class HostFunctions implements Disposable {
  /** How long it took to map guest RAM. */
  readonly dma: PlanDma;
  readonly #source: DeviceSource;
  readonly #onStep: OnStep;
  readonly #opened: readonly OpenFunction[];
  readonly #isReleased = new Set<OpenFunction>();

  /**
   * Opens all functions; those that opening did not reset are reset with their bus. BARs are mapped for the other
   * devices' DMA only where there are other devices: a graphics card and its sound are one.
   *
   * @throws HostError with advice; everything is given back then.
   */
  constructor(parts: HostFunctionsParts) {
    const { devices, source, memory, host } = parts;
    this.#source = source;
    this.#onStep = parts.onStep;
    const opened: OpenFunction[] = [];
    this.#opened = opened;
    const undo = new UndoStack();
    undo.own(source);
    try {
      const backends = devices.map((device) =>
        undo.own(source.open(sourceFunction(device)), (backend) => backend.close()),
      );
      // All are open and none is used yet: the only moment, but for the end, when a whole bus may be reset.
      source.resetBuses("warn");
      const peerDma = new PeerDma(source, { defer: parts.defer, nowMs: () => performance.now() });
      const withPeers: PassthroughHost = { ...host, peerDma };
      for (const [index, device] of devices.entries()) {
        const backend = backends[index];
        if (backend === undefined) continue; // there is one for each
        const handlers = {
          onError: () => parts.onError(device.id, device.onError ?? "report"),
          onRequest: () => parts.onRequest(device.id),
        };
        const shown = withRom(backend, readRom(backend.name, device.rom));
        const wired = hasPeers(device, devices) ? withPeers : host;
        const fn = undo.own(new PassthroughFunction(shown, device, wired, handlers));
        opened.push({ device, backend, function: fn });
      }
      this.dma = mapRamForDma(memory, source, host.report);
    } catch (error) {
      throw undo.after(error);
    }
    for (const { function: fn } of opened) reportFunction(fn, host.report);
  }

  /** In the order of the devices. */
  get passed(): readonly PassedFunction[] {
    return this.#opened.map((one) => {
      return { id: one.device.id, function: one.function, isOfHost: true, release: () => this.#release(one) };
    });
  }

  /** Which functions belong into one slot of the guest. */
  groups(): readonly PassthroughGroup[] {
    const wishes = this.#opened.map(({ device: { host, pciSlot } }) => {
      const address = parseBdf(host.bdf);
      invariant(address !== undefined, `${host.bdf} is no address of a PCI function`);
      return { host: address, isVirtual: host.physicalFunction !== undefined, slot: pciSlot };
    });
    return groupBySlot(wishes).map(({ slot, members }) => ({
      slot,
      members: members.flatMap(({ index, functionNumber }) => {
        const found = this.#opened[index];
        return found === undefined ? [] : [{ function: found.function, functionNumber }];
      }),
    }));
  }

  /**
   * Gives everything back, after a reset of the functions that closing alone does not reset. The guest must have
   * stopped.
   */
  close(): void {
    const open = this.#opened.filter((one) => !this.#isReleased.has(one)).reverse();
    for (const { function: fn } of open) fn.retire();
    this.#onStep("buses are reset", DEVICE_STEP_SECONDS);
    // What was said at the start need not be said again.
    this.#source.resetBuses("debug");
    for (const { function: fn } of open) {
      this.#onStep(`the kernel resets ${fn.name} and takes it back`, DEVICE_STEP_SECONDS);
      fn.close();
    }
    this.#onStep("guest RAM leaves the IOMMU", 0); // the kernel works all the time, and shows that as progress
    this.#source.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** The host may be waiting for the function, and for its group: that goes with its last function. */
  #release(released: OpenFunction): void {
    this.#isReleased.add(released);
    released.function.close();
    this.#source.release(released.backend);
  }
}

/**
 * Whether other devices should reach this one's memory: functions of another slot of the host, where the user has not
 * chosen. Virtual functions are slots of their own.
 */
function hasPeers(device: ResolvedDevice, devices: readonly ResolvedDevice[]): boolean {
  if (device.p2p !== undefined) return device.p2p && devices.length > 1;
  return devices.some((other) => slotOf(other.host) !== slotOf(device.host));
}

const slotOf = ({ bdf, physicalFunction }: ResolvedDevice["host"]): string =>
  physicalFunction === undefined ? bdf.slice(0, bdf.lastIndexOf(".")) : bdf;
