import type { Report } from "../base/backends.ts";
import type { BusRange } from "../base/bus.ts";
import { HostError } from "../base/errors.ts";
import type { Mapping, PeerMapper, PeerMapping, SlotMapper } from "../base/mappings.ts";
import { type Gpa, gpa, type Hva, hex, hva, iova, PAGE_SIZE } from "../base/units.ts";
import type { DeviceBackend, MappedRegion, RegionArea } from "./backend.ts";
import type { BarPlan, TrappedArea } from "./bar-areas.ts";

const DEAD = "dead: it can neither be mapped nor read";

/** What a BAR needs to become memory of the guest. */
export interface BarMappers {
  readonly slots: SlotMapper;
  /** Lets the machine's other devices reach the BAR; absent when none should. */
  readonly peerDma?: PeerMapper;
  /** The machine's MMIO bus: a BAR shorter than a page may not cover what shares its page. */
  readonly mmio?: { readonly ranges: readonly BusRange[] };
}

/** The memory BAR of a device. */
export interface MappedBarParts {
  readonly backend: DeviceBackend;
  readonly index: number;
  readonly plan: BarPlan;
  readonly sizeBytes: number;
  /** Whether a read at an offset is answered while the device decodes. */
  readonly canRead: (offset: number) => boolean;
}

/**
 * The areas of one memory BAR that the guest reaches without an exit. Where anything fails the area stays trapped,
 * which is slower and otherwise the same; it is reported once. An area that the host can neither map nor read is dead.
 * Then vfio-pci lacks the BAR's range, which something of the host may hold.
 */
export class MappedBar implements Disposable {
  readonly #name: string;
  readonly #mappers: BarMappers;
  readonly #report: Report;
  readonly #barBytes: number;
  readonly #areas: readonly { readonly area: RegionArea; readonly region: MappedRegion }[];
  readonly #unmapped: TrappedArea[] = [];
  readonly #shown: Mapping[] = []; // in order of making
  /** Those of peers, until they are gone: that may take longer than {@link hide}. */
  #peers: readonly PeerMapping[] = [];
  readonly #reported: Set<string> = new Set();
  readonly #shownAreas: RegionArea[] = [];
  #slotBytes = 0;

  constructor({ backend, index, plan, sizeBytes, canRead }: MappedBarParts, mappers: BarMappers, report: Report) {
    this.#name = `BAR ${index} of ${backend.name}`;
    this.#mappers = mappers;
    this.#report = report;
    this.#barBytes = sizeBytes;
    this.#areas = plan.mapped.flatMap((area) => {
      const region = this.#try(
        () => backend.mapRegion(index, area),
        (error) => this.#mappingFailed(area, error, canRead(area.offset)),
      );
      return region === undefined ? [] : [{ area, region }];
    });
  }

  /** What was to be mapped and could not be, in order. */
  get unmappedAreas(): readonly TrappedArea[] {
    return this.#unmapped;
  }

  /** What the guest reaches without an exit now, from the BAR's start. */
  get shownAreas(): readonly RegionArea[] {
    return this.#shownAreas;
  }

  /** Bytes that the guest reaches without an exit now. */
  get slotBytes(): number {
    return this.#slotBytes;
  }

  /** Puts the areas into the guest-physical space. The device must decode its BAR: mapping for peers touches it. */
  show(address: Gpa): void {
    this.hide();
    for (const { area, region } of this.#areas) {
      const at = gpa(address + area.offset);
      if (at % PAGE_SIZE !== 0 || !this.#ownsPages(address, at, region.sizeBytes)) {
        this.#once(
          "page",
          "info",
          `${this.#name} stays trapped at ${hex(address)}: it does not have its page to itself`,
        );
        continue;
      }
      const host = hva(region.address);
      const slot = this.#try(
        () => this.#mappers.slots.mapSlot(this.#name, at, host, region.sizeBytes, false),
        (error) => this.#once("slot", "warn", `${error.message}: it stays trapped`),
      );
      if (slot === undefined) continue;
      this.#shown.push(slot);
      this.#slotBytes += region.sizeBytes;
      this.#shownAreas.push({ offset: area.offset, sizeBytes: region.sizeBytes });
      this.#showToPeers(at, host, region.sizeBytes);
    }
  }

  /** Takes the areas away from peers, as far as that is quick, and from the guest. The device still decodes its BAR. */
  hide(): void {
    // Last first: an area's peers lose it before its slot goes.
    for (let mapping = this.#shown.pop(); mapping !== undefined; mapping = this.#shown.pop()) mapping.unmap();
    this.#slotBytes = 0;
    this.#shownAreas.length = 0;
  }

  /** Gives the mappings of the device's memory back. */
  close(): void {
    this.hide();
    for (const peer of this.#peers) peer.unmapNow();
    for (const { region } of this.#areas) region.unmap();
  }

  #showToPeers(at: Gpa, host: Hva, sizeBytes: number): void {
    const peer = this.#mappers.peerDma?.mapPeer(this.#name, iova(at), host, sizeBytes, (error) =>
      this.#once("peer", "warn", `${error.message}: other devices cannot reach it by DMA`),
    );
    if (peer === undefined) return;
    this.#shown.push(peer);
    this.#peers = [...this.#peers.filter(({ isGone }) => !isGone), peer];
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Only a BAR shorter than a page can have neighbours in its page, if the guest moved them there. */
  #ownsPages(barAddress: Gpa, address: number, sizeBytes: number): boolean {
    if (this.#barBytes >= PAGE_SIZE) return true;
    return !(this.#mappers.mmio?.ranges ?? []).some(
      (range) =>
        range.base !== barAddress && range.base < address + sizeBytes && range.base + range.sizeBytes > address,
    );
  }

  #mappingFailed(area: RegionArea, error: HostError, isReadable: boolean): void {
    if (isReadable) this.#once("map", "warn", `${error.message}: it stays trapped`);
    else {
      const dead = "it is dead: the host cannot read it either, and the guest reads all ones";
      this.#once("map", "error", `${error.message}: ${dead} (look for what holds its range in /proc/iomem)`);
    }
    this.#unmapped.push({ ...area, reason: isReadable ? "mapping it failed" : DEAD });
  }

  #try<Result>(work: () => Result, failed: (error: HostError) => void): Result | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      failed(error);
      return undefined;
    }
  }

  #once(what: string, level: "info" | "warn" | "error", text: string): void {
    if (this.#reported.has(what)) return;
    this.#reported.add(what);
    this.#report(level, text);
  }
}
