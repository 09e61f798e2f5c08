import type { Report } from "../base/backends.ts";
import type { Bus, BusDevice, BusRange } from "../base/bus.ts";
import { ALL_ONES_WIDE, allOnes, type Gsi, gpa, hex, TWO_POW_32, type Width } from "../base/units.ts";
import { type BarMove, type BarPlace, BarSet } from "./bar.ts";
import { isInside, type PciWindows, placeBars } from "./bar-placement.ts";
import { type Bdf, formatBdf } from "./bdf.ts";
import { nameConfigRegister } from "./config-names.ts";
import { type BarIndex, type BarRequest, type PciFunction, ROM_BAR } from "./function.ts";
import { PCI_BASE_ADDRESS_0, PCI_COMMAND, PCI_INTERRUPT_LINE, PCI_INTERRUPT_PIN, PCI_ROM_ADDRESS } from "./ids.ts";

const SLOT_COUNT = 32;
const FUNCTION_COUNT = 8;

/** A function in its slot. */
export interface PluggedFunction {
  readonly bdf: Bdf;
  readonly function: PciFunction;
  readonly bars: BarSet;
  /** Whether a BAR is on its bus: decode is on, and its place was free. */
  readonly isDecoded: (index: BarIndex) => boolean;
}

/** A BAR that found no room in the windows. */
export interface UnplacedBar {
  readonly function: PciFunction;
  readonly request: BarRequest;
}

/** What a root is made of. */
export interface PciRootOptions {
  readonly ports: Bus;
  readonly mmio: Bus;
  /**
   * BARs are decoded inside these only: elsewhere are RAM, interrupt controllers and tables that no bus range shows.
   */
  readonly windows: PciWindows;
  /** Which GSI pin 1 to 4 (INTA to INTD) of a slot drives. The `_PRT` must say the same. */
  readonly gsiOf: (slot: number, pin: number) => Gsi;
  readonly report?: Report;
}

/** Where a BAR is on a bus now, and what is known of it besides. */
interface BarState {
  readonly request: BarRequest;
  readonly device: BusDevice;
  attached: { readonly bus: Bus; readonly range: BusRange } | undefined;
  isReported: boolean;
}

interface Plugged extends PluggedFunction {
  readonly states: ReadonlyMap<BarIndex, BarState>;
}

/**
 * PCI bus 0: slots, configuration accesses, and where BARs are decoded.
 *
 * A guest write to a command or base address register first takes the moved BARs off their bus. Then the function's own
 * observers see the write. Then the BARs go to their new place. A BAR whose place is taken or outside the windows is
 * parked: it is not on the bus. It is reported once, and tried again after every such write. Device thread only.
 */
export class PciRoot implements Disposable {
  readonly #options: PciRootOptions;
  readonly #slots: (Plugged | undefined)[] = new Array(SLOT_COUNT * FUNCTION_COUNT).fill(undefined);
  readonly #order: Plugged[] = []; // as plugged
  readonly #gsiOf: (slot: number, pin: number) => Gsi;

  constructor(options: PciRootOptions) {
    this.#options = options;
    this.#gsiOf = options.gsiOf;
  }

  /** What is plugged, by slot and function. */
  get functions(): readonly PluggedFunction[] {
    return this.#slots.filter((plugged) => plugged !== undefined);
  }

