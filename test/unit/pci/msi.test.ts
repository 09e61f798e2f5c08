import t from "tap";
import type { MsiRoute } from "../../../src/base/signals.ts";
import { ConfigSpace } from "../../../src/pci/config-space.ts";
import { MsiCapability, type MsiOptions } from "../../../src/pci/msi.ts";
import { FakeMsiRouter } from "../../support/fake-msi-router.ts";

function device(vectorCount: number, options: Partial<MsiOptions> = {}) {
  const config = new ConfigSpace("gpu", 256);
  const router = new FakeMsiRouter();
  const hostCalls: string[] = [];
  const host = {
    vectorsChanged: (kind: "msi" | "msix", isEnabled: boolean, used: readonly (MsiRoute | undefined)[]): void => {
      hostCalls.push(`${kind} ${isEnabled ? "on" : "off"} ${used.filter((route) => route !== undefined).length}`);
    },
  };
  const msi = new MsiCapability({ config, router, vectorCount, host, ...options });
  const at = msi.offset;
  const data = (): number[] => router.deliveries.map(({ message }) => message.data);
  return { config, router, hostCalls, msi, at, data };
}

t.test("MsiCapability lays out its registers in all four forms", async (t) => {
  for (const [is64Bit, hasMaskBits, flags, sizeBytes] of [
    [true, true, 0x018a, 24],
    [true, false, 0x008a, 14],
    [false, true, 0x010a, 20],
    [false, false, 0x000a, 10],
  ] as const) {
    const { config, at } = device(32, { is64Bit, hasMaskBits });
    t.equal(config.read(at, 1), 0x05);
    t.equal(config.read(at + 2, 2), flags);
    const next = config.addCapability(0x09, new Uint8Array(2));
    t.equal(next - at, Math.ceil(sizeBytes / 4) * 4, "takes no more room than it needs");
  }
});

t.test("MsiCapability lets the guest write what exists", async (t) => {
  const { config, at } = device(4);
  config.write(at + 2, 2, 0xfffe);
  t.equal(config.read(at + 2, 2), 0x01f4, "enable and the number of messages, with capability bits fixed");
  config.write(at + 4, 4, 0xffff_ffff);
  t.equal(config.read(at + 4, 4), 0xffff_fffc);
  config.write(at + 8, 4, 0x1234_5678);
  t.equal(config.read(at + 8, 4), 0x1234_5678);
  config.write(at + 12, 4, 0xffff_ffff);
  t.equal(config.read(at + 12, 4), 0x0000_ffff);
  config.write(at + 16, 4, 0xffff_ffff);
  t.equal(config.read(at + 16, 4), 0x0000_000f, "a mask bit for each vector");
  config.write(at + 20, 4, 0xffff_ffff);
  t.equal(config.read(at + 20, 4), 0, "pending bits are read-only");
});

t.test("MsiCapability sends one message once enabled", async (t) => {
  const { config, router, hostCalls, msi, at } = device(1, { hasMaskBits: false });
  config.write(at + 4, 4, 0xfee0_3000);
  config.write(at + 8, 4, 0);
  config.write(at + 12, 2, 0x4041);
  msi.signal(0);
  t.same(router.deliveries, []);
  t.same(router.log, [], "nothing is routed before it is enabled");
  config.write(at + 2, 2, 0x0001);
  msi.signal(0);
  t.same(router.deliveries, [
    { route: "gpu msi 0", message: { addressLow: 0xfee0_3000, addressHigh: 0, data: 0x4041 } },
  ]);
  t.same(hostCalls, ["msi on 1"]);
  t.equal(router.pushes, 1);
});

t.test("MsiCapability puts the vector into the low bits of the data", async (t) => {
  const { config, router, hostCalls, msi, at, data } = device(8);
  config.write(at + 4, 4, 0xfee0_0000);
  config.write(at + 12, 2, 0x4063);
  config.write(at + 2, 2, 0x0021);
  t.equal(msi.enabledCount, 4);
  t.equal(router.pushes, 1, "one table update for four vectors");
  t.same(hostCalls, ["msi on 4"]);
  for (const vector of [0, 1, 2, 3, 4]) msi.signal(vector);
  t.same(data(), [0x4060, 0x4061, 0x4062, 0x4063], "the fifth was not granted");
});

t.test("MsiCapability grants no more messages than the function has", async (t) => {
  const { config, msi, at } = device(2);
  config.write(at + 2, 2, 0x0071);
  t.equal(msi.enabledCount, 2);
});

t.test("MsiCapability keeps a masked vector pending and delivers it once at unmask", async (t) => {
  const { config, hostCalls, msi, at, data } = device(4);
  config.write(at + 12, 2, 0x40);
  config.write(at + 16, 4, 0x2);
  config.write(at + 2, 2, 0x0021);
  t.same(hostCalls, ["msi on 3"], "a vector masked since enable is not used");
  msi.signal(1);
  msi.signal(1);
  t.same(data(), []);
  t.equal(config.read(at + 20, 4), 0x2);
  t.equal(config.read(at + 20, 1), 0x2);
  t.equal(config.read(at + 21, 1), 0);
  config.write(at + 16, 4, 0);
  t.same(data(), [0x41]);
  t.equal(config.read(at + 20, 4), 0);
  t.same(hostCalls, ["msi on 3", "msi on 4"]);
  config.write(at + 16, 1, 0x1);
  msi.signal(0);
  t.equal(config.read(at + 20, 4), 0x1);
  t.same(hostCalls.length, 2, "masking later takes no vector away");
});

t.test("MsiCapability follows address and data changed while enabled", async (t) => {
  const { config, router, msi, at } = device(1, { is64Bit: false, hasMaskBits: false });
  config.write(at + 4, 4, 0xfee0_0000);
  config.write(at + 8, 2, 0x30);
  config.write(at + 2, 2, 0x0001);
  config.write(at + 4, 4, 0xfee0_1000);
  config.write(at + 8, 2, 0x31);
  msi.signal(0);
  t.same(router.deliveries[0]?.message, { addressLow: 0xfee0_1000, addressHigh: 0, data: 0x31 });
});

t.test("MsiCapability gives every route back at disable and at reset()", async (t) => {
  const { config, router, hostCalls, msi, at } = device(2);
  config.write(at + 4, 4, 0xfee0_0000);
  config.write(at + 2, 2, 0x0011);
  t.equal(router.live.length, 2);
  config.write(at + 2, 2, 0x0010);
  t.equal(router.live.length, 0);
  config.write(at + 2, 2, 0x0011);
  msi.reset();
  t.equal(router.live.length, 0);
  t.equal(msi.isEnabled, false);
  t.equal(config.read(at + 2, 2), 0x0182);
  t.equal(config.read(at + 4, 4), 0);
  t.same(hostCalls, ["msi on 2", "msi off 0", "msi on 2", "msi off 0"]);
});

t.test("MsiCapability tells control changes with the old and the new word", async (t) => {
  const seen: number[][] = [];
  const { config, at } = device(1, { at: 0x60, controlChanged: (old, now) => seen.push([old, now]) });
  t.equal(at, 0x60);
  config.write(at + 4, 4, 0xfee0_0000);
  config.write(at + 2, 2, 0x0001);
  config.write(at + 2, 2, 0x0001);
  config.write(at + 2, 2, 0x0000);
  t.same(seen, [
    [0x0180, 0x0181],
    [0x0181, 0x0180],
  ]);
});

t.test("MsiCapability refuses a count MSI does not have", async (t) => {
  for (const count of [0, 3, 64]) t.throws(() => device(count), RangeError);
});
