import t from "tap";
import type { MsiRoute } from "../../../src/base/signals.ts";
import { ConfigSpace } from "../../../src/pci/config-space.ts";
import { MsixCapability, type MsixOptions } from "../../../src/pci/msix.ts";
import type { VectorHost } from "../../../src/pci/vectors.ts";
import { FakeMsiRouter } from "../../support/fake-msi-router.ts";

const ENABLE = 0x8000;
const MASK_ALL = 0x4000;

class RecordingHost implements VectorHost {
  readonly calls: string[] = [];
  vectorsChanged(kind: "msi" | "msix", isEnabled: boolean, used: readonly (MsiRoute | undefined)[]): void {
    const vectors = [...used.keys()].filter((vector) => used[vector] !== undefined);
    this.calls.push(`${kind} ${isEnabled ? "on" : "off"} [${vectors.join(" ")}]`);
  }
}

function device(vectorCount: number, options: Partial<MsixOptions> = {}) {
  const config = new ConfigSpace("nic", 256);
  const router = new FakeMsiRouter();
  const host = new RecordingHost();
  const msix = new MsixCapability({
    config,
    router,
    vectorCount,
    table: { bar: 4, offset: 0x2000 },
    pba: { bar: 4, offset: 0x3000 },
    host,
    ...options,
  });
  const control = (value: number): void => config.write(msix.offset + 2, 2, value);
  /** Writes an entry as Linux does: address, data, and last the vector control. */
  const entry = (vector: number, data: number, vectorControl: number): void => {
    msix.writeTable(16 * vector, 4, 0xfee0_1000);
    msix.writeTable(16 * vector + 4, 4, 0);
    msix.writeTable(16 * vector + 8, 4, data);
    msix.writeTable(16 * vector + 12, 4, vectorControl);
  };
  const data = (): number[] => router.deliveries.map(({ message }) => message.data);
  return { config, router, host, msix, control, entry, data };
}

t.test("MsixCapability shows table size, table and pending bits where it was told", async (t) => {
  const { config, msix } = device(33);
  t.equal(config.read(0x34, 1), msix.offset);
  t.equal(config.read(msix.offset, 4), 0x0020_0011);
  t.equal(config.read(msix.offset + 4, 4), 0x2004);
  t.equal(config.read(msix.offset + 8, 4), 0x3004);
  t.equal(msix.tableSizeBytes, 528);
  t.equal(msix.pbaSizeBytes, 8);
  t.equal(device(65).msix.pbaSizeBytes, 16);
  config.write(msix.offset, 4, 0xffff_ffff);
  t.equal(config.read(msix.offset, 4), 0xc020_0011, "only enable and function mask can be written");
});

t.test("MsixCapability keeps the place a real device has", async (t) => {
  const { msix } = device(8, { at: 0x70 });
  t.equal(msix.offset, 0x70);
});

t.test("MsixCapability refuses counts and places MSI-X does not have", async (t) => {
  t.throws(() => device(0), RangeError);
  t.throws(() => device(2049), RangeError);
  t.throws(() => device(2, { table: { bar: 0, offset: 4 } }), RangeError);
});

t.test("MsixCapability follows Linux: enable masked, fill entries, unmask the function", async (t) => {
  const { router, host, msix, control, entry, data } = device(64);
  control(ENABLE | MASK_ALL);
  t.same(host.calls.splice(0), ["msix on []"]);
  for (const vector of [0, 1, 5]) entry(vector, 0x40 + vector, 0);
  t.same(router.log, [], "nothing is routed while the function is masked");
  t.same(host.calls, []);
  control(ENABLE);
  t.same(host.calls.splice(0), ["msix on [0 1 5]"]);
  t.equal(router.pushes, 1, "one table update for the whole function");
  t.same(
    router.routes.map((route) => route.name),
    ["nic msix 0", "nic msix 1", "nic msix 5"],
  );
  msix.signal(5);
  msix.signal(1);
  t.same(data(), [0x45, 0x41]);
  t.same(router.deliveries[0]?.message, { addressLow: 0xfee0_1000, addressHigh: 0, data: 0x45 });
});

