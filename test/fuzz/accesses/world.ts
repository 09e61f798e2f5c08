import type { BlockBackend, BlockStatus, CharBackend } from "../../../src/base/backends.ts";
import { Bus } from "../../../src/base/bus.ts";
import type { HostSegment } from "../../../src/base/guest-memory.ts";
import type { DmaMapper, HostMemory, Mapping, PeerMapper, SlotMapper } from "../../../src/base/mappings.ts";
import { gsi, hva } from "../../../src/base/units.ts";
import { PassthroughFunction } from "../../../src/passthrough/function.ts";
import type { DeviceRecording } from "../../../src/passthrough/recording.ts";
import type { PciWindows } from "../../../src/pci/bar-placement.ts";
import type { PciFunction } from "../../../src/pci/function.ts";
import { ConfigPorts, Ecam, HostBridge } from "../../../src/pci/host-bridge.ts";
import { PciRoot } from "../../../src/pci/root.ts";
import { VirtioBlock } from "../../../src/virtio/block.ts";
import { VirtioConsole } from "../../../src/virtio/console.ts";
import type { VirtioDevice } from "../../../src/virtio/device.ts";
import { VirtioPciFunction } from "../../../src/virtio/pci-transport.ts";
import { VirtioRng } from "../../../src/virtio/rng.ts";
import { PeerDma } from "../../../src/vmm/device/passed/peer-dma.ts";
import { intxGsi } from "../../../src/vmm/shared/memory-map.ts";
import { FakeDoorbells } from "../../support/fake-doorbells.ts";
import { FakeEvent } from "../../support/fake-event.ts";
import { FakeLine } from "../../support/fake-line.ts";
import { recordedDevice } from "../../support/recorded-devices.ts";
import { ReplayBackend } from "../../support/replay-backend.ts";
import { HandedMemory } from "./handed-memory.ts";
import { FuzzRouter } from "./router.ts";

export const WINDOWS: PciWindows = {
  ports: [{ base: 0x1000, sizeBytes: 0xf000 }],
  memory32: [{ base: 0xc000_0000, sizeBytes: 0x1000_0000 }],
  memory64: [{ base: 0x40_0000_0000, sizeBytes: 0x1_0000_0000 }],
};

/** Virtio devices come first: their names, slots and kinds. */
export const VIRTIO_NAMES = ["virtio-blk", "virtio-console", "virtio-rng"] as const;
/** Recordings that are replayed, with slot and function; two share a slot. */
const REPLAYED = [
  ["kioxia-cd8p", 4, 0],
  ["multi-message-msi", 5, 0],
  ["shared-page-32bit", 5, 1],
  ["e1000e", 6, 0],
  ["intel-dc-nvme", 7, 0],
  ["sub-page-bars", 8, 0],
  ["samsung-nvme", 9, 0],
  ["sdhci-pci", 10, 0],
] as const;
/** As they are read from their files, in the order of the functions behind the virtio ones. */
export const REPLAYED_RECORDINGS: readonly DeviceRecording[] = REPLAYED.map(([recording]) => recordedDevice(recording));
export const FUNCTION_COUNT: number = VIRTIO_NAMES.length + REPLAYED.length;

/** A function in the fuzzed machine. */
export interface FuzzedFunction {
  readonly name: string;
  readonly slot: number;
  readonly functionNumber: number;
  readonly pci: PciFunction;
  /** Of a replayed device. */
  readonly backend: ReplayBackend | undefined;
  /** Of a virtio device. */
  readonly line: FakeLine | undefined;
}

/** A piece of a BAR that the guest reaches without an exit, or that peers reach. */
export interface LiveMapping {
  readonly name: string;
  readonly address: number;
  readonly sizeBytes: number;
}

/**
 * The disk, character device and entropy behind the virtio devices; block requests wait for {@link
 * FuzzedWorld.completions}.
 */
class FuzzBlock implements BlockBackend {
  readonly sizeBytes = 64 * 1024;
  readonly isReadOnly = false;
  readonly blockSizeBytes = 512;
  readonly supportsDiscard = true;
  isDeferred = false;
  readonly #memory: HandedMemory;
  readonly #completions: (() => void)[];

  constructor(memory: HandedMemory, completions: (() => void)[]) {
    this.#memory = memory;
    this.#completions = completions;
  }

