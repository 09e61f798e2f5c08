import t from "tap";
import { flatTopology } from "../../../src/base/cpu-topology.ts";
import {
  type CpuidEntry,
  type CpuidPlace,
  decodeCpuid,
  encodeCpuid,
  guestCpuid,
  physicalAddressBits,
} from "../../../src/kvm/cpuid.ts";

/** An entry with the given registers; the others are zero. */
function leaf(number: number, index: number, registers: Partial<CpuidEntry> = {}): CpuidEntry {
  return { function: number, index, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0, ...registers };
}

/** A processor of one package with one thread a core. */
const flat = (index: number, count: number): CpuidPlace => ({ index, topology: flatTopology(count) });

const HOST = { hasTscDeadlineTimer: true, brand: "Example CPU" } as const;

const INTEL: readonly CpuidEntry[] = [
  leaf(0, 0, { eax: 0x1f, ebx: 0x756e_6547, ecx: 0x6c65_746e, edx: 0x4965_6e69 }),
  leaf(1, 0, { eax: 0x806ea, ebx: 0x0510_0800, ecx: 0x0020_0001, edx: 0x1f8b_fbff }),
  leaf(4, 0, { eax: 0x1c00_4121 }),
  leaf(4, 3, { eax: 0x1c03_c163 }),
  leaf(4, 4),
  leaf(7, 0, { edx: 0x0340_0010 }),
  leaf(7, 1, { eax: 0x0020_0010, edx: 0x110 }),
  leaf(0xb, 0, { edx: 5 }),
  leaf(0xd, 0, { eax: 7 }),
  leaf(0x1d, 0, { eax: 1 }),
  leaf(0x1f, 0),
  leaf(0x4000_0000, 0, { eax: 0x4000_0001, ebx: 0x4b4d_564b }),
  leaf(0x4000_0001, 0, { eax: 0x0100_fefb }),
  leaf(0x8000_0001, 0, { ecx: 0x121 }),
  leaf(0x8000_0002, 0),
  leaf(0x8000_0003, 0),
  leaf(0x8000_0004, 0),
  leaf(0x8000_0008, 0, { eax: 0x3027 }),
];

const AMD: readonly CpuidEntry[] = [
  leaf(0, 0, { eax: 0xd, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 }),
  leaf(1, 0, { ebx: 0x0710_0800 }),
  leaf(0xb, 0),
  leaf(0x8000_0001, 0, { ebx: 0x4000_0000, ecx: 0x40_0391 }),
  leaf(0x8000_0008, 0, { eax: 0x3030, ebx: 0x1000_0005, ecx: 0x700f }),
  leaf(0x8000_001d, 0, { eax: 0x0000_4121 }),
  leaf(0x8000_001d, 3, { eax: 0x0003_c163 }),
  leaf(0x8000_001e, 0, { eax: 0x33, ebx: 0x103, ecx: 0x101, edx: 0 }),
  leaf(0x8000_0026, 0, { eax: 1 }),
];

function find(entries: readonly CpuidEntry[], number: number, index = 0): CpuidEntry {
  const found = entries.filter((entry) => entry.function === number && entry.index === index);
  const [entry] = found;
  if (entry === undefined || found.length > 1) throw new Error(`${found.length} entries for leaf ${number}.${index}`);
  return entry;
}

t.test("guestCpuid() puts APIC id, core count, hypervisor and TSC deadline into leaf 1", (t) => {
  const entry = find(guestCpuid(INTEL, flat(2, 3), HOST), 1);
  t.equal(entry.ebx, 0x0204_0800, "APIC id 2, four addressable ids, CLFLUSH size kept");
  t.equal(entry.ecx, 0x8120_0001);
  t.equal(entry.edx, 0x1f8b_fbff, "HTT with several cores");
  const alone = find(guestCpuid(INTEL, flat(0, 1), { hasTscDeadlineTimer: false }), 1);
  t.equal(alone.ebx, 0x0001_0800);
  t.equal(alone.ecx, 0x8020_0001, "no TSC deadline");
  t.equal(alone.edx, 0x0f8b_fbff, "no HTT");
  t.end();
});

t.test("guestCpuid() describes one socket of single-thread cores in leaves 0xb and 0x1f", (t) => {
  const entries = guestCpuid(INTEL, flat(5, 6), HOST);
  for (const number of [0xb, 0x1f]) {
    t.match(find(entries, number, 0), { flags: 1, eax: 0, ebx: 1, ecx: 0x100, edx: 5 });
    t.match(find(entries, number, 1), { flags: 1, eax: 3, ebx: 6, ecx: 0x201, edx: 5 });
    t.match(find(entries, number, 2), { flags: 1, eax: 0, ebx: 0, ecx: 2, edx: 5 });
  }
  const amd = guestCpuid(AMD, flat(0, 2), HOST);
  t.equal(find(amd, 0xb, 1).ebx, 2);
  t.notOk(
    amd.some((entry) => entry.function === 0x1f),
    "the host's CPU has no leaf 0x1f",
  );
  t.end();
});

