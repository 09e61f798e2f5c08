import type { Bus } from "../../../src/base/bus.ts";
import type { Decoded, FunctionModel } from "./function-model.ts";
import type { Delivery } from "./router.ts";
import type { VectorsModel } from "./vectors-model.ts";
import { type FuzzedFunction, type FuzzedWorld, type LiveMapping, WINDOWS } from "./world.ts";

const hex = (value: number): string => `0x${value.toString(16)}`;
const barName = (model: FunctionModel, { bar }: Decoded): string =>
  `${model.name} ${bar.index === 6 ? "expansion ROM" : `BAR ${bar.index}`}`;

interface Range {
  readonly base: number;
  readonly sizeBytes: number;
}
const overlaps = (a: Range, b: Range): boolean => a.base < b.base + b.sizeBytes && b.base < a.base + a.sizeBytes;
const isWithin = (inner: Range, outer: Range): boolean =>
  inner.base >= outer.base && inner.base + inner.sizeBytes <= outer.base + outer.sizeBytes;

/** A function with what must hold of it. */
export interface Modelled {
  readonly real: FuzzedFunction;
  readonly model: FunctionModel;
}

/**
 * Buses agree with the base address registers. A range on a bus is where an enabled BAR says, inside the windows. An
 * enabled BAR that is on no bus conflicts with another range.
 */
export function checkBuses(world: FuzzedWorld, all: readonly Modelled[]): string | undefined {
  const wanted = new Map<string, Decoded>();
  for (const { model } of all) for (const decoded of model.decoded()) wanted.set(barName(model, decoded), decoded);
  const attached = new Set<string>();
  for (const [kind, bus] of [
    ["mmio", world.mmio],
    ["ports", world.ports],
  ] as const) {
    for (const range of bus.ranges) {
      const decoded = wanted.get(range.device.name);
      if (decoded?.bus !== kind || decoded.base !== range.base || decoded.bar.sizeBytes !== range.sizeBytes) {
        return `${range.device.name} is on the ${kind} bus at ${hex(range.base)}, which its registers do not say`;
      }
      attached.add(range.device.name);
      if (!isInWindows(kind, range)) return `${range.device.name} is decoded outside the windows`;
    }
  }
  for (const [name, decoded] of wanted) {
    if (attached.has(name)) continue;
    const range = { base: decoded.base, sizeBytes: decoded.bar.sizeBytes };
    const bus: Bus = decoded.bus === "mmio" ? world.mmio : world.ports;
    const isFree = !bus.ranges.some((other) => overlaps(range, other));
    if (isInWindows(decoded.bus, range) && isFree) return `${name} is enabled at ${hex(decoded.base)} and not decoded`;
  }
  return checkSlots(world, all, attached) ?? checkDoorbells(world, all, attached);
}

function isInWindows(bus: "mmio" | "ports", range: Range): boolean {
  const windows = bus === "ports" ? WINDOWS.ports : [...WINDOWS.memory32, ...WINDOWS.memory64];
  return windows.some((window) => isWithin(range, window));
}

const describe = (mapping: LiveMapping): string => `${mapping.name} ${hex(mapping.address)}+${hex(mapping.sizeBytes)}`;

/**
 * Slots are where mapped areas of decoded BARs of waking devices are, all of them and no others; peers reach the same.
 */
function checkSlots(world: FuzzedWorld, all: readonly Modelled[], attached: ReadonlySet<string>): string | undefined {
  const must = new Set<string>();
  const may = new Set<string>();
  const roms = new Set<string>();
  for (const { real, model } of all) {
    if (real.backend === undefined || model.powerState !== 0) continue;
    for (const decoded of model.decoded()) {
      if (!attached.has(barName(model, decoded))) continue;
      if (!real.backend.isDecodingMemory && decoded.bus === "mmio")
        return `${model.name} is decoded, its device is not`;
      if (decoded.bar.index === 6 && decoded.bar.sizeBytes % 4096 === 0 && decoded.base % 4096 === 0) {
        roms.add(`expansion ROM of ${model.name} ${hex(decoded.base)}+${hex(decoded.bar.sizeBytes)}`);
      }
      for (const area of real.backend.mappedAreas) {
        const [bar, offset, sizeBytes] = area.split(/[ +]/).map(Number);
        if (bar !== decoded.bar.index || offset === undefined || sizeBytes === undefined) continue;
        const text = `BAR ${bar} of ${model.name} ${hex(decoded.base + offset)}+${hex(sizeBytes)}`;
        // A BAR under a page is mapped only while it has the page to itself.
        (decoded.bar.sizeBytes < 4096 ? may : must).add(text);
      }
    }
  }
  for (const [what, mappings] of [
    ["slot", world.slots],
    ["peer mapping", world.peerMappings],
  ] as const) {
    const found = new Set([...mappings].map(describe));
    const wanted = what === "slot" ? new Set([...must, ...roms]) : must;
    for (const text of found) if (!wanted.has(text) && !may.has(text)) return `${what} ${text} is over nothing`;
    for (const text of wanted) if (!found.has(text)) return `${what} ${text} is missing`;
  }
  return undefined;
}