  read(offset: number, segments: readonly HostSegment[], done: (status: BlockStatus) => void): void {
    this.#perform(done, () => {
      let at = offset;
      for (const segment of segments) {
        this.#memory.checkHostStore(segment);
        this.#memory.atHost(segment).fill(at & 0xff);
        at += segment.sizeBytes;
      }
      if (at > this.sizeBytes) throw new Error(`a request reaches beyond the disk, to ${at}`);
    });
  }

  write(offset: number, segments: readonly HostSegment[], done: (status: BlockStatus) => void): void {
    const end = segments.reduce((sum, segment) => sum + this.#memory.atHost(segment).length, offset);
    if (end > this.sizeBytes) throw new Error(`a request reaches beyond the disk, to ${end}`);
    this.#perform(done, () => undefined);
  }

  flush(done: (status: BlockStatus) => void): void {
    this.#perform(done, () => undefined);
  }

  discard(offset: number, sizeBytes: number, done: (status: BlockStatus) => void): void {
    this.#range(offset, sizeBytes, done);
  }

  writeZeroes(offset: number, sizeBytes: number, _mayUnmap: boolean, done: (status: BlockStatus) => void): void {
    this.#range(offset, sizeBytes, done);
  }

  detach(): void {}

  #range(offset: number, sizeBytes: number, done: (status: BlockStatus) => void): void {
    if (offset + sizeBytes > this.sizeBytes)
      throw new Error(`a range reaches beyond the disk, to ${offset + sizeBytes}`);
    this.#perform(done, () => undefined);
  }

  #perform(done: (status: BlockStatus) => void, work: () => void): void {
    const finish = (): void => {
      work();
      done("ok");
    };
    if (this.isDeferred) this.#completions.push(finish);
    else finish();
  }
}

class FuzzChar implements CharBackend {
  #take: (bytes: Uint8Array) => number = () => 0;
  #waitingBytes = 0;

  type(count: number): void {
    this.#waitingBytes = Math.min(256, this.#waitingBytes + count);
    this.inputReady();
  }

  write(): void {
    // Whatever it is.
  }

  onInput(take: (bytes: Uint8Array) => number): void {
    this.#take = take;
  }

  inputReady(): void {
    if (this.#waitingBytes === 0) return;
    this.#waitingBytes -= this.#take(new Uint8Array(this.#waitingBytes).fill(0x61));
  }

  close(): void {
    // Holds nothing.
  }
}

/** A PCI root with all functions plugged and everything around them faked: what a fuzzed guest runs on. */
export class FuzzedWorld {
  readonly ports: Bus = new Bus("ports");
  readonly mmio: Bus = new Bus("mmio");
  readonly root: PciRoot;
  readonly ecam: Ecam;
  readonly configPorts: ConfigPorts;
  readonly memory: HandedMemory = new HandedMemory();
  readonly router: FuzzRouter;
  readonly doorbells: FakeDoorbells = new FakeDoorbells();
  readonly functions: readonly FuzzedFunction[];
  readonly slots: Set<LiveMapping> = new Set();
  readonly peerMappings: Set<LiveMapping> = new Set();
  /** Block requests under way. */
  readonly completions: (() => void)[] = [];
  readonly console: VirtioConsole;
  readonly #turns: (() => void)[] = [];
  readonly #block: FuzzBlock;
  readonly #char: FuzzChar = new FuzzChar();
  #columns = 80;

