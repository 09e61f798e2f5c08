import t from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { E1000E, EDU, KIOXIA, NVME, SD_HOST } from "../../support/fake-devices.ts";
import { PassthroughBench } from "../../support/fake-passthrough-host.ts";

const MEMORY = 2;
const interruptsOf = (log: readonly string[]): readonly string[] =>
  log.filter((line) => /^(arm|disarm|route|connect|disconnect|mask|unmask|resample)/.test(line));

/** Writes an entry of an MSI-X table as a driver does: message first, then the mask bit. */
function writeEntry(bench: PassthroughBench, table: number, vector: number, isMasked = false): void {
  const entry = table + 16 * vector;
  bench.host.mmio.write(entry, 4, 0xfee0_0000);
  bench.host.mmio.write(entry + 4, 4, 0);
  bench.host.mmio.write(entry + 8, 4, 0x4020 + vector);
  bench.host.mmio.write(entry + 12, 4, isMasked ? 1 : 0);
}

t.test("PassthroughFunction connects INTx when wired: masked while KVM's side is made", async (t) => {
  const bench = new PassthroughBench(SD_HOST);
  const log = interruptsOf(bench.host.takeLog()).map((line) => line.replace(/: \d+$/, ""));
  t.same(log, ["arm request 0", "arm intx 0", "mask intx", "connect gsi 17", "resample intx", "unmask intx"]);
  t.same(bench.function.summary().interrupts, { kind: "intx", armed: 1, repeated: 0 });
  t.not(bench.backend.resample, bench.backend.triggers.get("intx")?.[0]);
});

t.test("PassthroughFunction hands the guest's INTx disable bit to the device", async (t) => {
  const bench = new PassthroughBench(SD_HOST);
  bench.host.takeLog();
  bench.write(0x04, 2, 0x0402);
  t.ok(bench.host.takeLog().includes("write config 0x4/2 = 0x402"));
});

t.test("PassthroughFunction turns INTx off while MSI-X is enabled and on again afterwards", async (t) => {
  const bench = new PassthroughBench(NVME);
  bench.host.takeLog();
  bench.write(0x42, 2, 0xc000);
  t.same(interruptsOf(bench.host.takeLog()), ["disarm intx", "disconnect gsi 17", "arm msix 0: -1"]);
  bench.write(0x42, 2, 0);
  const log = interruptsOf(bench.host.takeLog());
  t.equal(log[0], "disarm msix");
  t.match(log[1], /^arm intx 0/);
});

t.test("PassthroughFunction arms a vector after its route is complete, only when the guest unmasks it", async (t) => {
  const bench = new PassthroughBench(KIOXIA);
  bench.write(0x04, 2, MEMORY);
  const table = bench.barAddress(0) + 0x5200;
  bench.write(0x42, 2, 0xc000); // enabled, function masked: as Linux starts
  for (let vector = 0; vector < 3; vector++) writeEntry(bench, table, vector, true);
  bench.host.takeLog();
  bench.write(0x42, 2, 0x8000);
  t.same(interruptsOf(bench.host.takeLog()), [], "all entries are masked");
  writeEntry(bench, table, 1);
  t.same(interruptsOf(bench.host.takeLog()), ["route 100 message 0x4021", "route 100 unmask", "arm msix 1: 100"]);
  t.same(bench.function.summary().interrupts, { kind: "msix", armed: 1, repeated: 0 });
});

t.test("PassthroughFunction masks by the route and leaves the host's vector armed", async (t) => {
  const bench = new PassthroughBench(KIOXIA);
  bench.write(0x04, 2, MEMORY);
  const table = bench.barAddress(0) + 0x5200;
  bench.write(0x42, 2, 0x8000);
  writeEntry(bench, table, 0);
  bench.host.takeLog();
  bench.host.mmio.write(table + 12, 4, 1);
  bench.host.mmio.write(table + 12, 4, 0);
  t.same(interruptsOf(bench.host.takeLog()), ["route 100 mask", "route 100 unmask"]);
});

t.test("PassthroughFunction signals vectors that were disarmed for a moment to make room", async (t) => {
  const bench = new PassthroughBench(NVME);
  bench.write(0x04, 2, MEMORY);
  const table = bench.barAddress(0) + 0x2000;
  bench.write(0x42, 2, 0x8000);
  writeEntry(bench, table, 0);
  bench.host.takeLog();
  writeEntry(bench, table, 1);
  t.same(interruptsOf(bench.host.takeLog()), [
    "route 101 message 0x4021",
    "route 101 unmask",
    "disarm msix",
    "arm msix 0: 100 101",
    "route 100 signal",
  ]);
  t.equal(bench.function.summary().interrupts.repeated, 1, "the interrupt of no host event is counted");
});

t.test("PassthroughFunction arms as many MSI messages as the guest enables, before it releases others", async (t) => {
  const bench = new PassthroughBench(EDU);
  const msi = bench.capability(0x05) ?? 0;
  bench.write(msi + 4, 4, 0xfee0_0000);
  bench.write(msi + 12, 2, 0x4040);
  bench.host.takeLog();
  bench.write(msi + 2, 2, 0x0011); // two messages, enabled
  t.same(interruptsOf(bench.host.takeLog()), [
    "route 100 message 0x4040",
    "route 100 unmask",
    "route 101 message 0x4041",
    "route 101 unmask",
    "disarm intx",
    "disconnect gsi 17",
    "arm msi 0: 100 101",
  ]);
  bench.write(msi + 2, 2, 0);
  const log = interruptsOf(bench.host.takeLog());
  t.same(log.slice(0, 3), ["route 100 mask", "route 101 mask", "disarm msi"]);
  t.same(log.slice(-2), ["route 100 release", "route 101 release"]);
});

