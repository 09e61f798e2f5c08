import { type Gpa, gpa, gpaFromHalves, hex, highHalf, isPowerOfTwo, lowHalf, TWO_POW_32 } from "../base/units.ts";
import type { ConfigSpace } from "./config-space.ts";
import { type BarIndex, type BarRequest, ROM_BAR } from "./function.ts";
import {
  barOffset,
  PCI_BASE_ADDRESS_MEM_PREFETCH,
  PCI_BASE_ADDRESS_MEM_TYPE_64,
  PCI_BASE_ADDRESS_SPACE_IO,
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MEMORY,
  PCI_ROM_ADDRESS_ENABLE,
} from "./ids.ts";

/** Where a BAR answers, as the guest's registers have it. */
export type BarPlace =
  | { readonly kind: "off" } // decode is disabled
  | { readonly kind: "ports"; readonly base: number }
  | { readonly kind: "memory"; readonly base: Gpa }
  | { readonly kind: "beyond" }; // above 2^53, where no guest reaches

/** A BAR that the guest took from one place to another. */
export interface BarMove {
  readonly request: BarRequest;
  readonly from: BarPlace;
  readonly to: BarPlace;
}

const OFF: BarPlace = { kind: "off" };
/** Smallest region each kind can express: the address bits below are flags. PCI Local Bus 3.0 §6.2.5 */
const MIN_SIZE_BYTES = { io: 4, mem32: 16, mem64: 16, rom: 2048 } as const;
/** Largest: PCI Local Bus 3.0 §6.2.5; 2^52 is what numbers here are exact for; a ROM's is §6.2.5.2. */
export const MAX_BAR_BYTES: Readonly<Record<BarRequest["kind"], number>> = {
  io: 2 ** 16,
  mem32: 2 ** 31,
  mem64: 2 ** 52,
  rom: 2 ** 24,
};

/**
 * The base address registers of one function. The registers are the configuration space's own bytes. Their fixed low
 * bits make sizing work, in halves and bytes too: a guest writes ones and reads back what stuck. PCI Local Bus 3.0
 * §6.2.5
 */
export class BarSet {
  readonly requests: readonly BarRequest[];
  readonly #config: ConfigSpace;
  readonly #accepted: Map<BarIndex, BarPlace> = new Map();

  /** @throws RangeError for a size that a BAR cannot have or for two requests of one register. */
  constructor(config: ConfigSpace, requests: readonly BarRequest[]) {
    const taken = new Set<number>();
    for (const request of requests) {
      checkRequest(config.name, request);
      for (const index of request.kind === "mem64" ? [request.index, request.index + 1] : [request.index]) {
        if (taken.has(index)) throw new RangeError(`Cannot give ${config.name} two BARs ${index}`);
        taken.add(index);
      }
    }
    this.#config = config;
    this.requests = requests;
    for (const request of requests) this.#build(request);
  }

  /** What the guest changed since the last {@link accept} of each BAR. Asking changes nothing. */
  moves(): readonly BarMove[] {
    const moves: BarMove[] = [];
    for (const request of this.requests) {
      const from = this.place(request.index);
      const to = this.#decode(request);
      if (!isSamePlace(from, to)) moves.push({ request, from, to });
    }
    return moves;
  }

  /** The caller has acted on the move. */
  accept(move: BarMove): void {
    this.#accepted.set(move.request.index, move.to);
  }

  /** Where a BAR is, as last accepted. */
  place(index: BarIndex): BarPlace {
    return this.#accepted.get(index) ?? OFF;
  }

  /** Every BAR counts as off, whatever the registers say; the caller has taken them off the bus. */
  forget(): void {
    this.#accepted.clear();
  }

  /** Writes an address into the register, as firmware does; decode bits stay. The address is aligned to the size. */
  assign(request: BarRequest, address: number): void {
    const offset = barOffset(request.index);
    const flags = request.kind === "rom" ? this.#config.get32(offset) & PCI_ROM_ADDRESS_ENABLE : flagsOf(request);
    this.#config.set32(offset, lowHalf(address) + flags);
    if (request.kind === "mem64") this.#config.set32(offset + 4, highHalf(address));
  }

  /** The address in the register, whether decoded or not; `undefined` above 2^53. */
  address(request: BarRequest): number | undefined {
    const offset = barOffset(request.index);
    const low = (this.#config.get32(offset) & lowAddressMask(request)) >>> 0;
    return gpaFromHalves(low, request.kind === "mem64" ? this.#config.get32(offset + 4) : 0);
  }

  #build(request: BarRequest): void {
    const offset = barOffset(request.index);
    this.#config.set32(offset, flagsOf(request));
    const enable = request.kind === "rom" ? PCI_ROM_ADDRESS_ENABLE : 0;
    this.#config.allowWrites(offset, 4, lowAddressMask(request) + enable);
    if (request.kind !== "mem64") return;
    this.#config.set32(offset + 4, 0);
    const high = request.sizeBytes > TWO_POW_32 ? TWO_POW_32 - request.sizeBytes / TWO_POW_32 : 0xffff_ffff;
    this.#config.allowWrites(offset + 4, 4, high);
  }

  #decode(request: BarRequest): BarPlace {
    const command = this.#config.get16(PCI_COMMAND);
    const isOn = (command & (request.kind === "io" ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) !== 0;
    if (!isOn) return OFF;
    if (request.kind === "rom" && (this.#config.get32(barOffset(ROM_BAR)) & PCI_ROM_ADDRESS_ENABLE) === 0) return OFF;
    const base = this.address(request);
    if (base === undefined) return { kind: "beyond" };
    return request.kind === "io" ? { kind: "ports", base } : { kind: "memory", base: gpa(base) };
  }
}

/** Address bits of the (low) register: those above the size. */
function lowAddressMask(request: BarRequest): number {
  return request.sizeBytes >= TWO_POW_32 ? 0 : TWO_POW_32 - request.sizeBytes;
}

/** Read-only low bits that tell the guest what kind of BAR it is. */
function flagsOf(request: BarRequest): number {
  switch (request.kind) {
    case "io":
      return PCI_BASE_ADDRESS_SPACE_IO;
    case "mem32":
      return request.isPrefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0;
    case "mem64":
      return PCI_BASE_ADDRESS_MEM_TYPE_64 | (request.isPrefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0);
    case "rom":
      return 0;
    default:
      return request satisfies never;
  }
}

function checkRequest(name: string, request: BarRequest): void {
  const { kind, index, sizeBytes } = request;
  const isFit = isPowerOfTwo(sizeBytes) && sizeBytes >= MIN_SIZE_BYTES[kind] && sizeBytes <= MAX_BAR_BYTES[kind];
  if (!isFit) throw new RangeError(`Cannot give ${name} a ${kind} BAR of ${hex(sizeBytes)} bytes`);
  const last = kind === "mem64" ? 4 : 5;
  if (kind === "rom" ? index !== ROM_BAR : index > last) {
    throw new RangeError(`Cannot give ${name} a ${kind} BAR in register ${index}`);
  }
}

function isSamePlace(a: BarPlace, b: BarPlace): boolean {
  if (a.kind !== b.kind) return false;
  return "base" in a && "base" in b ? a.base === b.base : true;
}
