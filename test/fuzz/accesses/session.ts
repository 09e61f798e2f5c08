import type { BusRange } from "../../../src/base/bus.ts";
import { gpa, type Width } from "../../../src/base/units.ts";
import { checkBuses, checkDelivery, checkRoutes, checkVectors, type Modelled } from "./checks.ts";
import { QUEUE_BYTES, queueLayout } from "./driver.ts";
import { FunctionModel } from "./function-model.ts";
import { RAM_BASE } from "./handed-memory.ts";
import type { Operation } from "./operations.ts";
import { probe } from "./probe.ts";
import { FuzzedWorld, VIRTIO_NAMES } from "./world.ts";

/** Loads and stores of guest memory that one access may cause: all chains of all queues at their longest, and some. */
const MAX_TOUCHES = 1_200_000;
/** Calls to the host that one access may cause. */
const MAX_HOST_CALLS = 4096;
/** Every so many operations, what is too dear to look at after each: one function after another. */
const FULL_CHECK_INTERVAL = 64;

/** A world and its model, driven operation by operation: what is wrong after one is told as a sentence. */
export class Session {
  readonly #world: FuzzedWorld;
  readonly #all: readonly Modelled[];
  readonly #byName: ReadonlyMap<string, Modelled>;
  #expected: string[] = []; // deliveries that must come of this operation, by functions that are exact
  #count = 0;

  constructor(ignoresMasks = false) {
    this.#world = new FuzzedWorld(ignoresMasks);
    this.#all = this.#world.functions.map((real) => ({ real, model: new FunctionModel(real) }));
    this.#byName = new Map(this.#all.map((modelled) => [modelled.model.name, modelled]));
  }

  /** @returns What is wrong now, `undefined` when all is as it must be. */
  run(operation: Operation): string | undefined {
    this.#world.memory.startOperation();
    this.#expected = [];
    const touched = "fn" in operation ? this.#all[operation.fn] : undefined;
    touched?.real.backend?.takeCalls();
    try {
      return this.#execute(operation) ?? this.#judge(operation);
    } catch (error) {
      return `an exception: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
    }
  }

  /** The end of a run: everything is given back. @returns What is not. */
  close(): string | undefined {
    const wrong = this.#all.map((modelled) => this.#checkWhole(modelled)).find((text) => text !== undefined);
    if (wrong !== undefined) return wrong;
    try {
      this.#world.quiesce();
      this.#world.close();
    } catch (error) {
      return `an exception at the end: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
    }
    const { router, slots, peerMappings, mmio, ports, doorbells } = this.#world;
    if (router.liveCount > 0) return `routes are left at the end: ${router.liveNames.join(", ")}`;
    if (slots.size + peerMappings.size > 0) return "memory slots are left at the end";
    if (mmio.ranges.length + ports.ranges.length + doorbells.addresses.length > 0)
      return "bus ranges are left at the end";
    const open = this.#all.find(({ real }) => real.backend?.isClosed === false || real.backend?.mappedAreas.length);
    return open === undefined ? undefined : `${open.model.name} is still open at the end`;
  }

  #execute(operation: Operation): string | undefined {
    switch (operation.op) {
      case "config":
        return this.#config(operation);
      case "bar": {
        const modelled = this.#all[operation.fn];
        const bar = modelled?.model.bars.find((candidate) => candidate.index === operation.bar);
        if (modelled === undefined || bar === undefined) return undefined;
        const address = modelled.model.address(operation.bar) + operation.offset;
        return this.#access({ bus: bar.kind === "io" ? "ports" : "mmio", address, ...withoutPlace(operation) });
      }
      case "wide":
        return this.#wideAccess(operation);
      case "absolute":
        return this.#access(operation);
      case "ram":
        this.#world.memory.asGuest(() => storeRam(this.#world, operation.offset, operation.width, operation.value));
        return undefined;
      case "signal":
        return this.#signal(operation.fn, operation.vector);
      case "host":
        this.#world.hostEvent(operation.event);
        return undefined;
      case "probe":
        return probe(this.#world, this.#all, operation.fn, (next) => this.run(next));
      case "resetMachine":
        this.#resetMachine();
        return undefined;
      default:
        return operation satisfies never;
    }
  }

