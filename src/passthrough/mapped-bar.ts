import type { Report } from "../base/backends.ts";
import type { BusRange } from "../base/bus.ts";
import { HostError } from "../base/errors.ts";
import type { Mapping, PeerMapper, PeerMapping, SlotMapper } from "../base/mappings.ts";
import { type Gpa, gpa, type Hva, hex, hva, iova, PAGE_SIZE } from "../base/units.ts";
import type { DeviceBackend, MappedRegion, RegionArea } from "./backend.ts";
import type { BarPlan } from "./bar-areas.ts";

/** What a BAR needs to become memory of the guest. */
export interface BarMappers {
  readonly slots: SlotMapper;
  /** Lets the machine's other devices reach the BAR; absent when none should. */
  readonly peerDma?: PeerMapper;
  /** The machine's MMIO bus: a BAR shorter than a page may not cover what shares its page. */
  readonly mmio?: { readonly ranges: readonly BusRange[] };
}

/**
 * The areas of one memory BAR that the guest reaches without an exit. Where anything fails the area stays trapped,
 * which is slower and otherwise the same; it is reported once.
 */
export class MappedBar implements Disposable {
  readonly #name: string;
  readonly #mappers: BarMappers;
  readonly #report: Report;
  readonly #barBytes: number;
  readonly #areas: readonly { readonly area: RegionArea; readonly region: MappedRegion }[];
  readonly #shown: Mapping[] = []; // in order of making
  /** Those of peers, until they are gone: that may take longer than {@link hide}. */
  #peers: readonly PeerMapping[] = [];
  readonly #reported: Set<string> = new Set();
  readonly #shownAreas: RegionArea[] = [];
  #slotBytes = 0;

  constructor(
    backend: DeviceBackend,
    index: number,
    plan: BarPlan,
    barBytes: number,
    mappers: BarMappers,
    report: Report,
  ) {
    this.#name = `BAR ${index} of ${backend.name}`;
    this.#mappers = mappers;
    this.#report = report;
    this.#barBytes = barBytes;
    this.#areas = plan.mapped.flatMap((area) => {
      const region = this.#try("map", () => backend.mapRegion(index, area));
      return region === undefined ? [] : [{ area, region }];
    });
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
      const slot = this.#try("slot", () => this.#mappers.slots.mapSlot(this.#name, at, host, region.sizeBytes, false));
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

  #try<Result>(step: "map" | "slot", work: () => Result): Result | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#once(step, "warn", `${error.message}: it stays trapped`);
      return undefined;
    }
  }

  #once(what: string, level: "info" | "warn", text: string): void {
    if (this.#reported.has(what)) return;
    this.#reported.add(what);
    this.#report(level, text);
  }
}