  /** @param ignoresMasks Puts a fault into the router. */
  constructor(ignoresMasks = false) {
    this.router = new FuzzRouter(ignoresMasks);
    const report = (): void => undefined;
    this.root = new PciRoot({ gsiOf: intxGsi, ports: this.ports, mmio: this.mmio, windows: WINDOWS, report });
    this.ecam = new Ecam(this.root);
    this.configPorts = new ConfigPorts(this.root);
    this.root.plug(new HostBridge(), 0);
    this.#block = new FuzzBlock(this.memory, this.completions);
    this.console = new VirtioConsole("virtio-console", this.#char, { columns: 80, rows: 25 });
    const devices: readonly VirtioDevice[] = [
      new VirtioBlock("virtio-blk", this.#block, "fuzz"),
      this.console,
      new VirtioRng("virtio-rng", { take: (target) => target.fill(0x77).length, onReady: () => undefined }),
    ];
    const virtio = devices.map((device, index) => this.#plugVirtio(device, index + 1));
    this.functions = [...virtio, ...REPLAYED.map((_, at) => this.#plugReplayed(at))];
    this.root.assignBars();
    for (const { pci, slot } of this.functions) {
      if (pci instanceof PassthroughFunction) pci.wireIntx(gsi(16 + (slot % 8)));
    }
  }

  /** What happens on the host's side without the guest. */
  hostEvent(event: HostEvent): void {
    switch (event) {
      case "deferRequests":
        this.#block.isDeferred = true;
        return;
      case "answerAtOnce":
        this.#block.isDeferred = false;
        return;
      case "completeOne":
        this.completions.shift()?.();
        return;
      case "completeLast":
        this.completions.pop()?.();
        return;
      case "type":
        this.#char.type(7);
        return;
      case "resize":
        this.#columns = 200 - this.#columns;
        this.console.resize(this.#columns, 25);
        return;
      case "turn":
        for (const work of this.#turns.splice(0)) work();
        return;
      default:
        return event satisfies never;
    }
  }

  /** Everything that was begun is done: requests answered, deferred work run. */
  quiesce(): void {
    this.#block.isDeferred = false;
    while (this.completions.length > 0) this.completions.shift()?.();
    for (let turn = 0; turn < 100 && this.#turns.length > 0; turn++) this.hostEvent("turn");
  }

  get hasDeferredWork(): boolean {
    return this.#turns.length > 0;
  }

  close(): void {
    this.root.close();
  }

  #plugVirtio(device: VirtioDevice, slot: number): FuzzedFunction {
    const line = new FakeLine(16 + slot);
    const pci = new VirtioPciFunction({
      name: device.name,
      device,
      memory: this.memory,
      router: this.router,
      doorbells: this.doorbells,
      line,
      report: () => undefined,
      defer: (work) => this.#turns.push(work),
    });
    this.root.plug(pci, slot);
    return { name: device.name, slot, functionNumber: 0, pci, backend: undefined, line };
  }

  #plugReplayed(at: number): FuzzedFunction {
    const [name, slot, functionNumber] = REPLAYED[at] ?? ["", 0, 0];
    const recording = REPLAYED_RECORDINGS[at];
    if (recording === undefined) throw new RangeError(`There is no replayed device ${at}`);
    const backend = new ReplayBackend({ ...recording, name });
    const pci = new PassthroughFunction(
      backend,
      { bars: "map", excludedMmapBars: [] },
      {
        router: this.router,
        slots: this.#mapper(this.slots),
        peerDma: this.#peers(),
        mmio: this.mmio,
        lines: { connect: () => ({ disconnect: () => undefined }) },
        createEvent: FakeEvent.create,
        createMemory: (_name, sizeBytes) => romMemory(sizeBytes),
        watcher: { watchRings: () => ({ setInterest: () => undefined, close: () => undefined }) },
        report: () => undefined,
      },
      { onError: () => undefined, onRequest: () => undefined },
    );
    this.root.plug(pci, slot, functionNumber);
    return { name, slot, functionNumber, pci, backend, line: undefined };
  }

  /** All at once: what is decoded is what peers reach. */
  #peers(): PeerMapper {
    const dma: DmaMapper = {
      mapDma: (name, address, _host, sizeBytes) => this.#map(this.peerMappings, name, address, sizeBytes),
    };
    return new PeerDma(dma, { defer: (work) => this.#turns.push(work), nowMs: () => 0 });
  }

  #mapper(into: Set<LiveMapping>): SlotMapper {
    return { mapSlot: (name, address, _host, sizeBytes) => this.#map(into, name, address, sizeBytes) };
  }

  #map(into: Set<LiveMapping>, name: string, address: number, sizeBytes: number): Mapping {
    if (address % 4096 !== 0 || sizeBytes % 4096 !== 0) throw new Error(`${name} is mapped off a page at ${address}`);
    for (const other of into) {
      if (address < other.address + other.sizeBytes && other.address < address + sizeBytes) {
        throw new Error(`${name} is mapped over ${other.name}`);
      }
    }
    const mapping = { name, address, sizeBytes };
    into.add(mapping);
    return { unmap: () => void into.delete(mapping) };
  }
}

/** Where a ROM's copy pretends to be. */
function romMemory(sizeBytes: number): HostMemory {
  const bytes = new ArrayBuffer(sizeBytes);
  return { address: hva(0x7100_0000_0000), view: () => bytes, unmap: () => undefined };
}

/** What the host does of its own accord. */
export type HostEvent = "deferRequests" | "answerAtOnce" | "completeOne" | "completeLast" | "type" | "resize" | "turn";