/** Doorbells are where the queues of decoded virtio functions are. VIRTIO 1.2 §4.1.4.4 */
function checkDoorbells(
  world: FuzzedWorld,
  all: readonly Modelled[],
  attached: ReadonlySet<string>,
): string | undefined {
  const expected: number[] = [];
  for (const { real, model } of all) {
    if (real.backend !== undefined || !attached.has(`${model.name} BAR 0`)) continue;
    const queueCount = (model.msix?.count ?? 1) - 1;
    for (let queue = 0; queue < queueCount; queue++) expected.push(model.address(0) + 0x3000 + 4 * queue);
  }
  const found = world.doorbells.addresses;
  expected.sort((a, b) => a - b);
  const isSame = found.length === expected.length && found.every((address, at) => address === expected[at]);
  return isSame ? undefined : `doorbells are at ${found.map(hex).join()}, not at ${expected.map(hex).join()}`;
}

/**
 * The host has the kind of interrupt on that the guest has, armed with live routes that are masked as the guest's
 * vectors are.
 */
export function checkVectors(world: FuzzedWorld, { real, model }: Modelled): string | undefined {
  const { backend, line } = real;
  if (line?.isHigh === true && (model.msix?.isOn === true || (model.command & 0x400) !== 0)) {
    return `${model.name} drives its pin while MSI-X is on or the pin is disabled`;
  }
  if (backend === undefined) return undefined;
  const hasPin = backend.interrupt("intx").count > 0;
  const kind = model.msix?.isOn === true ? "msix" : model.msi?.isOn === true ? "msi" : hasPin ? "intx" : undefined;
  for (const other of ["intx", "msi", "msix"] as const) {
    if (backend.triggers.has(other) !== (other === kind)) {
      const state = backend.triggers.has(other) ? "on" : "off";
      return `${model.name}: ${other} is ${state}; the guest uses ${kind ?? "none"}`;
    }
  }
  if (kind !== "msi" && kind !== "msix") return undefined;
  const vectors = kind === "msix" ? model.msix : model.msi;
  const triggers = backend.triggers.get(kind) ?? [];
  return vectors === undefined ? undefined : checkArmed(world, model, kind, vectors, triggers);
}

function checkArmed(
  world: FuzzedWorld,
  model: FunctionModel,
  kind: string,
  vectors: VectorsModel,
  triggers: readonly number[],
): string | undefined {
  for (const [vector, eventFd] of triggers.entries()) {
    const isUsed = vectors.used.has(vector);
    if (isUsed !== eventFd >= 0) return `${model.name} ${kind} ${vector} is ${isUsed ? "not " : ""}armed`;
    if (!isUsed) continue;
    const route = world.router.byFd(eventFd);
    if (route?.name !== `${model.name} ${kind} ${vector}`) {
      return `${model.name} ${kind} ${vector} is armed with the eventfd of ${route?.name ?? "a released route"}`;
    }
    const isMasked = vectors.registers(vector)?.isMasked !== false;
    if (route.isMasked !== isMasked) return `${route.name} is ${isMasked ? "not " : ""}masked`;
  }
  for (const vector of vectors.used) {
    if (vector >= triggers.length) return `${model.name} ${kind} ${vector} is unmasked and not armed`;
  }
  return undefined;
}

/** As many routes live as vectors are in use. */
export function checkRoutes(world: FuzzedWorld, all: readonly Modelled[]): string | undefined {
  const expected = all.reduce((sum, { model }) => sum + (model.msix?.used.size ?? 0) + (model.msi?.used.size ?? 0), 0);
  if (world.router.liveCount === expected) return undefined;
  return `${world.router.liveCount} routes live for ${expected} vectors in use: ${world.router.liveNames.join(", ")}`;
}

/** No interrupt for a masked or disabled vector, each with the message that the guest wrote. */
export function checkDelivery(delivery: Delivery, all: readonly Modelled[]): string | undefined {
  const [name, kind, number] = delivery.route.split(" ");
  const found = all.find(({ model }) => model.name === name)?.model;
  const vectors = kind === "msix" ? found?.msix : found?.msi;
  const vector = Number(number);
  if (vectors === undefined) return `an interrupt came by ${delivery.route}, which no function has`;
  if (!vectors.isOn) return `${delivery.route} delivered while ${kind} is off`;
  const registers = vectors.registers(vector);
  if (registers === undefined || registers.isMasked) return `${delivery.route} delivered while masked`;
  const { message } = registers;
  const { addressLow, addressHigh, data } = delivery.message;
  if (message.data === data && message.addressLow === addressLow && message.addressHigh === addressHigh)
    return undefined;
  return `${delivery.route} delivered ${hex(data)}, not ${hex(message.data)}`;
}
