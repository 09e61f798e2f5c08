import t from "tap";
import { HostError } from "../../../../../src/base/errors.ts";
import type { DmaMapper, PeerMapping } from "../../../../../src/base/mappings.ts";
import { hva, iova } from "../../../../../src/base/units.ts";
import { PeerDma } from "../../../../../src/vmm/device/passed/peer-dma.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const BAR = 16 * GIB;

/**
 * An IOMMU that walks memory 4 KiB at a time, as Linux before 6.14 does with device memory (vfio_pin_map_dma,
 * drivers/vfio/vfio_iommu_type1.c). A clock shows what its calls have taken.
 */
class SlowIommu {
  nowMs = 0;
  readonly turns: (() => void)[] = [];
  /** By address, with sizes. */
  readonly mappings = new Map<number, number>();
  readonly log: string[] = [];
  longestCallMs = 0;
  msPerMib = 0.04;
  /** Where mapping fails. */
  broken: number | undefined;
  readonly peers: PeerDma;

  constructor() {
    const dma: DmaMapper = {
      mapDma: (name, address, host, sizeBytes) => {
        this.nowMs += (sizeBytes / MIB) * this.msPerMib;
        if (host - address !== 2 ** 45) throw new Error("another memory's address");
        if (this.broken !== undefined && address + sizeBytes > this.broken)
          throw new HostError("TSVMM_HOST_CALL", "Cannot map it");
        for (const [other, size] of this.mappings) {
          if (address < other + size && other < address + sizeBytes) throw new Error(`${name} overlaps`);
        }
        this.mappings.set(address, sizeBytes);
        return {
          unmap: () => {
            this.nowMs += (sizeBytes / MIB) * this.msPerMib;
            this.mappings.delete(address);
          },
        };
      },
    };
    this.peers = new PeerDma(dma, { defer: (work) => void this.turns.push(work), nowMs: () => this.nowMs });
  }

  map(address: number, sizeBytes = BAR): PeerMapping {
    return this.timed(() =>
      this.peers.mapPeer("BAR 1", iova(address), hva(2 ** 45 + address), sizeBytes, (error) =>
        this.log.push(error.message),
      ),
    );
  }

  timed<T>(work: () => T): T {
    const start = this.nowMs;
    const result = work();
    this.longestCallMs = Math.max(this.longestCallMs, this.nowMs - start);
    return result;
  }

  turn(): void {
    for (const work of this.turns.splice(0)) this.timed(work);
  }

  settle(): void {
    while (this.turns.length > 0) this.turn();
  }

  get mappedBytes(): number {
    return [...this.mappings.values()].reduce((sum, size) => sum + size, 0);
  }
}

t.test("PeerDma maps and unmaps a large BAR in pieces, none of which keeps the device thread", async (t) => {
  const iommu = new SlowIommu();
  const mapping = iommu.map(64 * GIB);
  t.ok(iommu.mappedBytes > 0 && iommu.mappedBytes < BAR, "the guest goes on meanwhile");
  iommu.settle();
  t.equal(iommu.mappedBytes, BAR);
  t.ok(iommu.nowMs > 600, "it takes as long as it takes");
  iommu.timed(() => mapping.unmap());
  t.equal(mapping.isGone, false);
  t.ok(iommu.mappedBytes > 0);
  iommu.settle();
  t.equal(iommu.mappedBytes, 0);
  t.equal(mapping.isGone, true);
  t.ok(iommu.longestCallMs <= 10, `${iommu.longestCallMs} ms`);
});

t.test("PeerDma maps a BAR at once where the IOMMU is quick", async (t) => {
  const iommu = new SlowIommu();
  iommu.msPerMib = 0.000_01;
  const mapping = iommu.map(64 * GIB);
  t.equal(iommu.mappedBytes, BAR);
  t.ok(iommu.mappings.size <= 12, "in few pieces");
  t.ok([...iommu.mappings].every(([address, size]) => address % size === 0 || size < 32 * MIB));
  iommu.timed(() => mapping.unmap());
  t.equal(iommu.mappedBytes, 0);
  t.equal(iommu.turns.length, 0);
});

t.test("PeerDma clears an address before something else is mapped there", async (t) => {
  const iommu = new SlowIommu();
  const first = iommu.map(64 * GIB);
  iommu.settle();
  iommu.timed(() => first.unmap());
  iommu.map(72 * GIB, 4 * GIB);
  iommu.settle();
  t.equal(iommu.mappedBytes, 4 * GIB);
  t.ok(iommu.mappings.has(72 * GIB));
});

t.test("PeerDma keeps what is left of a BAR whose decode comes back, as after sizing", async (t) => {
  const iommu = new SlowIommu();
  const first = iommu.map(64 * GIB);
  iommu.settle();
  const before = iommu.nowMs;
  iommu.timed(() => first.unmap());
  const second = iommu.map(64 * GIB);
  iommu.settle();
  t.equal(iommu.mappedBytes, BAR);
  t.ok(iommu.nowMs - before < 50, `${iommu.nowMs - before} ms`);
  t.equal(first.isGone, true, "it is the second one's");
  first.unmapNow();
  t.equal(iommu.mappedBytes, BAR);
  second.unmapNow();
  t.equal(iommu.mappedBytes, 0);
});

t.test("PeerMapping.unmapNow() leaves nothing behind, whatever was under way", async (t) => {
  for (const turns of [0, 3, 1000]) {
    const iommu = new SlowIommu();
    const mapping = iommu.map(64 * GIB);
    for (let turn = 0; turn < turns; turn++) iommu.turn();
    mapping.unmap();
    mapping.unmapNow();
    t.equal(iommu.mappedBytes, 0, `after ${turns} turns`);
    iommu.settle();
    t.equal(iommu.mappedBytes, 0);
  }
});

t.test("PeerDma undoes a BAR that can be mapped in part only, and says so once", async (t) => {
  const iommu = new SlowIommu();
  iommu.broken = 70 * GIB;
  const mapping = iommu.map(64 * GIB);
  const other = iommu.map(32 * GIB, 4 * GIB);
  iommu.settle();
  t.same(iommu.log, ["Cannot map it"]);
  t.equal(iommu.mappedBytes, 4 * GIB, "the other BAR's");
  mapping.unmap();
  other.unmap();
  iommu.settle();
  t.equal(iommu.mappedBytes, 0);
});
