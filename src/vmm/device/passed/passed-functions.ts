import type { Report } from "../../../base/backends.ts";
import { HOST_ROOT, textFile } from "../../../host-pci/files.ts";
import { hostInterrupts } from "../../../host-pci/interrupt-counts.ts";
import type { PassthroughFunction } from "../../../passthrough/function.ts";
import { MemoryFaults } from "../../../passthrough/memory-faults.ts";
import type { PciFunction } from "../../../pci/function.ts";
import type { PlanBarPart } from "../../shared/plan.ts";
import type { FunctionStatistics } from "../../shared/statistics.ts";
import { barParts } from "./function-facts.ts";

/** What a passed-through function knows besides what its configuration space shows. */
export interface PassthroughDescription {
  /** On the host: `0000:01:00.0`. */
  readonly hostAddress: string;
  readonly parts: (bar: number) => readonly PlanBarPart[];
}

/** A passed-through function of the machine, whatever its transport. */
export interface PassedFunction {
  /** In the specification. */
  readonly id: string;
  readonly function: PassthroughFunction;
  /** Whether it is a function of the host, whose kernel counts its interrupts; otherwise it is of another process. */
  readonly isOfHost: boolean;
  /** Closes the function and gives back what it alone needed, while the machine goes on. */
  readonly release: () => void;
}

/**
 * The passed-through functions of a board: the one list, for removals, statistics, memory faults and descriptions.
 * Device thread only.
 */
export class PassedFunctions {
  /** In the order of their making, released ones too: their counters are the machine's. */
  readonly #all: PassedFunction[] = [];
  readonly #released = new Set<PassedFunction>();
  /** Those of {@link #all}; the faults look at it. */
  readonly #functions: PassthroughFunction[] = [];
  readonly #faults: MemoryFaults;

  constructor(report: Report) {
    this.#faults = new MemoryFaults(this.#functions, report);
  }

  add(passed: PassedFunction): void {
    this.#all.push(passed);
    this.#functions.push(passed.function);
  }

  /** `undefined` for other functions, and for released ones. */
  of(fn: PciFunction): PassedFunction | undefined {
    return this.#all.find((passed) => passed.function === fn && !this.#released.has(passed));
  }

  /** Gives one function back, after it was taken off the PCI root. Calling it twice is harmless. */
  release(passed: PassedFunction): void {
    if (this.#released.has(passed)) return;
    this.#released.add(passed);
    passed.release();
  }

  /** KVM met memory that does not answer: what {@link MemoryFaults.handle} answers. */
  memoryFault(): number {
    return this.#faults.handle();
  }

  /**
   * What a plan says of a function besides its configuration space; `undefined` for functions that are not passed
   * through.
   */
  describe(fn: PciFunction): PassthroughDescription | undefined {
    const passed = this.of(fn);
    if (passed === undefined) return undefined;
    const { bars } = passed.function.summary();
    return {
      hostAddress: passed.function.name,
      parts: (index) => bars.filter((bar) => bar.index === index).flatMap(barParts),
    };
  }

  statistics(): readonly FunctionStatistics[] {
    const hasHostFunctions = this.#all.some(({ isOfHost }) => isOfHost);
    const table = hasHostFunctions ? (textFile(HOST_ROOT.proc, "interrupts") ?? "") : "";
    return this.#all.map(({ id, function: fn, isOfHost }) => {
      const vectors = isOfHost ? [...hostInterrupts(table, fn.name)] : [];
      const interrupts = vectors.map(([vector, count]) => [`interrupts.${vector}`, count] as const);
      return { name: id, counters: { ...functionCounters(fn), ...Object.fromEntries(interrupts) } };
    });
  }
}

/** A passed-through function's counters, flat, for summaries. */
function functionCounters(fn: PassthroughFunction): FunctionStatistics["counters"] {
  const { bars, interrupts, forwardedConfigAccesses, errors, requests } = fn.summary();
  const counters: Record<string, number | string> = {
    host: fn.name,
    interruptKind: interrupts.kind,
    interruptsArmed: interrupts.armed,
    interruptsRepeated: interrupts.repeated,
    forwardedConfigAccesses,
    hostErrors: errors,
    hostRequests: requests,
  };
  for (const bar of bars) {
    const name = bar.index === 6 ? "rom" : `bar${bar.index}`;
    counters[`${name}.sizeBytes`] = bar.sizeBytes;
    counters[`${name}.mappedBytes`] = bar.slotBytes;
    counters[`${name}.trappedReads`] = bar.reads;
    counters[`${name}.trappedWrites`] = bar.writes;
  }
  return counters;
}