t.test("guestCpuid() shares only the last-level cache between cores", (t) => {
  const intel = guestCpuid(INTEL, flat(0, 4), HOST);
  t.equal(find(intel, 4, 0).eax, 0x0c00_0121, "four core ids, private");
  t.equal(find(intel, 4, 3).eax, 0x0c00_c163, "shared by four");
  t.equal(find(intel, 4, 4).eax, 0, "the end of the list stays empty");
  const amd = guestCpuid(AMD, flat(0, 4), HOST);
  t.equal(find(amd, 0x8000_001d, 0).eax, 0x121);
  t.equal(find(amd, 0x8000_001d, 3).eax, 0xc163);
  t.end();
});

t.test("guestCpuid() fills AMD's topology leaves and leaves Intel's reserved ones alone", (t) => {
  const amd = guestCpuid(AMD, flat(3, 5), HOST);
  t.equal(find(amd, 0x8000_0001).ecx, 0x40_0393, "CmpLegacy");
  t.equal(find(amd, 0x8000_0008).ecx, 0x3004, "three core id bits, five cores");
  t.match(find(amd, 0x8000_001e), { eax: 3, ebx: 3, ecx: 0 });
  t.notOk(
    amd.some((entry) => entry.function === 0x8000_0026),
    "no second topology",
  );
  const intel = guestCpuid(INTEL, flat(3, 5), HOST);
  t.equal(find(intel, 0x8000_0001).ecx, 0x121);
  t.equal(find(intel, 0x8000_0008).ecx, 0);
  t.end();
});

t.test("guestCpuid() writes the host's brand string where KVM leaves it empty, and keeps one that is there", (t) => {
  const entries = guestCpuid(INTEL, flat(0, 1), HOST);
  t.match(find(entries, 0x8000_0002), { eax: 0x6d61_7845, ebx: 0x2065_6c70, ecx: 0x0055_5043, edx: 0 });
  const named = INTEL.map((entry) => (entry.function === 0x8000_0002 ? { ...entry, eax: 0x4141_4141 } : entry));
  t.equal(find(guestCpuid(named, flat(0, 1), HOST), 0x8000_0002).eax, 0x4141_4141);
  const long = guestCpuid(INTEL, flat(0, 1), { ...HOST, brand: "x".repeat(60) });
  t.equal(find(long, 0x8000_0004).edx, 0x0078_7878, "the last byte is zero");
  t.end();
});

t.test("guestCpuid() clears the extended MSI destination and, without tile state, AMX", (t) => {
  const entries = guestCpuid(INTEL, flat(0, 1), HOST);
  t.equal(find(entries, 0x4000_0001).eax, 0x0100_7efb);
  t.equal(find(entries, 7, 0).edx, 0x10);
  t.match(find(entries, 7, 1), { eax: 0x10, edx: 0x10 });
  t.notOk(entries.some((entry) => entry.function === 0x1d));
  const granted = INTEL.map((entry) => (entry.function === 0xd ? { ...entry, eax: 0x6_0007 } : entry));
  const withAmx = guestCpuid(granted, flat(0, 1), HOST);
  t.equal(find(withAmx, 7, 0).edx, 0x0340_0010);
  t.equal(find(withAmx, 0x1d).eax, 1);
  t.end();
});

t.test("physicalAddressBits() is what leaf 0x80000008 says, the guest's figure where it is less", (t) => {
  t.equal(physicalAddressBits(INTEL), 39);
  t.equal(physicalAddressBits([leaf(0x8000_0008, 0, { eax: 0x0030_3934 })]), 48);
  t.equal(physicalAddressBits([]), 36);
  t.end();
});

t.test("encodeCpuid() lays entries out as struct kvm_cpuid2, decodeCpuid() reads them back", (t) => {
  const bytes = encodeCpuid([leaf(1, 0), leaf(0xb, 1, { flags: 1, eax: 2, ebx: 3, ecx: 4, edx: 0xffff_fffe })]);
  t.equal(bytes.length, 8 + 2 * 40);
  const words = new Uint32Array(bytes.buffer);
  t.equal(words[0], 2, "nent");
  t.same([...words.subarray(12, 19)], [0xb, 1, 1, 2, 3, 4, 0xffff_fffe]);
  t.same(decodeCpuid(bytes)[1], leaf(0xb, 1, { flags: 1, eax: 2, ebx: 3, ecx: 4, edx: 0xffff_fffe }));
  t.end();
});
