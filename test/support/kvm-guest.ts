import { existsSync } from "node:fs";
import type { Assembler } from "../../guests/assembler.ts";
import type { CpuStart, SegmentState } from "../../src/base/cpu-state.ts";
import { flatTopology } from "../../src/base/cpu-topology.ts";
import type { MsiRoute } from "../../src/base/signals.ts";
import { UndoStack } from "../../src/base/undo-stack.ts";
import type { Gpa, Width } from "../../src/base/units.ts";
import { type Fd, fd, gpa, hva } from "../../src/base/units.ts";
import { EpollLoop } from "../../src/host/epoll.ts";
import { libc } from "../../src/host/libc.ts";
import { HostMapping } from "../../src/host/memory/mapping.ts";
import { blockKickSignal, drainKickSignals } from "../../src/host/thread.ts";
import { guestCpuid } from "../../src/kvm/cpuid.ts";
import { decodeExit, describeExit, type VcpuExit } from "../../src/kvm/exit.ts";
import { IoEventFds } from "../../src/kvm/ioeventfd.ts";
import { IrqLines, ResampledIrqLines } from "../../src/kvm/irq-lines.ts";
import { IrqRouting } from "../../src/kvm/irq-routing.ts";
import { MemorySlots } from "../../src/kvm/memory-slots.ts";
import { KvmSystem } from "../../src/kvm/system.ts";
import { Vcpu } from "../../src/kvm/vcpu.ts";
import { Vm } from "../../src/kvm/vm.ts";
import { VcpuWatchdog } from "./vcpu-watchdog.ts";

/**
 * Why tests that need /dev/kvm cannot run here; `false` when they can. For tap's `skip` option. In CI (`CI=true`) only
 * a machine without the device node is excused.
 */
export function missingKvm(): string | false {
  if (!existsSync("/dev/kvm"))
    return "there is no /dev/kvm (load kvm_intel or kvm_amd, or enable nested virtualization)";
  if (process.env["CI"] === "true") return false;
  try {
    KvmSystem.open().close();
    return false;
  } catch (error) {
    return String(error);
  }
}

/** How long a guest may run before it is kicked out and the test fails; tiny guests need milliseconds. */
const RUN_LIMIT_MS = 10_000;

export const RAM_BYTES: number = 4 << 20;
const GDT = 0x800;
const IDT = 0x1000;
const PAGE_TABLES = 0x2000; // six pages
/** Where guest code goes: above the tables, below 64 KiB so that a SIPI can reach it, page-aligned. */
export const CODE = 0x9000;
export const STACK = 0x8ff0;

const CODE_SELECTOR = 0x08;
const DATA_SELECTOR = 0x10;
const LONG_CODE_SELECTOR = 0x18;

const segment = (selector: number, type: number, rest: Partial<SegmentState> = {}): SegmentState => ({
  ...{ selector, base: 0, limit: 0xffff_ffff, type, present: 1, dpl: 0, db: 1, s: 1, l: 0, g: 1 },
  ...rest,
});
const TASK = segment(0x20, 11, { limit: 0x67, s: 0, db: 0, g: 0 });

/** Flat protected mode without paging, interrupts off, with a stack and an empty IDT. */
const START_32: CpuStart = {
  registers: { rip: CODE, rsp: STACK },
  ...{ cr0: 0x11, cr3: 0, cr4: 0, efer: 0 },
  cs: segment(CODE_SELECTOR, 11),
  data: segment(DATA_SELECTOR, 3),
  tr: TASK,
  gdt: { base: GDT, limit: 0x1f },
  idt: { base: IDT, limit: 0x7ff },
};

/** Long mode, the first 4 GiB mapped one to one by 2 MiB pages. */
const START_64: CpuStart = {
  ...START_32,
  idt: { base: IDT, limit: 0xfff },
  ...{ cr0: 0x8000_0011, cr3: PAGE_TABLES, cr4: 0x20, efer: 0x500 },
  cs: segment(LONG_CODE_SELECTOR, 11, { db: 0, l: 1 }),
};

let watchdog: VcpuWatchdog | undefined;
let runMask: Uint8Array | undefined;

/** A machine of a few MiB and up to two vCPUs, all run by the calling thread, with everything src/kvm has around it. */
export class KvmGuest {
  readonly system: KvmSystem = KvmSystem.open();
  readonly vm: Vm;
  readonly ram: HostMapping = HostMapping.anonymous("test RAM", RAM_BYTES);
  readonly memory: DataView;
  readonly loop: EpollLoop = new EpollLoop();
  readonly slots: MemorySlots;
  readonly routing: IrqRouting;
  readonly lines: IrqLines;
  readonly resampled: ResampledIrqLines;
  readonly doorbells: IoEventFds;
  readonly reports: string[] = [];
  readonly vcpus: readonly Vcpu[];
  readonly #vcpuFds: readonly Fd[];
  readonly #undo = new UndoStack();