  /**
   * Puts a function into a slot, before the guest starts.
   *
   * @param slot 0 to 31; the first empty one from 1 when absent (0 is the host bridge's).
   * @throws RangeError when the place is taken or does not exist, no slot is empty, or the BAR requests are impossible.
   */
  plug(pciFunction: PciFunction, slot?: number, functionNumber = 0): PluggedFunction {
    const device = slot ?? this.#freeSlot();
    const index = device * FUNCTION_COUNT + functionNumber;
    const isPlace = device >= 0 && device < SLOT_COUNT && functionNumber >= 0 && functionNumber < FUNCTION_COUNT;
    if (!isPlace || this.#slots[index] !== undefined) {
      const reason = isPlace ? `${this.#slots[index]?.function.name} is there` : "there is no such place";
      throw new RangeError(`Cannot plug ${pciFunction.name} into slot ${device}.${functionNumber}: ${reason}`);
    }
    const { config } = pciFunction;
    const bars = new BarSet(config, pciFunction.barRequests);
    const states = new Map(bars.requests.map((request) => [request.index, barState(pciFunction, request)]));
    const bdf: Bdf = { segment: 0, bus: 0, device, function: functionNumber };
    const isDecoded = (index: BarIndex): boolean => states.get(index)?.attached !== undefined;
    const plugged: Plugged = { bdf, function: pciFunction, bars, states, isDecoded };
    const pin = config.get8(PCI_INTERRUPT_PIN);
    if (pin !== 0) config.set8(PCI_INTERRUPT_LINE, this.#gsiOf(device, pin));
    config.capture();
    for (const [offset, length] of [
      [PCI_COMMAND, 2],
      [PCI_BASE_ADDRESS_0, 24],
      [PCI_ROM_ADDRESS, 4],
    ] as const) {
      config.onWrite(offset, length, () => this.#lift(plugged, bars.moves()), "first");
      config.onWrite(offset, length, () => this.#settle(plugged));
    }
    this.#slots[index] = plugged;
    this.#order.push(plugged);
    this.#markMultifunction(device);
    return plugged;
  }

  /**
   * Takes a function out of its slot while the guest runs: configuration accesses to it answer all ones, its BARs are
   * off the buses. It is the caller's to close.
   *
   * @returns `undefined` when nothing is plugged there.
   */
  unplug(slot: number, functionNumber: number): PciFunction | undefined {
    const index = slot * FUNCTION_COUNT + functionNumber;
    const plugged = this.#slots[index];
    if (plugged === undefined) return undefined;
    this.#liftAll(plugged);
    this.#slots[index] = undefined;
    this.#order.splice(this.#order.indexOf(plugged), 1);
    this.#placeWaiting(this.#order); // somebody's BAR may have been waiting for the room
    return plugged.function;
  }

  /**
   * Gives every BAR an address, as firmware does before an operating system starts; decode bits stay as they are.
   *
   * @returns BARs that found no room in the windows; they keep address 0, and the guest may still move them.
   */
  assignBars(): readonly UnplacedBar[] {
    const { windows, ports, mmio, report } = this.#options;
    const wishes = this.#order.flatMap((plugged) => plugged.bars.requests.map((request) => ({ plugged, request })));
    const unplaced: UnplacedBar[] = [];
    for (const { wish, address } of placeBars(wishes, windows, { ports, mmio })) {
      const { plugged, request } = wish;
      if (address === undefined) unplaced.push({ function: plugged.function, request });
      else plugged.bars.assign(request, address);
    }
    for (const plugged of this.#order) {
      this.#settle(plugged);
      const { device, function: functionNumber } = plugged.bdf;
      if (functionNumber === 0 || this.#slots[device * FUNCTION_COUNT] !== undefined) continue;
      report?.("warn", `${plugged.function.name} stays invisible: its slot ${device} has no function 0`);
    }
    return unplaced;
  }

  /** A configuration read, through whichever decoder; all ones where nothing is plugged. */
  configRead(bus: number, device: number, functionNumber: number, offset: number, width: Width): number {
    return this.#find(bus, device, functionNumber)?.config.read(offset, width) ?? allOnes(width);
  }

  /** A configuration write; dropped where nothing is plugged. */
  configWrite(bus: number, device: number, functionNumber: number, offset: number, width: Width, value: number): void {
    this.#find(bus, device, functionNumber)?.config.write(offset, width, value);
  }

  /** What a configuration access is about, as text: `00:02.0 disk0 BAR 0`, `00:05.0 empty`. */
  describe(bus: number, device: number, functionNumber: number, offset: number): string {
    const bdf = formatBdf({ segment: 0, bus, device, function: functionNumber }).replace("0000:", "");
    const found = this.#find(bus, device, functionNumber);
    return found === undefined ? `${bdf} empty` : `${bdf} ${found.name} ${nameConfigRegister(found.config, offset)}`;
  }

  /** The GSI that pin 1 to 4 of a slot drives. */
  interruptGsi(slot: number, pin: number): Gsi {
    return this.#gsiOf(slot, pin);
  }

  /** Everything back to power-on, BARs assigned again. */
  reset(): void {
    for (const plugged of this.#order) this.#liftAll(plugged);
    for (const plugged of this.#order) {
      plugged.function.config.restore();
      plugged.function.reset();
      for (const state of plugged.states.values()) state.isReported = false;
    }
    this.assignBars();
  }

  /** Takes everything off the buses and closes the functions, last plugged first. */
  close(): void {
    for (const plugged of this.#order.reverse()) {
      this.#liftAll(plugged);
      plugged.function.close();
    }
    this.#order.length = 0;
    this.#slots.fill(undefined);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #find(bus: number, device: number, functionNumber: number): PciFunction | undefined {
    return bus === 0 ? this.#slots[device * FUNCTION_COUNT + functionNumber]?.function : undefined;
  }

  #freeSlot(): number {
    for (let slot = 1; slot < SLOT_COUNT; slot++) if (this.#inSlot(slot).length === 0) return slot;
    throw new RangeError("Cannot plug another PCI function: all 32 slots of bus 0 are taken");
  }

  #inSlot(slot: number): readonly Plugged[] {
    return this.#order.filter((plugged) => plugged.bdf.device === slot);
  }

  /** A guest looks for functions above 0 only where function 0 says there are any. */
  #markMultifunction(slot: number): void {
    const functions = this.#inSlot(slot);
    for (const plugged of functions) plugged.function.config.isMultifunction = functions.length > 1;
  }

  #lift(plugged: Plugged, moves: readonly BarMove[]): void {
    for (const { request } of moves) {
      const state = plugged.states.get(request.index);
      if (state?.attached === undefined) continue;
      const { bus, range } = state.attached;
      state.attached = undefined;
      plugged.function.barPlaced(request.index, undefined);
      bus.detach(range);
    }
  }

  #liftAll(plugged: Plugged): void {
    const everywhere = plugged.bars.requests.map((request) => ({
      request,
      from: plugged.bars.place(request.index),
      to: { kind: "off" as const },
    }));
    this.#lift(plugged, everywhere);
    plugged.bars.forget();
  }

  #settle(plugged: Plugged): void {
    const moves = plugged.bars.moves();
    // Again, for what an observer of the function changed after the first pass.
    this.#lift(plugged, moves);
    for (const move of moves) plugged.bars.accept(move);
    // The function's own BARs first: the last move wins over BARs that wait for a place to become free.
    this.#placeWaiting([plugged, ...this.#order]);
  }