t.test("MsixCapability adds vectors one by one as the guest unmasks them", async (t) => {
  const { router, host, control, entry } = device(4);
  control(ENABLE);
  entry(2, 0x42, 0);
  entry(0, 0x40, 0);
  t.same(host.calls, ["msix on []", "msix on [2]", "msix on [0 2]"]);
  entry(2, 0x52, 1);
  t.same(host.calls.length, 3, "masking later takes no vector away");
  t.equal(router.route("nic msix 2")?.isMasked, true);
});

t.test("MsixCapability masks a vector without losing a pending one, and delivers it once", async (t) => {
  const { msix, control, entry, data } = device(40);
  control(ENABLE);
  entry(35, 0x63, 0);
  msix.writeTable(35 * 16 + 12, 4, 1);
  msix.signal(35);
  msix.signal(35);
  t.same(data(), []);
  t.equal(msix.readPba(4, 4), 0x0000_0008);
  t.equal(msix.readPba(4, 1), 0x08);
  t.equal(msix.readPba(0, 4), 0);
  msix.writeTable(35 * 16 + 12, 4, 0);
  t.same(data(), [0x63]);
  t.equal(msix.readPba(4, 4), 0);
  msix.writeTable(35 * 16 + 12, 4, 1);
  msix.writeTable(35 * 16 + 12, 4, 0);
  t.same(data(), [0x63]);
});

t.test("MsixCapability keeps a vector pending that was never unmasked, with the message of the unmask", async (t) => {
  const { router, msix, control, entry, data } = device(2);
  control(ENABLE);
  msix.signal(1);
  t.equal(msix.readPba(0, 1), 0x02);
  t.equal(router.routes.length, 0, "pending alone takes no route");
  entry(1, 0x77, 0);
  t.same(data(), [0x77]);
  t.same(router.log.slice(-3), ["unmask nic msix 1", "push", "deliver nic msix 1"], "sent when the table is in force");
  t.equal(msix.readPba(0, 1), 0);
});

t.test("MsixCapability's function mask holds every vector back", async (t) => {
  const { router, msix, control, entry, data } = device(3);
  control(ENABLE);
  for (const vector of [0, 1, 2]) entry(vector, 0x30 + vector, 0);
  const before = router.pushes;
  control(ENABLE | MASK_ALL);
  t.equal(msix.isFunctionMasked, true);
  t.equal(router.pushes, before + 1);
  msix.signal(0);
  msix.signal(2);
  t.same(data(), []);
  t.equal(msix.readPba(0, 4), 5);
  control(ENABLE);
  t.same(data(), [0x30, 0x32]);
});

t.test("MsixCapability drops signals while it is disabled or for vectors that do not exist", async (t) => {
  const { msix, control, entry, data } = device(2);
  entry(0, 0x30, 0);
  msix.signal(0);
  control(ENABLE);
  msix.signal(2);
  msix.signal(0xffff);
  t.same(data(), []);
  t.equal(msix.readPba(0, 4), 0);
});

t.test("MsixCapability masks and gives back every route at disable, after the host has let go", async (t) => {
  const { router, host, msix, control, entry, data } = device(2);
  control(ENABLE);
  entry(0, 0x30, 0);
  entry(1, 0x31, 0);
  msix.writeTable(16 + 12, 4, 1);
  msix.signal(1);
  host.calls.length = 0;
  let liveAtCall = 0;
  host.vectorsChanged = (_kind, isEnabled, used) => {
    liveAtCall = router.live.filter((route) => route.isMasked).length;
    t.equal(isEnabled, false);
    t.same(used, [undefined, undefined]);
  };
  control(0);
  t.equal(liveAtCall, 2, "masked, not yet released when the host hears of it");
  t.equal(router.live.length, 0);
  t.equal(msix.isEnabled, false);
  host.vectorsChanged = () => {};
  control(ENABLE);
  t.equal(msix.readPba(0, 4), 0, "disabling forgets what was pending");
  t.same(data(), []);
  msix.signal(0);
  t.same(data(), [0x30], "the table is still filled");
});

t.test("MsixCapability forgets at disable what was pending without a route", async (t) => {
  const { msix, control, entry, data } = device(1);
  control(ENABLE | MASK_ALL);
  entry(0, 0x30, 0);
  msix.signal(0);
  t.equal(msix.readPba(0, 1), 1);
  control(0);
  control(ENABLE);
  t.same(data(), []);
});

