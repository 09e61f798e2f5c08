import t from "tap";
import { SpecError } from "../../../src/base/errors.ts";
import {
  type DeviceRecording,
  formatRecording,
  hexLines,
  parseRecording,
  recordedConfig,
  recordedInterrupt,
  recordedRegion,
} from "../../../src/passthrough/recording.ts";

const recording: DeviceRecording = {
  version: 1,
  name: "0000:01:00.0",
  source: "vfio",
  resetMethods: ["flr", "bus"],
  configSpaceBytes: 4096,
  configSpace: [
    "00: 36 1b 10 00 07 05 10 00 02 02 08 01 00 00 00 00",
    "fe0: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 7f",
  ],
  regions: [
    {
      index: 0,
      size: 0x4000,
      flags: ["read", "write", "mmap"],
      mmapAreas: [
        { offset: 0, size: 0x2000 },
        { offset: 0x3000, size: 0x1000 },
      ],
      msixMappable: true,
    },
    { index: 7, size: 4096, flags: ["read", "write"], mmapAreas: [], msixMappable: false },
  ],
  interrupts: [
    { kind: "intx", count: 1, flags: ["automasked"] },
    { kind: "msix", count: 65, flags: ["noresize"] },
  ],
};

/** What a changed recording is refused with. */
function refusal(change: object): string {
  try {
    parseRecording(JSON.stringify({ ...recording, ...change }));
  } catch (error) {
    if (error instanceof SpecError) return error.message;
    throw error;
  }
  return "accepted";
}

t.test("parseRecording() reads what formatRecording() wrote", async (t) => {
  t.same(parseRecording(formatRecording(recording)), recording);
});

t.test("recordedConfig() and hexLines() are each other's inverse, and leave out lines of zeros", async (t) => {
  const bytes = recordedConfig(recording);
  t.equal(bytes.length, 4096);
  t.equal(bytes[0], 0x36);
  t.equal(bytes[0xfef], 0x7f);
  t.same(hexLines(bytes), recording.configSpace);
});

t.test("recordedRegion() and recordedInterrupt() answer in a backend's words", async (t) => {
  t.same(recordedRegion(recording, 0), {
    index: 0,
    sizeBytes: 0x4000,
    isReadable: true,
    isWritable: true,
    mappableAreas: [
      { offset: 0, sizeBytes: 0x2000 },
      { offset: 0x3000, sizeBytes: 0x1000 },
    ],
    isMsixMappable: true,
  });
  t.equal(recordedRegion(recording, 1), undefined);
  t.same(recordedInterrupt(recording, "intx"), { count: 1, canGrow: true, isAutomasked: true });
  t.same(recordedInterrupt(recording, "msix"), { count: 65, canGrow: false, isAutomasked: false });
  t.same(recordedInterrupt(recording, "msi"), { count: 0, canGrow: false, isAutomasked: false });
});

t.test("parseRecording() refuses what is no recording, and names the part", async (t) => {
  const region = recording.regions[0];
  t.throws(() => parseRecording("{"), { message: /^a recording has to be JSON/ });
  t.throws(() => parseRecording("[]"), { message: "an object is needed" });
  t.match(refusal({ version: 2 }), /^version: this program reads version 1, not 2/);
  t.match(refusal({ name: 5 }), /^name:/);
  t.match(refusal({ configSpaceBytes: 64 }), /^configSpaceBytes: is neither 256 nor 4096/);
  t.match(refusal({ configSpace: ["00: 36"] }), /^configSpace\[0\]: is not an offset/);
  t.match(refusal({ configSpace: [`1f0: ${"00 ".repeat(16).trim()}`], configSpaceBytes: 256 }), /^configSpace\[0\]:/);
  t.match(refusal({ regions: [{ ...region, index: 9 }] }), /^regions\[0\].index: has to be under 9/);
  t.match(refusal({ regions: [{ ...region, size: -1 }] }), /^regions\[0\].size/);
  t.match(
    refusal({ regions: [{ ...region, size: 0x3fff }] }),
    /^regions\[0\].mmapAreas\[1\]: is empty or lies outside/,
  );
  t.match(refusal({ regions: [{ ...region, flags: ["read"] }] }), /^regions\[0\].flags: lack mmap/);
  t.match(refusal({ regions: [{ ...region, flags: ["execute"] }] }), /"execute" is none of read, write, mmap/);
  t.match(refusal({ regions: [region, region] }), /^regions: one is given twice/);
  t.match(refusal({ interrupts: [{ kind: "nmi", count: 1, flags: [] }] }), /^interrupts\[0\].kind: is none of intx/);
  t.match(refusal({ interrupts: {} }), /^interrupts: a list is needed/);
});
