import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { parseRun, type RunRequest } from "../../../../src/cli/options/parse.ts";

// A folder of its own: files of one batch share t.testdir().
const home = mkdtempSync(join(tmpdir(), "tsvmm-device-choices-"));
t.teardown(() => rmSync(home, { recursive: true, force: true }));
for (const file of ["vmlinux", "a.raw"]) writeFileSync(join(home, file), file);
for (const bdf of ["0000:01:00.0", "0000:01:00.1"]) {
  mkdirSync(join(home, bdf));
  writeFileSync(join(home, bdf, "vendor"), "0x8086");
  writeFileSync(join(home, bdf, "config"), "c");
}
const parse = (...argv: string[]): RunRequest => parseRun(["--kernel", `${home}/vmlinux`, ...argv], home);

t.test("parseRun() reads which devices reach each other's memory", async (t) => {
  const p2p = (...words: string[]): unknown => {
    const { platform, devices } = parse("--device", ...words).spec;
    return [platform.vfioP2pDma, devices.map((device) => device.p2p)];
  };
  t.same(p2p("~/0000:01:00.0", "~/0000:01:00.1,p2p=on"), [true, [undefined, true]]);
  t.same(p2p("~/0000:01:00.0,p2p=off", "--platform", "vfio_p2p_dma=off"), [false, [false]]);
  t.throws(() => parse("--platform", "num_pci_segments=2"), {
    message: /^--platform num_pci_segments: guests have segment 0 only/,
  });
});

t.test("parseRun() reads a disk's block size where one is given", async (t) => {
  const size = (value: string): number | undefined => parse("--disk", value).spec.disks[0]?.logicalBlockBytes;
  t.equal(size("~/a.raw"), undefined);
  t.equal(size("~/a.raw,logical_block_size=512"), 512);
  t.equal(size("~/a.raw,direct=on,logical_block_size=4096"), 4096);
});
