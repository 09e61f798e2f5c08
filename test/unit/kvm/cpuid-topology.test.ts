import t from "tap";
import { type CpuidEntry, guestCpuid } from "../../../src/kvm/cpuid.ts";

/*
 * Two threads a core, three cores a die, two dies a package, two packages: APIC ids have one bit, two bits, one bit and
 * one bit. Processor 23 is the last one: thread 1 of core 2 of die 1 of package 1, APIC id 11101b.
 */

const TOPOLOGY = { threads: 2, cores: 3, dies: 2, packages: 2 };
const LAST_APIC_ID = 0b1_1_10_1;

/** An entry with the given registers; the others are zero. */
function leaf(number: number, index: number, registers: Partial<CpuidEntry> = {}): CpuidEntry {
  return { function: number, index, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0, ...registers };
}

const HOST = { hasTscDeadlineTimer: true } as const;
const CACHES: readonly (readonly [index: number, eax: number])[] = [
  [0, 0x0000_0121], // level 1, data
  [2, 0x0000_0143], // level 2
  [3, 0x0000_0163], // level 3
];
const INTEL: readonly CpuidEntry[] = [
  leaf(0, 0, { eax: 0x1f, ebx: 0x756e_6547 }),
  leaf(1, 0),
  ...CACHES.map(([index, eax]) => leaf(4, index, { eax })),
  leaf(0xb, 0),
  leaf(0x1f, 0),
];
const AMD: readonly CpuidEntry[] = [
  leaf(0, 0, { eax: 0xd, ebx: 0x6874_7541 }),
  leaf(1, 0),
  leaf(0xb, 0),
  leaf(0x8000_0001, 0),
  leaf(0x8000_0008, 0),
  ...CACHES.map(([index, eax]) => leaf(0x8000_001d, index, { eax })),
  leaf(0x8000_001e, 0),
];

const cpuid = (host: readonly CpuidEntry[], index: number): readonly CpuidEntry[] =>
  guestCpuid(host, { index, topology: TOPOLOGY }, HOST);

function find(entries: readonly CpuidEntry[], number: number, index = 0): CpuidEntry {
  const found = entries.filter((entry) => entry.function === number && entry.index === index);
  const [entry] = found;
  if (entry === undefined || found.length > 1) throw new Error(`${found.length} entries for leaf ${number}.${index}`);
  return entry;
}

const sharing = (entry: CpuidEntry): number => (entry.eax >>> 14) & 0xfff;

t.test("guestCpuid() tells leaf 1 the APIC id and the ids of one package", async (t) => {
  const { ebx, edx } = find(cpuid(INTEL, 23), 1);
  t.equal(ebx >>> 24, LAST_APIC_ID);
  t.equal((ebx >>> 16) & 0xff, 16);
  t.equal((edx >>> 28) & 1, 1, "HTT");
  const alone = guestCpuid(INTEL, { index: 1, topology: { threads: 1, cores: 1, dies: 1, packages: 2 } }, HOST);
  t.equal(find(alone, 1).ebx >>> 16, 0x0101, "APIC id 1, one id a package");
  t.equal((find(alone, 1).edx >>> 28) & 1, 0, "packages of one processor each");
});

t.test("guestCpuid() has threads, cores, dies in leaf 0x1f and no dies in leaf 0xb", async (t) => {
  const entries = cpuid(INTEL, 23);
  t.match(find(entries, 0x1f, 0), { eax: 1, ebx: 2, ecx: 0x100, edx: LAST_APIC_ID });
  t.match(find(entries, 0x1f, 1), { eax: 3, ebx: 6, ecx: 0x201, edx: LAST_APIC_ID });
  t.match(find(entries, 0x1f, 2), { eax: 4, ebx: 12, ecx: 0x502, edx: LAST_APIC_ID });
  t.match(find(entries, 0x1f, 3), { eax: 0, ebx: 0, ecx: 3 });
  t.match(find(entries, 0xb, 0), { eax: 1, ebx: 2, ecx: 0x100 });
  t.match(find(entries, 0xb, 1), { eax: 4, ebx: 12, ecx: 0x201 });
  t.match(find(entries, 0xb, 2), { eax: 0, ebx: 0, ecx: 2 });
});

t.test("guestCpuid() shares caches of two levels in a core, the third in a die", async (t) => {
  for (const [host, number] of [
    [INTEL, 4],
    [AMD, 0x8000_001d],
  ] as const) {
    const entries = cpuid(host, 0);
    t.same(
      [0, 2, 3].map((index) => sharing(find(entries, number, index))),
      [1, 1, 7],
      "ids that share it, less one",
    );
  }
  t.equal(find(cpuid(INTEL, 0), 4, 0).eax >>> 26, 7, "eight core ids a package, less one");
});

t.test("guestCpuid() tells AMD's leaves threads, cores and nodes", async (t) => {
  const entries = cpuid(AMD, 23);
  t.equal(find(entries, 0x8000_0008).ecx, 0x400b, "four bits, twelve threads a package");
  t.match(find(entries, 0x8000_001e), {
    eax: LAST_APIC_ID,
    ebx: 0x106, // two threads a core; core 2 of die 1
    ecx: 0x103, // two nodes a package; the fourth node
  });
  t.equal(find(entries, 0x8000_0001).ecx, 2, "CmpLegacy");
  t.match(find(entries, 0xb, 0), { eax: 1, ebx: 2 });
  t.match(find(entries, 0xb, 1), { eax: 4, ebx: 12 });
});