t.test("PassthroughFunction arms four MSI messages that a guest enables with three of them masked", async (t) => {
  const image = EDU.image.slice();
  image.set([0x84, 0x01], 0x42); // mask bits
  const bench = new PassthroughBench({ ...EDU, image });
  bench.write(0x44, 4, 0xfee0_0000);
  bench.write(0x50, 4, 0x0e);
  bench.write(0x42, 2, 0x0021);
  t.same(bench.backend.triggers.get("msi"), [100, -1, -1, -1]);
  t.equal(bench.backend.config.getUint16(0x42, true) & 0x71, 0x21, "the device has what the guest wrote");
});

t.test("PassthroughFunction hands MSI Enable, rewritten with the same value, to a device that lost it", async (t) => {
  const bench = new PassthroughBench(EDU);
  bench.write(0x42, 2, 0x0021);
  bench.backend.vfioConfig.resetByBackDoor();
  t.equal(bench.backend.config.getUint16(0x42, true) & 1, 0);
  bench.host.takeLog();
  bench.write(0x42, 2, 0x0021);
  t.same(bench.host.takeLog(), ["write config 0x42/2 = 0xa5"]);
  t.equal(bench.backend.config.getUint16(0x42, true) & 0x71, 0x21);
});

t.test("PassthroughFunction hands rewritten MSI Enable on with the messages that the host granted", async (t) => {
  const bench = new PassthroughBench(EDU);
  bench.backend.vectorsLeft = 1;
  bench.write(0x42, 2, 0x0021);
  bench.write(0x42, 2, 0x0021);
  t.equal(bench.backend.config.getUint16(0x42, true) & 0x71, 0x01);
});

t.test("PassthroughFunction arms MSI-X anew when Enable is rewritten and the device lost it", async (t) => {
  const bench = new PassthroughBench(KIOXIA);
  bench.write(0x04, 2, MEMORY);
  const at = bench.capability(0x11) ?? 0;
  const table = bench.barAddress(0) + 0x5200;
  bench.write(at + 2, 2, 0x8000);
  writeEntry(bench, table, 0);
  bench.host.takeLog();
  bench.write(at + 2, 2, 0x8000);
  t.same(interruptsOf(bench.host.takeLog()), [], "it has it still");
  bench.backend.vfioConfig.resetByBackDoor();
  bench.write(at + 2, 2, 0x8000);
  t.same(interruptsOf(bench.host.takeLog()), ["disarm msix", "arm msix 0: 100", "route 100 signal"]);
  t.equal(bench.backend.config.getUint16(at + 2, true) & 0x8000, 0x8000);
});

t.test("PassthroughFunction prefers MSI-X when a guest enables both, and falls back to MSI", async (t) => {
  const bench = new PassthroughBench({
    ...E1000E,
    image: withMsi(E1000E.image),
    interrupts: { ...E1000E.interrupts, msi: { count: 1 } },
  });
  bench.write(0xd2, 2, 1);
  t.equal(bench.function.summary().interrupts.kind, "msi");
  bench.write(0xa2, 2, 0x8000);
  t.equal(bench.function.summary().interrupts.kind, "msix");
  bench.write(0xa2, 2, 0);
  t.equal(bench.function.summary().interrupts.kind, "msi");
});

t.test("PassthroughFunction reports once what the host refuses to arm and goes on", async (t) => {
  const bench = new PassthroughBench(NVME);
  bench.backend.failures.set(
    "setTrigger",
    new HostError("TSVMM_HOST_CALL", "Cannot arm 1 msix vectors: the host has 0 left"),
  );
  bench.write(0x42, 2, 0x8000);
  bench.write(0x42, 2, 0);
  bench.write(0x42, 2, 0x8000);
  t.equal(bench.host.reports.filter((line) => line.includes("msix")).length, 2, "once for MSI-X, once for INTx");
  t.equal(bench.function.summary().interrupts.kind, "none");
  bench.backend.failures.clear();
  bench.write(0x42, 2, 0);
  t.equal(bench.function.summary().interrupts.kind, "intx", "it comes back when the host can");
});

t.test("PassthroughFunction undoes INTx when KVM's side cannot be made", async (t) => {
  const bench = new PassthroughBench(NVME);
  bench.write(0x42, 2, 0x8000);
  bench.host.failures.set("connect", new HostError("TSVMM_HOST_CALL", "Cannot connect INTx"));
  bench.write(0x42, 2, 0);
  t.notOk(bench.backend.triggers.has("intx"));
  t.match(bench.host.reports, [/Cannot connect INTx/]);
});

/** The image with an MSI capability of one message at 0xd0 linked behind the others. */
function withMsi(image: Uint8Array): Uint8Array {
  const bytes = image.slice();
  let last = bytes[0x34] ?? 0;
  while (bytes[last + 1] !== 0) last = bytes[last + 1] ?? 0;
  bytes[last + 1] = 0xd0;
  bytes.set([0x05, 0x00, 0x80, 0x00], 0xd0);
  return bytes;
}
