import { gpa, type Width } from "../../../src/base/units.ts";
import type { PassthroughFunction } from "../../../src/passthrough/function.ts";
import { AcpiPm } from "../../../src/platform/acpi-pm.ts";
import { PassedFunctions } from "../../../src/vmm/device/passed/passed-functions.ts";
import { Removals } from "../../../src/vmm/device/passed/removals.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { FakeLine } from "../../support/fake-line.ts";
import { RAM_BASE } from "../accesses/handed-memory.ts";
import { type FuzzedFunction, FuzzedWorld } from "../accesses/world.ts";
import type { Operation } from "./operations.ts";

/** Ports of the ACPI block; the DSDT names the same. */
const ACPI = 0x600;
const EJECT_REQUESTS = ACPI + 4;
const EJECT = ACPI + 12;

/** What was done to a passed-through function, and must show. */
interface Fate {
  readonly fn: FuzzedFunction;
  wasWanted: boolean;
  /** Off the bus. */
  isTaken: boolean;
  /** Given back to the host. */
  isReleased: boolean;
  /** As `Removals` told it, in order. */
  readonly events: string[];
}

/** A machine whose passed-through functions can be taken away, beside what must hold of them. */
export class RemovalMachine {
  readonly #world = new FuzzedWorld();
  readonly #fates: readonly (Fate | undefined)[];
  readonly #byName = new Map<string, Fate>();
  readonly #later: (() => void)[] = [];
  readonly #line = new FakeLine(9);
  readonly #passed = new PassedFunctions(() => undefined);
  readonly #removals: Removals;
  /** Requests to eject that the guest has not taken. */
  #requests = 0;