  /** @param mode Of the boot processor; it starts at {@link CODE}. */
  constructor(code: Assembler, { mode = 32, vcpus = 1 }: { mode?: 32 | 64; vcpus?: number } = {}) {
    runMask ??= blockKickSignal();
    const mask = runMask;
    watchdog ??= new VcpuWatchdog();
    this.vm = Vm.create(this.system.fd, { tss: gpa(0xf800_0000), identityMap: gpa(0xf800_3000) });
    this.slots = new MemorySlots(this.vm, this.vm.checkExtension("NR_MEMSLOTS"));
    this.slots.mapSlot("RAM", gpa(0), hva(this.ram.address), RAM_BYTES, false);
    this.routing = new IrqRouting(this.vm, this.vm.checkExtension("IRQ_ROUTING"), (_level, text) =>
      this.reports.push(text),
    );
    this.lines = new IrqLines(this.vm);
    this.resampled = new ResampledIrqLines(this.vm);
    this.doorbells = new IoEventFds(this.vm, this.loop);
    this.memory = new DataView(this.ram.view());
    this.#writeTables();
    this.load(code);
    const supported = this.system.supportedCpuid();
    const host = { hasTscDeadlineTimer: this.system.hasTscDeadlineTimer, brand: "Test CPU" };
    this.#vcpuFds = Array.from({ length: vcpus }, (_, id) => this.vm.createVcpu(id));
    this.vcpus = this.#vcpuFds.map((file, index) => {
      const vcpu = Vcpu.open(index, file, this.system.vcpuMmapSize);
      vcpu.setUp(guestCpuid(supported, { index, topology: flatTopology(vcpus) }, host));
      vcpu.setSignalMask(mask);
      return vcpu;
    });
    this.vcpu(0).applyStart(mode === 64 ? START_64 : START_32);
  }

  vcpu(index = 0): Vcpu {
    const vcpu = this.vcpus[index];
    if (vcpu === undefined) throw new RangeError(`The test has no vCPU ${index}`);
    return vcpu;
  }

  vcpuFd(index = 0): Fd {
    return this.#vcpuFds[index] ?? fd(-1);
  }

  /** Puts assembled code into RAM at its origin. */
  load(code: Assembler): void {
    const bytes = code.assemble();
    new Uint8Array(this.memory.buffer).set(bytes, code.origin);
  }

  /** Makes an interrupt vector call `address`; in long mode. Intel SDM vol. 3 §6.14.1 */
  setHandler(vector: number, address: number): void {
    const gate = IDT + 16 * vector;
    this.memory.setUint32(gate, (LONG_CODE_SELECTOR << 16) | (address & 0xffff), true);
    this.memory.setUint32(gate + 4, (address & 0xffff_0000) | 0x8e00, true);
  }

  /**
   * Runs a vCPU to its next exit.
   *
   * @throws Error with the registers when there is none in time, and when the exit is an error of KVM's.
   */
  run(index = 0, limitMs: number = RUN_LIMIT_MS): VcpuExit {
    const vcpu = this.vcpu(index);
    watchdog?.arm(limitMs);
    try {
      for (let outcome = vcpu.run(); outcome !== "exit"; outcome = vcpu.run()) {
        if (outcome === "fault") throw vcpu.memoryFault();
        drainKickSignals();
        if (watchdog?.hasFired === true) throw new Error(`The guest hangs ${vcpu.describeRegisters()}`);
      }
    } finally {
      watchdog?.disarm();
      drainKickSignals();
    }
    const exit = decodeExit(vcpu);
    if (exit.kind === "internalError" || exit.kind === "failEntry") {
      throw new Error(`${describeExit(vcpu)}\n${vcpu.describeRegisters()}`);
    }
    return exit;
  }

  /** Runs to the next exit, which must be a one-element write to a port; answers `[port, value]`. */
  runToOut(index = 0): readonly [port: number, value: number] {
    const exit = this.run(index);
    const value = exit.kind === "portWrite" ? exit.values[0] : undefined;
    if (exit.kind !== "portWrite" || value === undefined || exit.values.length !== 1) {
      throw new Error(
        `Expected a port write, got ${describeExit(this.vcpu(index))}\n${this.vcpu(index).describeRegisters()}`,
      );
    }
    return [exit.port, value];
  }

  /** A route that {@link close} releases, unless the test has. */
  route(name: string): MsiRoute {
    const route = this.routing.allocate(name);
    this.#undo.add(() => route.release());
    return route;
  }

  /** A doorbell that {@link close} unregisters, unless the test has. */
  doorbell(address: Gpa, width: Width | 0, onRing: () => void): void {
    const doorbell = this.doorbells.register(address, width, onRing);
    this.#undo.add(() => doorbell.unregister());
  }

  close(): void {
    this.#undo.undo();
    for (const vcpu of this.vcpus) vcpu.close();
    for (const file of this.#vcpuFds) libc.close(file);
    this.vm.close();
    this.system.close();
    this.loop.close();
    this.ram.unmap();
  }

  #writeTables(): void {
    this.memory.setBigUint64(GDT + CODE_SELECTOR, 0x00cf_9b00_0000_ffffn, true);
    this.memory.setBigUint64(GDT + DATA_SELECTOR, 0x00cf_9300_0000_ffffn, true);
    this.memory.setBigUint64(GDT + LONG_CODE_SELECTOR, 0x00af_9b00_0000_ffffn, true);
    const entry = (at: number, value: number): void => this.memory.setBigUint64(at, BigInt(value), true);
    entry(PAGE_TABLES, PAGE_TABLES + 0x1003); // present, writable
    for (let gib = 0; gib < 4; gib++) entry(PAGE_TABLES + 0x1000 + 8 * gib, PAGE_TABLES + 0x2003 + 0x1000 * gib);
    for (let page = 0; page < 2048; page++) entry(PAGE_TABLES + 0x2000 + 8 * page, page * 0x20_0000 + 0x83); // 2 MiB
  }
}

/** Ends the watchdog; for the end of a test file. */
export function stopWatchdog(): void {
  watchdog?.close();
}