  #config({ fn, via, offset, width, value }: Extract<Operation, { op: "config" }>): string | undefined {
    const modelled = this.#all[fn];
    if (modelled === undefined) return undefined;
    const { real, model } = modelled;
    const { slot, functionNumber } = real;
    const fitsPorts = via === "ports" && offset < 256 && (offset & 3) + width <= 4;
    const ecamOffset = slot * 0x8000 + functionNumber * 0x1000 + offset;
    if (fitsPorts) {
      this.#world.configPorts.write(
        0,
        4,
        (0x8000_0000 + slot * 0x800 + functionNumber * 0x100 + (offset & 0xfc)) >>> 0,
      );
    }
    if (value === undefined) {
      const found = fitsPorts
        ? this.#world.configPorts.read(4 + (offset & 3), width)
        : this.#world.ecam.read(ecamOffset, width);
      return (
        judgeWidth(found, width) ?? model.judgeRead(offset, width, found) ?? judgeRaw(modelled, offset, width, found)
      );
    }
    const { due } = model.write(offset, width, value);
    this.#expectAll(modelled, due);
    if (fitsPorts) this.#world.configPorts.write(4 + (offset & 3), width, value);
    else this.#world.ecam.write(ecamOffset, width, value);
    // The window may have written to the table, by the function's own rules: take that over.
    if (model.windowAt !== undefined && offset < model.windowAt + 20 && offset + width > model.windowAt + 16) {
      this.#adoptTable(modelled);
    }
    return judgeRaw(modelled, offset, width, value);
  }

  #access({
    bus,
    address,
    width,
    value,
  }: {
    bus: "mmio" | "ports";
    address: number;
    width: Width;
    value?: number;
  }): string | undefined {
    const target = bus === "mmio" ? this.#world.mmio : this.#world.ports;
    const holders = Array.from({ length: width }, (_, byte) => target.find(address + byte));
    if (value === undefined) {
      const found = target.read(address, width);
      return judgeWidth(found, width) ?? this.#judgeBytes(holders, address, found);
    }
    this.#predictWrite(holders, address, value);
    if (bus === "mmio" && this.#world.doorbells.ring(gpa(address), width)) return undefined;
    target.write(address, width, value);
    const holder = holders[0];
    if (holder !== undefined && width === 1 && value === 0 && address === holder.base + 0x14) this.#takeBack(holder);
    return undefined;
  }

  /** Eight bytes of a passed-through function: one call to its device where it is the device's. */
  #wideAccess({ fn, bar, offset, value }: Extract<Operation, { op: "wide" }>): string | undefined {
    const modelled = this.#all[fn];
    const found = modelled?.model.bars.find((candidate) => candidate.index === bar);
    if (modelled === undefined || found === undefined || found.kind === "io") return undefined;
    const { mmio } = this.#world;
    const address = modelled.model.address(bar) + offset;
    const holders = Array.from({ length: 8 }, (_, byte) => mmio.find(address + byte));
    const isDevices = this.#isDevices(modelled, bar, holders, address);
    if (value === undefined) {
      const { low, high } = mmio.readWide(address);
      const wrong = judgeWidth(low, 4) ?? judgeWidth(high, 4) ?? this.#judgeBytes(holders.slice(0, 4), address, low);
      const calls = modelled.real.backend?.calls.regionReads;
      if (isDevices && calls !== 1) return `${modelled.model.name} was read ${calls} times for eight bytes`;
      return wrong ?? this.#judgeBytes(holders.slice(4), address + 4, high);
    }
    const [low, high] = value;
    this.#predictWrite(holders.slice(0, 4), address, low);
    this.#predictWrite(holders.slice(4), address + 4, high);
    mmio.writeWide(address, { low, high });
    const calls = modelled.real.backend?.calls.regionWrites;
    return isDevices && calls !== 1 ? `${modelled.model.name} was written ${calls} times for eight bytes` : undefined;
  }

  /** Whether eight bytes are registers of one waking device: of its BAR, and not of its MSI-X structures. */
  #isDevices(modelled: Modelled, bar: number, holders: readonly (BusRange | undefined)[], address: number): boolean {
    const [range] = holders;
    const { model, real } = modelled;
    if (range === undefined || holders.some((holder) => holder !== range) || model.powerState !== 0) return false;
    const place = this.#place(range);
    const offset = address - range.base;
    if (place?.modelled !== modelled || place.bar !== bar || bar === 6) return false;
    if (offset + 8 > (real.backend?.region(bar)?.sizeBytes ?? 0)) return false;
    return holders.every(
      (_, byte) => model.tableByte(bar, offset + byte) === undefined && model.pbaByte(bar, offset + byte) === undefined,
    );
  }

  /** The driver wrote 0 to the device status. VIRTIO 1.2 §4.1.4.3 */
  #takeBack(range: BusRange): void {
    const fn = this.#all.findIndex(({ model }) => range.device.name === `${model.name} BAR 0`);
    if (this.#all[fn]?.real.backend === undefined) this.#takeBackRam(fn);
  }

  #takeBackRam(fn: number): void {
    const { memory, completions } = this.#world;
    memory.takeBack(queueLayout(fn, 0).descriptors, 2 * QUEUE_BYTES, completions.length > 0);
  }

  /** Judges a read without a model of the device: MSI-X table, pending bits, no device, a function in D3. */
  #judgeBytes(holders: readonly (BusRange | undefined)[], address: number, found: number): string | undefined {
    for (const [byte, range] of holders.entries()) {
      const expected = this.#byteAt(range, address + byte);
      const part = Math.floor(found / 2 ** (8 * byte)) & 0xff;
      if (expected !== undefined && part !== expected) {
        const where = range === undefined ? "no device" : range.device.name;
        const [place, read, wanted] = [address + byte, part, expected].map((value) => `0x${value.toString(16)}`);
        return `byte ${place} of ${where} reads ${read}, not ${wanted}`;
      }
    }
    return undefined;
  }

  #byteAt(range: BusRange | undefined, address: number): number | undefined {
    if (range === undefined) return 0xff;
    const place = this.#place(range);
    if (place === undefined) return undefined;
    const { modelled, bar } = place;
    const { model } = modelled;
    if (model.powerState !== 0) return 0xff;
    const offset = address - range.base;
    return model.tableByte(bar, offset) ?? (model.isExact ? model.pbaByte(bar, offset) : undefined);
  }

  #predictWrite(holders: readonly (BusRange | undefined)[], address: number, value: number): void {
    const changed = new Map<Modelled, number[]>();
    for (const [byte, range] of holders.entries()) {
      const place = range === undefined ? undefined : this.#place(range);
      if (range === undefined || place === undefined || place.modelled.model.powerState !== 0) continue;
      const { modelled, bar } = place;
      const part = Math.floor(value / 2 ** (8 * byte)) & 0xff;
      const vector = modelled.model.writeTableByte(bar, address + byte - range.base, part);
      if (vector !== undefined) changed.set(modelled, [...(changed.get(modelled) ?? []), vector]);
    }
    for (const [modelled, vectors] of changed) {
      const { msix } = modelled.model;
      this.#expectAll(modelled, msix?.changed(Math.min(...vectors), Math.max(...vectors) + 1) ?? []);
    }
  }

  #place(range: BusRange): { readonly modelled: Modelled; readonly bar: number } | undefined {
    const [name = "", bar = "", index = ""] = range.device.name.split(" ");
    const modelled = this.#byName.get(name);
    return modelled === undefined ? undefined : { modelled, bar: bar === "BAR" ? Number(index) : 6 };
  }

  #signal(fn: number, vector: number): string | undefined {
    const modelled = this.#all[fn];
    const backend = modelled?.real.backend;
    if (modelled === undefined || backend === undefined) return undefined;
    const kind = backend.triggers.has("msix") ? "msix" : "msi";
    const triggers = backend.triggers.get(kind) ?? [];
    const at = triggers.length === 0 ? 0 : vector % triggers.length;
    const eventFd = triggers[at];
    if (eventFd === undefined || eventFd < 0) return undefined;
    const route = this.#world.router.byFd(eventFd);
    if (route === undefined) return `${modelled.model.name} ${kind} ${at} is armed with a released route's eventfd`;
    if (kind === "msix" && modelled.model.msix?.signalled(at) === true) this.#expectAll(modelled, [at]);
    route.signal();
    return undefined;
  }

  #expectAll({ model }: Modelled, vectors: readonly number[]): void {
    if (model.isExact) for (const vector of vectors) this.#expected.push(`${model.name} msix ${vector}`);
  }

  #resetMachine(): void {
    this.#world.root.reset();
    for (const fn of VIRTIO_NAMES.keys()) this.#takeBackRam(fn);
    for (const { real, model } of this.#all) {
      model.reset();
      // Where firmware puts BARs is the root's choice; whether they are decoded there is judged like any other place.
      for (const { index, kind } of model.bars) {
        const offset = index === 6 ? 0x30 : 0x10 + 4 * index;
        model.adopt(offset, real.pci.config.read(offset, 4));
        if (kind === "mem64") model.adopt(offset + 4, real.pci.config.read(offset + 4, 4));
      }
    }
  }

  #adoptTable({ real, model }: Modelled): void {
    const { table, msix } = model;
    if (table === undefined || msix === undefined) return;
    for (let at = 0; at < table.sizeBytes; at++) {
      // Cast: the model read the index from the capability.
      model.writeTableByte(table.bar, table.offset + at, real.pci.readBar(table.bar as 0, table.offset + at, 1));
    }
    msix.changed();
  }

  #judge(operation: Operation): string | undefined {
    const { memory, router } = this.#world;
    for (const delivery of router.deliveries) {
      const wrong = checkDelivery(delivery, this.#all);
      if (wrong !== undefined) return wrong;
    }
    const found = router.deliveries.splice(0).filter(({ route }) => this.#isExact(route));
    const names = found.map(({ route }) => route).sort();
    if (names.join() !== this.#expected.sort().join()) {
      return `interrupts arrived by "${names.join()}", expected were "${this.#expected.join()}"`;
    }
    if (memory.violations.length > 0) return memory.violations[0];
    if (memory.touches > MAX_TOUCHES && operation.op !== "probe")
      return `it touched guest memory ${memory.touches} times`;
    for (const { real, model } of this.#all) {
      const { backend } = real;
      if (backend === undefined) continue;
      if (backend.strays.length > 0) return `${model.name} was written to where it must not: ${backend.strays[0]}`;
      backend.log.length = 0;
    }
    const touched = "fn" in operation ? this.#all[operation.fn] : undefined;
    const calls = Object.values(touched?.real.backend?.calls ?? {}).reduce((sum, count) => sum + count, 0);
    if (calls > MAX_HOST_CALLS) return `it took ${calls} calls to the host`;
    const wrong = touched === undefined ? undefined : checkVectors(this.#world, touched);
    if (wrong !== undefined) return wrong;
    const mayMoveBars = (operation.op === "config" && operation.value !== undefined) || operation.op === "resetMachine";
    return (mayMoveBars ? checkBuses(this.#world, this.#all) : undefined) ?? this.#fullCheck();
  }

  #fullCheck(): string | undefined {
    const count = this.#count++;
    if (count % FULL_CHECK_INTERVAL !== 0) return undefined;
    if (!this.#world.memory.isGuardIntact()) return "guest memory outside all descriptors was changed";
    const modelled = this.#all[(count / FULL_CHECK_INTERVAL) % this.#all.length];
    const wrong = modelled === undefined ? undefined : this.#checkWhole(modelled);
    if (wrong !== undefined) return wrong;
    return checkRoutes(this.#world, this.#all);
  }

  /** All of a function's configuration space and vectors. */
  #checkWhole(modelled: Modelled): string | undefined {
    const { real, model } = modelled;
    for (let at = 0; at < model.sizeBytes; at += 4) {
      const isWindow = model.windowAt !== undefined && at === model.windowAt + 16; // reading it has effects
      const wrong = isWindow ? undefined : model.judgeRead(at, 4, real.pci.config.read(at, 4));
      if (wrong !== undefined) return wrong;
    }
    return checkVectors(this.#world, modelled);
  }

  #isExact(route: string): boolean {
    const [name = "", kind] = route.split(" ");
    return kind === "msix" && this.#byName.get(name)?.model.isExact === true;
  }
}

/** Bytes that no capability has are in the device what the guest has read or written. */
function judgeRaw({ real, model }: Modelled, offset: number, width: Width, value: number): string | undefined {
  const { backend } = real;
  for (let byte = 0; byte < width && backend !== undefined; byte++) {
    const at = offset + byte;
    const part = Math.floor(value / 2 ** (8 * byte)) & 0xff;
    if (!model.isRaw(at) || backend.config.getUint8(at) === part) continue;
    return `${model.name}: the device's byte 0x${at.toString(16)} is not what the guest has there`;
  }
  return undefined;
}

function judgeWidth(value: number, width: Width): string | undefined {
  const isFit = Number.isInteger(value) && value >= 0 && value < 2 ** (8 * width);
  return isFit ? undefined : `a read of ${width} bytes answers ${value}`;
}

function withoutPlace({ width, value }: { readonly width: Width; readonly value?: number }): {
  readonly width: Width;
  readonly value?: number;
} {
  return value === undefined ? { width } : { width, value };
}

function storeRam({ memory }: FuzzedWorld, offset: number, width: Width, value: number): void {
  const address = gpa(RAM_BASE + offset);
  if (width === 4) memory.writeU32(address, value);
  else if (width === 2) memory.writeU16(address, value);
  else memory.writeU8(address, value);
}