  constructor() {
    const { root, ports, functions } = this.#world;
    this.#fates = functions.map((fn) => this.#follow(fn));
    const acpi: AcpiPm = new AcpiPm(new FakeClock("2026-01-02T03:04:05Z"), this.#line, {
      powerOff: () => undefined,
      reset: () => undefined,
      ejectSlot: (slot) => this.#removals.guestEjects(slot),
    });
    ports.attach(ACPI, 16, acpi);
    this.#removals = new Removals({
      ...{ root, acpi, passed: this.#passed },
      defer: (work) => this.#later.push(work),
      report: () => undefined,
      onEvent: (event) => {
        if ("device" in event && event.kind !== "deviceErred") this.#byName.get(event.device)?.events.push(event.kind);
      },
    });
  }

  /** @returns What is wrong now. */
  run(operation: Operation): string | undefined {
    return this.#execute(operation) ?? this.#judge(operation);
  }

  /** The end of the machine. @returns What is not given back. */
  close(): string | undefined {
    this.#turn();
    const wrong = this.#judgeReleased();
    if (wrong !== undefined) return wrong;
    this.#world.quiesce();
    this.#world.close();
    const { router, slots, peerMappings, doorbells, mmio } = this.#world;
    const left = router.liveCount + slots.size + peerMappings.size + doorbells.addresses.length + mmio.ranges.length;
    if (left > 0) return "something is left at the end";
    const open = this.#fates.find((fate) => fate?.fn.backend?.isClosed === false);
    return open === undefined ? undefined : `${open.fn.name} is still open at the end`;
  }

  #follow(fn: FuzzedFunction): Fate | undefined {
    if (fn.backend === undefined) return undefined;
    // Cast: the functions with a backend are passed-through ones.
    const passed = fn.pci as PassthroughFunction;
    this.#passed.add({ id: fn.name, function: passed, isOfHost: false, release: () => passed.close() });
    const fate: Fate = { fn, wasWanted: false, isTaken: false, isReleased: false, events: [] };
    this.#byName.set(fn.name, fate);
    return fate;
  }

  #execute(operation: Operation): string | undefined {
    switch (operation.op) {
      case "config":
        return this.#config(operation);
      case "bar": {
        const place = this.#barPlace(operation.fn, operation.bar);
        return place === undefined ? undefined : this.#access({ ...operation, ...place(operation.offset) });
      }
      case "wide":
        return this.#wideAccess(operation);
      case "absolute":
        return this.#access(operation);
      case "ram":
        this.#world.memory.asGuest(() => this.#store(gpa(RAM_BASE + operation.offset), operation));
        return undefined;
      case "signal":
        return this.#signal(operation.fn, operation.vector);
      case "host":
        this.#world.hostEvent(operation.event);
        return undefined;
      case "resetMachine":
        this.#world.root.reset();
        return undefined;
      case "eject":
        for (const fate of this.#fates)
          if (fate !== undefined && ((operation.slots >>> fate.fn.slot) & 1) === 1) fate.isTaken = true;
        this.#world.ports.write(EJECT, 4, operation.slots);
        return undefined;
      case "memoryFault":
        this.#passed.memoryFault();
        return undefined;
      case "turn":
        this.#turn();
        return undefined;
      case "wants":
      case "error":
      case "vanish":
        return this.#takeAway(operation);
      default:
        return operation satisfies never;
    }
  }

  #wideAccess({ fn, bar, offset, value }: Extract<Operation, { op: "wide" }>): undefined {
    const place = this.#barPlace(fn, bar)?.(offset);
    if (place === undefined || place.bus !== "mmio") return;
    if (value === undefined) this.#world.mmio.readWide(place.address);
    else this.#world.mmio.writeWide(place.address, { low: value[0], high: value[1] });
  }

  #takeAway({ op, fn }: Extract<Operation, { op: "wants" | "error" | "vanish" }>): undefined {
    const fate = this.#fates[fn];
    if (fate === undefined) return;
    if (op === "vanish" && fate.fn.backend !== undefined) fate.fn.backend.isGone = true;
    if (op === "vanish") return;
    const isGone = fate.fn.backend?.isGone === true;
    if (op === "wants") {
      if (!fate.isTaken) this.#requests |= 1 << fate.fn.slot;
      fate.wasWanted ||= !fate.isTaken;
      fate.isTaken ||= isGone; // pulled out: nothing is left to wait for
      this.#removals.hostWants(fate.fn.name);
    } else {
      this.#removals.hostReportsError(fate.fn.name);
      if (!isGone) return; // it answers, and stays
      if (!fate.isTaken) this.#requests |= 1 << fate.fn.slot;
      fate.isTaken = true;
    }
  }

  #turn(): void {
    for (const work of this.#later.splice(0)) work();
    for (const fate of this.#fates) if (fate?.isTaken === true) fate.isReleased = true;
  }

  #config({ fn, offset, width, value }: Extract<Operation, { op: "config" }>): string | undefined {
    const target = this.#world.functions[fn];
    if (target === undefined) return undefined;
    const at = target.slot * 0x8000 + target.functionNumber * 0x1000 + offset;
    if (value !== undefined) {
      this.#world.ecam.write(at, width, value);
      return undefined;
    }
    const found = this.#world.ecam.read(at, width);
    const isAbsent = this.#fates[fn]?.isTaken === true && found !== 2 ** (8 * width) - 1;
    return isAbsent ? `${target.name} is taken and reads ${found}` : judgeWidth(found, width);
  }

  /** Where the BAR's registers say it is. */
  #barPlace(
    fn: number,
    bar: number,
  ): ((offset: number) => { readonly bus: "ports" | "mmio"; readonly address: number }) | undefined {
    const config = this.#world.functions[fn]?.pci.config;
    if (config === undefined) return undefined;
    const low = config.get32(bar === 6 ? 0x30 : 0x10 + 4 * bar);
    const isIo = bar !== 6 && (low & 1) === 1;
    const isWide = bar < 5 && (low & 7) === 4;
    const base = ((low & (isIo ? ~3 : ~15)) >>> 0) + (isWide ? config.get32(0x14 + 4 * bar) * 2 ** 32 : 0);
    return (offset) => ({ bus: isIo ? "ports" : "mmio", address: base + offset });
  }

  #access({ bus, address, width, value }: Omit<Extract<Operation, { op: "absolute" }>, "op">): string | undefined {
    const target = bus === "mmio" ? this.#world.mmio : this.#world.ports;
    if (value === undefined) return judgeWidth(target.read(address, width), width);
    // The ACPI block is judged by requests that nothing else clears.
    if (bus === "ports" && address + width > ACPI && address < ACPI + 16) return undefined;
    if (bus === "mmio" && this.#world.doorbells.ring(gpa(address), width)) return undefined;
    target.write(address, width, value);
    return undefined;
  }

  #store(address: ReturnType<typeof gpa>, { width, value }: { readonly width: Width; readonly value: number }): void {
    const { memory } = this.#world;
    if (width === 4) memory.writeU32(address, value);
    else if (width === 2) memory.writeU16(address, value);
    else memory.writeU8(address, value);
  }

  #signal(fn: number, vector: number): string | undefined {
    const backend = this.#world.functions[fn]?.backend;
    if (backend === undefined) return undefined;
    const triggers = backend.triggers.get(backend.triggers.has("msix") ? "msix" : "msi") ?? [];
    const eventFd = triggers.length === 0 ? undefined : triggers[vector % triggers.length];
    if (eventFd === undefined || eventFd < 0) return undefined;
    const route = this.#world.router.byFd(eventFd);
    if (route === undefined) return `${this.#world.functions[fn]?.name} is armed with a released route's eventfd`;
    route.signal();
    return undefined;
  }

  #judge({ op }: Operation): string | undefined {
    const { router, memory, ports, functions } = this.#world;
    router.deliveries.length = 0;
    memory.violations.length = 0; // the target `accesses` judges them
    for (const { backend, name } of functions) {
      if (backend === undefined) continue;
      backend.log.length = 0;
      if (backend.strays.length > 0) return `${name} was written to where it must not: ${backend.strays[0]}`;
    }
    const requests = ports.read(EJECT_REQUESTS, 4);
    if (requests !== this.#requests >>> 0) return `the guest is asked to eject ${requests}, not ${this.#requests}`;
    if (this.#line.isHigh !== (requests !== 0)) return "the event line does not follow the requests";
    return op === "turn" || op === "resetMachine" ? (this.#judgePlaces() ?? this.#judgeReleased()) : undefined;
  }

  /** Taken functions are off the bus, all others are on it. */
  #judgePlaces(): string | undefined {
    const { root, functions } = this.#world;
    const plugged = new Set(root.functions.map((one) => one.function));
    const wrong = functions.find(({ pci }, at) => plugged.has(pci) === (this.#fates[at]?.isTaken === true));
    return wrong === undefined ? undefined : `${wrong.name} is ${plugged.has(wrong.pci) ? "" : "not "}on the bus`;
  }

  /** What was given back holds nothing any more, and was told of once. */
  #judgeReleased(): string | undefined {
    const { mmio, ports, slots, peerMappings, router } = this.#world;
    const ranges = [...mmio.ranges, ...ports.ranges].map(({ device }) => device.name);
    const held = [...ranges, ...[...slots, ...peerMappings].map(({ name }) => name), ...router.liveNames];
    for (const fate of this.#fates) {
      if (fate === undefined) continue;
      const { fn, events, wasWanted, isReleased } = fate;
      const expected = [...(wasWanted ? ["deviceWanted"] : []), ...(isReleased ? ["deviceReleased"] : [])].join();
      if (events.join() !== expected) return `${fn.name} was told of as "${events.join()}", not "${expected}"`;
      if (!isReleased) continue;
      if (fn.backend?.isClosed !== true) return `${fn.name} is given back and open`;
      if (fn.backend.mappedAreas.length > 0) return `${fn.name} is given back and mapped`;
      const left = held.find((name) => name.startsWith(`${fn.name} `));
      if (left !== undefined) return `${fn.name} is given back and has ${left}`;
    }
    return undefined;
  }
}

function judgeWidth(value: number, width: Width): string | undefined {
  const isFit = Number.isInteger(value) && value >= 0 && value < 2 ** (8 * width);
  return isFit ? undefined : `a read of ${width} bytes answers ${value}`;
}
