import t from "tap";
import { type Fd, fd } from "../../../src/base/units.ts";
import { libc } from "../../../src/host/libc.ts";
import { HostMapping } from "../../../src/host/memory/mapping.ts";
import { CoalescedWrites } from "../../../src/kvm/coalesced-writes.ts";

const PAGE = 4096;
/** KVM_COALESCED_MMIO_PAGE_OFFSET; entries of 24 bytes behind 8 of header. virt/kvm/coalesced_mmio.c */
const RING_PAGE = 2;
const ENTRIES = 170;

/** The ring as virt/kvm/coalesced_mmio.c fills it: an entry at `last`, and only while one stays free. */
class FakeRing {
  readonly vcpu: Fd;
  readonly #mapping: HostMapping;
  readonly #view: DataView;

  constructor(first: number) {
    this.vcpu = fd(libc.memfdCreate("kvm-vcpu", 1));
    libc.ftruncate(this.vcpu, 3 * PAGE);
    this.#mapping = HostMapping.ofFile("ring", this.vcpu, RING_PAGE * PAGE, PAGE);
    this.#view = new DataView(this.#mapping.view());
    this.#view.setUint32(0, first, true);
    this.#view.setUint32(4, first, true);
  }

  get first(): number {
    return this.#view.getUint32(0, true);
  }

  /** Coalesces a write of four bytes; `false` when the ring is full. */
  write(port: number, value: number): boolean {
    const last = this.#view.getUint32(4, true);
    if ((last + 1) % ENTRIES === this.first) return false;
    const at = 8 + 24 * last;
    this.#view.setBigUint64(at, BigInt(port), true);
    this.#view.setUint32(at + 8, 4, true);
    this.#view.setUint32(at + 16, value, true);
    this.#view.setUint32(4, (last + 1) % ENTRIES, true);
    return true;
  }

  close(): void {
    this.#mapping.unmap();
    libc.close(this.vcpu);
  }
}

function start(t: { teardown(work: () => void): unknown }, first = 0): { ring: FakeRing; coalesced: CoalescedWrites } {
  const ring = new FakeRing(first);
  const coalesced = new CoalescedWrites({ coalescePortWrites: () => undefined }, ring.vcpu);
  t.teardown(() => {
    coalesced.close();
    ring.close();
  });
  return { ring, coalesced };
}

t.test("CoalescedWrites.drain() delivers the ring's writes, oldest first, over the ring's end", async (t) => {
  const { ring, coalesced } = start(t, ENTRIES - 2);
  for (let value = 0; value < 5; value++) t.ok(ring.write(0xcf8, value));
  const seen: number[][] = [];
  coalesced.drain((port, width, value) => seen.push([port, width, value]));
  t.same(
    seen,
    [0, 1, 2, 3, 4].map((value) => [0xcf8, 4, value]),
  );
  t.equal(ring.first, 3);
});

t.test("CoalescedWrites.drain() ends while other vCPUs write as fast as it delivers", async (t) => {
  const { ring, coalesced } = start(t);
  ring.write(0xcf8, 1);
  ring.write(0xcf8, 2);
  let handed = 0;
  const write = (): void => {
    handed++;
    if (handed > 10 * ENTRIES) throw new Error("drain() does not end");
    ring.write(0x70, 0);
  };
  coalesced.drain(write);
  t.equal(handed, 2);
  coalesced.drain(write);
  t.equal(handed, 4, "the writes of other vCPUs come before the next access");
});