  #placeWaiting(order: readonly Plugged[]): void {
    for (const plugged of order) {
      for (const state of plugged.states.values()) if (state.attached === undefined) this.#place(plugged, state);
    }
  }

  #place(plugged: Plugged, state: BarState): void {
    const place = plugged.bars.place(state.request.index);
    if (place.kind === "off" || place.kind === "beyond") return;
    const { index, sizeBytes } = state.request;
    const obstacle = this.#obstacle(place, sizeBytes);
    if (obstacle !== undefined) {
      // All ones is what a guest writes to learn the size, without a wish to decode there.
      const isSizing = (place.base + sizeBytes) % TWO_POW_32 === 0;
      if (!state.isReported && !isSizing) {
        const where = `${formatBdf(plugged.bdf)} ${barName(index)} at ${hex(place.base)}+${hex(sizeBytes)}`;
        this.#options.report?.("warn", `${plugged.function.name}: ${where} is not decoded: ${obstacle}`);
        state.isReported = true;
      }
      return;
    }
    const bus = place.kind === "ports" ? this.#options.ports : this.#options.mmio;
    state.attached = { bus, range: bus.attach(place.base, sizeBytes, state.device) };
    plugged.function.barPlaced(index, gpa(place.base));
  }

  /** Why nothing can be decoded there, `undefined` when it can. */
  #obstacle(place: Extract<BarPlace, { base: number }>, sizeBytes: number): string | undefined {
    const { ports, mmio, windows } = this.#options;
    const ranges = place.kind === "ports" ? windows.ports : [...windows.memory32, ...windows.memory64];
    if (!isInside(ranges, place.base, sizeBytes)) return "outside the windows of the PCI root";
    const holder = (place.kind === "ports" ? ports : mmio).holder(place.base, sizeBytes);
    return holder === undefined ? undefined : `${holder.device.name} is there`;
  }
}

const barName = (index: BarIndex): string => (index === ROM_BAR ? "expansion ROM" : `BAR ${index}`);

/** For a function that has both. */
function wideAccesses(pciFunction: PciFunction, index: BarIndex): Pick<BusDevice, "readWide" | "writeWide"> {
  return {
    readWide: (offset) => pciFunction.readBarWide?.(index, offset) ?? ALL_ONES_WIDE,
    writeWide: (offset, value) => pciFunction.writeBarWide?.(index, offset, value),
  };
}

function barState(pciFunction: PciFunction, request: BarRequest): BarState {
  const { index } = request;
  const device: BusDevice = {
    name: `${pciFunction.name} ${barName(index)}`,
    read: (offset, width) => pciFunction.readBar(index, offset, width),
    write: (offset, width, value) => pciFunction.writeBar(index, offset, width, value),
    describe: (offset) => pciFunction.describeBar?.(index, offset),
    ...(pciFunction.readBarWide === undefined ? {} : wideAccesses(pciFunction, index)),
  };
  return { request, device, attached: undefined, isReported: false };
}
