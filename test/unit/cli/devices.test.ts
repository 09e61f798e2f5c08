import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { devices } from "../../../src/cli/devices.ts";
import { parseRecording } from "../../../src/passthrough/recording.ts";
import { fakeSurroundings } from "../../support/fake-surroundings.ts";
import type { SysfsFunction } from "../../support/fake-sysfs.ts";

const FUNCTIONS: readonly SysfsFunction[] = [
  { bdf: "0000:00:01.0", class: "0x060400", driver: "pcieport", group: 1 },
  {
    bdf: "0000:01:00.0",
    vendor: "0x1b36",
    device: "0x0010",
    class: "0x010802",
    driver: "vfio-pci",
    group: 7,
    resource: ["0x00000000fe000000 0x00000000fe003fff 0x0000000000140204"],
    resetMethod: "flr bus",
    numaNode: 1,
  },
  { bdf: "0000:02:00.0", driver: "e1000e", group: 8 },
  { bdf: "0000:02:00.1", driver: "snd_hda_intel", group: 8 },
];

t.test("devices() prints a table: verdict, names, BARs, reset, node and group of each function", async (t) => {
  const around = fakeSurroundings(t, FUNCTIONS);
  t.equal(await devices([], around), 0);
  t.equal(
    around.printed(),
    `ADDRESS       DRIVER         GROUP  VERDICT
0000:00:01.0  pcieport           1  blocked: it is a bridge
    class 060400: [8086:10d3]
    no BARs; reset -; NUMA node -; alone in its group
0000:01:00.0  vfio-pci           7  ready
    NVMe: Red Hat, Inc. QEMU NVM Express Controller [1b36:0010]
    BAR 0 16K; reset flr, bus; NUMA node 1; alone in its group
0000:02:00.0  e1000e             8  needs bind, of 0000:02:00.0, 0000:02:00.1
    class 020000: [8086:10d3]
    no BARs; reset -; NUMA node -; group with 0000:02:00.1 (snd_hda_intel)
0000:02:00.1  snd_hda_intel      8  needs bind, of 0000:02:00.1, 0000:02:00.0
    class 020000: [8086:10d3]
    no BARs; reset -; NUMA node -; group with 0000:02:00.0 (e1000e)
`,
  );
});

t.test("devices() keeps to the terminal's width, however narrow", async (t) => {
  for (const columns of [100, 80, 60, 40]) {
    const around = fakeSurroundings(t, FUNCTIONS, columns);
    await devices([], around);
    const wide = around
      .printed()
      .split("\n")
      .filter((line) => line.length > columns);
    t.same(wide, [], `${columns} columns`);
  }
});

t.test("devices() prints the functions that are named, as JSON where asked", async (t) => {
  const around = fakeSurroundings(t, FUNCTIONS);
  t.equal(await devices(["--json", "01:00.0"], around), 0);
  t.same(JSON.parse(around.printed()), [
    {
      address: "0000:01:00.0",
      vendorId: 0x1b36,
      deviceId: 0x10,
      classCode: 0x01_0802,
      vendor: "Red Hat, Inc.",
      device: "QEMU NVM Express Controller",
      class: "NVMe",
      driver: "vfio-pci",
      group: { number: 7, members: [{ address: "0000:01:00.0", driver: "vfio-pci" }] },
      resetMethods: ["flr", "bus"],
      numaNode: 1,
      bars: [{ index: 0, kind: "memory", sizeBytes: 0x4000 }],
      verdict: { state: "ready" },
    },
  ]);
});

t.test("devices() says so where there are no PCI functions", async (t) => {
  const around = fakeSurroundings(t, []);
  t.equal(await devices([], around), 0);
  t.equal(around.printed(), "");
  t.equal(around.remarks(), "this host has no PCI functions\n");
});

t.test("devices() --record writes a description that can be read back", async (t) => {
  const around = fakeSurroundings(t, FUNCTIONS);
  writeFileSync(join(around.root.sys, "bus/pci/devices/0000:02:00.0/config"), Buffer.alloc(256, 1));
  const file = join(around.root.sys, "nic.json");
  t.equal(await devices(["--record", "0000:02:00.0", file], around), 0);
  t.match(parseRecording(readFileSync(file, "utf8")), { name: "0000:02:00.0", source: "sysfs" });
  t.match(around.remarks(), /belongs to e1000e, not vfio-pci: recorded from sysfs/);
  t.equal(await devices(["--record", "0000:02:00.0", "-"], around), 0);
  t.match(parseRecording(around.printed()), { name: "0000:02:00.0" });
  await t.rejects(devices(["--record", "0000:02:00.0", "/dev/full"], around), {
    ...{ name: "HostError", message: "Cannot write the recording to /dev/full: ENOSPC" },
  });
});

t.test("devices() refuses wrong words in one line", async (t) => {
  const around = fakeSurroundings(t, FUNCTIONS);
  const refused = async (...argv: string[]): Promise<string> => {
    try {
      await devices(argv, around);
    } catch (error) {
      if (error instanceof Error) return error.message;
    }
    return "accepted";
  };
  t.match(await refused("0000:09:00.0"), "this machine has no PCI function 0000:09:00.0");
  t.match(await refused("nonsense"), "there is no directory nonsense");
  t.match(await refused(""), /^a PCI function is needed/);
  t.match(await refused("../../etc\0"), /\S/);
  t.equal(await refused("01:00.0", "0000:01:00.0"), "0000:01:00.0 is given twice");
  t.equal(await refused("--record"), "--record: needs a value: --record BDF");
  t.match(await refused("--record", "01:00.0"), /^--record: needs a file/);
  t.match(await refused("--record", "01:00.0", "a", "b"), /'b' is too many$/);
  t.match(await refused("--record", "01:00.0", "a", "--json"), /^--json: a recording is JSON/);
  t.equal(await refused("--recod"), "unknown option '--recod'; did you mean '--record'?");
  t.equal(await refused("--table"), "unknown option '--table'; tsvmm devices --help lists them");
  t.equal(await refused("--record", "02:00.0", "/no/such/file"), "--record: there is no directory /no/such");
});

t.test("devices() prints its help", async (t) => {
  const around = fakeSurroundings(t, []);
  t.equal(await devices(["--help"], around), 0);
  t.match(around.printed(), /tsvmm devices \[--json\]/);
  t.match(around.printed(), /--record BDF/);
});
