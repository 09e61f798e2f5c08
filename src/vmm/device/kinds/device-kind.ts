import type { BlockBackend, CharBackend, EntropyBackend, Report } from "../../../base/backends.ts";
import type { Bus } from "../../../base/bus.ts";
import type { SlotMapper } from "../../../base/mappings.ts";
import type {
  Doorbells,
  FdWatcher,
  InterruptLine,
  MsiRouter,
  ResampledLines,
  RingWatcher,
  TurnCounter,
} from "../../../base/signals.ts";
import type { UndoStack } from "../../../base/undo-stack.ts";
import type { Gsi } from "../../../base/units.ts";
import type { GuestRam } from "../../../host/memory/guest-ram.ts";
import type { Vm } from "../../../kvm/vm.ts";
import type { PciRoot } from "../../../pci/root.ts";
import type { PlanDma } from "../../shared/plan.ts";
import type { ResolvedMachine } from "../../shared/resolved-machine.ts";
import type { OnStep } from "../passed/host-functions.ts";
import type { PassedFunctions } from "../passed/passed-functions.ts";
import type { Removals } from "../passed/removals.ts";

/** The host's ends of devices: they outlive a reset of the guest, and each board's devices are connected to them. */
export interface HostEnds {
  readonly characters: {
    /** `undefined`: the machine has no such device. */
    readonly serial: CharBackend | undefined;
    readonly console: CharBackend | undefined;
    readonly consoleSize: { readonly columns: number; readonly rows: number };
  };
  readonly disks: { backend(id: string): BlockBackend };
  readonly entropy: EntropyBackend;
}

/** What a device is wired to: memory slots, interrupts, doorbells. */
export interface DeviceWires {
  readonly slots: SlotMapper;
  readonly router: MsiRouter;
  readonly doorbells: Doorbells;
  readonly resampled: ResampledLines;
  /** A device's own end of a pin of the interrupt controller. */
  readonly line: (gsi: Gsi, name: string) => InterruptLine;
}

/** What a kind's factory may use of the board. */
export interface BoardAccess {
  readonly vm: Vm;
  readonly memory: GuestRam;
  readonly ports: Bus;
  readonly mmio: Bus;
  readonly root: PciRoot;
  readonly wires: DeviceWires;
  readonly watcher: FdWatcher & RingWatcher & TurnCounter;
  readonly ends: HostEnds;
  readonly report: Report;
  /** What is undone at the end of the power cycle, backwards. */
  readonly undo: UndoStack;
  /** The guest was reset: it is owed a machine, with what can still be had of it. */
  readonly isRestart: boolean;
  /** A time of `performance.now()` after which other processes are not waited for. */
  readonly cutOff: () => number;
  /** Told before each step of closing that may take long. */
  readonly onStep: OnStep;
  readonly passed: PassedFunctions;
  readonly removals: Removals;
  /** Runs work in the device thread's next turn, unless the power cycle has ended by then. */
  defer(work: () => void): void;
  /** Calls `flush` before the thread sleeps. */
  flushLater(device: Flushable): void;
  /** Where test suites print, by the test device's port. */
  setPrinter(print: (byte: number) => void): void;
  /** Who is told that the terminal has another size. */
  onResize(resize: (columns: number, rows: number) => void): void;
  /** Guest RAM was mapped for DMA. */
  setDma(dma: PlanDma): void;
}

/** Something that collects output. */
export interface Flushable {
  flush(): void;
}

/** A PCI function, or several, that a slot is wanted for. */
export interface NewFunction {
  /** The slot that the user asked for; the first free one when absent. */
  readonly slot?: number;
  /** Makes what is in the slot; nothing where the slot is to stay empty. */
  plug(slot: number): void;
}

/** How the devices of a kind are made, each power cycle anew. Device thread only. */
export interface DeviceKind<Part extends keyof ResolvedMachine> {
  /** The part of the specification. */
  readonly part: Part;
  /**
   * Makes the devices that have no slot, and answers those that want one, in their order.
   *
   * @throws SpecError, HostError; what was made is on `board.undo`.
   */
  make(part: ResolvedMachine[Part], board: BoardAccess): readonly NewFunction[];
}

/** A kind of which only its part's name is known. */
export interface AnyDeviceKind {
  readonly part: string;
  make(part: unknown, board: BoardAccess): readonly NewFunction[];
}