t.test("MsixCapability.writeTable() merges bytes and words, wherever they start", async (t) => {
  const { msix } = device(2);
  t.equal(msix.readTable(12, 4), 1, "entries start masked");
  t.equal(msix.readTable(28, 4), 1);
  msix.writeTable(8, 4, 0x4433_2211);
  msix.writeTable(9, 1, 0xaa);
  msix.writeTable(10, 2, 0xccbb);
  t.equal(msix.readTable(8, 4), 0xccbb_aa11);
  t.equal(msix.readTable(9, 2), 0xbbaa);
  msix.writeTable(14, 4, 0xffff_ffff);
  t.equal(msix.readTable(12, 4), 1, "of the vector control only the mask bit exists");
  t.equal(msix.readTable(16, 4), 0x0000_fffc, "addresses are dword-aligned");
  msix.writeTable(30, 4, 0);
  t.equal(msix.readTable(30, 4), 0, "beyond the end nothing is kept");
  t.equal(msix.readTable(0x4000, 4), 0);
});

t.test("MsixCapability.writeTable() unmasks with a single byte", async (t) => {
  const { msix, control, data } = device(1);
  control(ENABLE);
  msix.writeTable(8, 2, 0x4055);
  msix.writeTable(12, 1, 0);
  msix.signal(0);
  t.same(data(), [0x4055]);
});

t.test("MsixCapability changes the message of an unmasked vector at once", async (t) => {
  const { router, host, msix, control, entry, data } = device(1);
  control(ENABLE);
  entry(0, 0x30, 0);
  host.calls.length = 0;
  msix.writeTable(8, 4, 0x31);
  msix.writeTable(8, 4, 0x31);
  msix.signal(0);
  t.same(data(), [0x31]);
  t.equal(router.log.filter((line) => line.startsWith("message")).length, 2, "an equal message is not set again");
  t.same(host.calls, []);
});

t.test("MsixCapability takes control writes of every width", async (t) => {
  const { config, msix, entry, data } = device(1);
  entry(0, 0x30, 0);
  config.write(msix.offset + 3, 1, 0x80);
  t.equal(msix.isEnabled, true);
  msix.signal(0);
  t.same(data(), [0x30]);
  config.write(msix.offset, 4, 0);
  t.equal(msix.isEnabled, false);
});

t.test("MsixCapability tells control changes with the old and the new word", async (t) => {
  const seen: string[] = [];
  const { host, control } = device(4, {
    controlChanged: (old, now) => seen.push(`${old.toString(16)}>${now.toString(16)} ${host.calls.length}`),
  });
  control(ENABLE | MASK_ALL);
  control(ENABLE | MASK_ALL);
  control(ENABLE);
  t.same(seen, ["3>c003 1", "c003>8003 1"], "after the host has followed, and only changes");
});

t.test("MsixCapability.reset() masks every entry again", async (t) => {
  const { config, router, host, msix, control, entry } = device(2);
  control(ENABLE);
  entry(0, 0x30, 0);
  msix.reset();
  t.equal(config.read(msix.offset + 2, 2), 0x0001);
  t.equal(msix.readTable(12, 4), 1);
  t.equal(msix.readTable(8, 4), 0);
  t.equal(router.live.length, 0);
  t.equal(host.calls.at(-1), "msix off []");
  control(ENABLE);
  t.equal(router.live.length, 0, "nothing is left unmasked");
});

t.test("MsixCapability.inspect() shows the vectors that the guest has touched, as it has them", async (t) => {
  const { msix, control, entry } = device(2048);
  t.same(msix.inspect(), { isEnabled: false, count: 2048, vectors: [] });
  control(ENABLE);
  entry(3, 0x41, 0);
  entry(7, 0x42, 1);
  msix.signal(7);
  msix.signal(9);
  const message = (data: number): object => ({ addressLow: 0xfee0_1000, addressHigh: 0, data });
  t.same(msix.inspect(), {
    isEnabled: true,
    count: 2048,
    vectors: [
      { index: 3, isMasked: false, isPending: false, message: message(0x41), route: "nic msix 3" },
      { index: 7, isMasked: true, isPending: true, message: message(0x42) },
      { index: 9, isMasked: true, isPending: true, message: { addressLow: 0, addressHigh: 0, data: 0 } },
    ],
  });
  control(ENABLE | MASK_ALL);
  t.equal(msix.inspect().vectors[0]?.isMasked, true, "masked with all others");
});
