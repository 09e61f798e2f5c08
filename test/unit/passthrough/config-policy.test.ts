import t from "tap";
import { decideConfig } from "../../../src/passthrough/config-policy.ts";
import { expressCapability, msixCapability, pciImage, pmCapability, u16, u32 } from "../../support/pci-image.ts";

const IDENTITY = { vendorId: 0x8086, deviceId: 0x1234, classCode: 0x02_0000 };

t.test(
  "decideConfig() keeps PM, MSI, MSI-X, PCI Express and vendor-specific capabilities where they are",
  async (t) => {
    const policy = decideConfig(
      pciImage({
        ...IDENTITY,
        capabilities: [
          pmCapability(0x40),
          // MSI with masks and 64-bit addresses
          { id: 0x05, at: 0x50, body: [...u16(0x0180), ...new Array(20).fill(0)] },
          msixCapability(0x70, 5, 0x3, 0x2003),
          { id: 0x09, at: 0x80, body: [0x10, ...new Array(13).fill(0x55)] },
          expressCapability(0xa0),
        ],
      }),
    );
    t.same(
      policy.standard.map(({ id, offset, sizeBytes, treatment }) => [id, offset, sizeBytes, treatment]),
      [
        [0x01, 0x40, 8, "power"],
        [0x05, 0x50, 24, "msi"],
        [0x11, 0x70, 12, "msix"],
        [0x09, 0x80, 16, "live"],
        [0x10, 0xa0, 60, "express"],
      ],
    );
    t.same(policy.hidden, []);
  },
);

t.test("decideConfig() hides what belongs to the host and what it does not know, with a reason each", async (t) => {
  const ids = [0x0f, 0x10, 0x15, 0x24, 0x13, 0x1b, 0x02, 0x1d, 0x1e, 0x2e, 0x0e, 0x01, 0x7777];
  const policy = decideConfig(
    pciImage({
      ...IDENTITY,
      capabilities: [
        expressCapability(0x40),
        { id: 0x14, at: 0x80, body: [0, 0] },
        { id: 0x77, at: 0x90, body: [1, 2] },
      ],
      extended: ids.map((id, index) => ({ id, at: 0x100 + 0x20 * index, body: u32(0xffff_ffff) })),
      sizeBytes: 4096,
    }),
  );
  t.same(policy.extended, []);
  t.same(
    policy.hidden.map((capability) => capability.id),
    [0x14, 0x77, ...ids],
  );
  t.ok(policy.hidden.every((capability) => capability.reason.length > 5));
});

t.test("decideConfig() shows extended space only with a PCI Express capability", async (t) => {
  const extended = [{ id: 0x03, at: 0x100, body: u32(1, 2) }];
  const conventional = decideConfig(
    pciImage({ ...IDENTITY, capabilities: [pmCapability(0x40)], extended, sizeBytes: 4096 }),
  );
  t.equal(conventional.sizeBytes, 256);
  t.same(conventional.extended, []);
  const express = decideConfig(
    pciImage({ ...IDENTITY, capabilities: [expressCapability(0x40)], extended, sizeBytes: 4096 }),
  );
  t.equal(express.sizeBytes, 4096);
  t.same(
    express.extended.map(({ id, version, offset, sizeBytes }) => [id, version, offset, sizeBytes]),
    [[0x03, 1, 0x100, 12]],
  );
});

t.test("decideConfig() gives bytes that no capability has to the device, hidden capabilities' not", async (t) => {
  const policy = decideConfig(
    pciImage({
      ...IDENTITY,
      capabilities: [pmCapability(0x50), { id: 0x08, at: 0x60, body: [0, 0] }, pmCapability(0xf8)],
    }),
  );
  t.same(policy.deviceSpecific, [
    { offset: 0x40, sizeBytes: 0x10 },
    { offset: 0x58, sizeBytes: 0x08 },
    { offset: 0x7c, sizeBytes: 0x7c }, // HyperTransport's slave interface has 28 bytes
  ]);
});

t.test(
  "decideConfig() gives bytes beyond 0x100 to the device, but those of capabilities by their own length",
  async (t) => {
    // As RTS525A has it: AER, a serial number, LTR and L1 substates; the driver reads 0x724 and 0x814.
    const image = pciImage({
      ...IDENTITY,
      capabilities: [expressCapability(0x40)],
      extended: [
        { id: 0x01, at: 0x100, body: new Array(0x44).fill(0) },
        { id: 0x03, at: 0x148, body: u32(1, 2) },
        { id: 0x18, at: 0x158, body: u32(0) },
        { id: 0x1e, at: 0x160, body: u32(0, 0, 0) },
      ],
      sizeBytes: 4096,
    });
    t.same(decideConfig(image).deviceSpecific, [
      { offset: 0x7c, sizeBytes: 0x84 },
      { offset: 0x12c, sizeBytes: 0x1c },
      { offset: 0x154, sizeBytes: 0x4 },
      { offset: 0x174, sizeBytes: 0xe8c },
    ]);
  },
);

t.test("decideConfig() keeps the first dword beyond 0x100 from a device without extended capabilities", async (t) => {
  const image = pciImage({ ...IDENTITY, capabilities: [expressCapability(0x40)], sizeBytes: 4096 });
  t.same(decideConfig(image).deviceSpecific, [
    { offset: 0x7c, sizeBytes: 0x84 },
    { offset: 0x104, sizeBytes: 0xefc },
  ]);
});

t.test("decideConfig() ends lists that loop, point into the header or at nothing", async (t) => {
  const looping = pciImage({ ...IDENTITY, capabilities: [pmCapability(0x40), pmCapability(0x48)] });
  looping[0x49] = 0x40;
  t.equal(decideConfig(looping).standard.length, 2);
  const intoHeader = pciImage({ ...IDENTITY, capabilities: [pmCapability(0x40)] });
  intoHeader[0x41] = 0x10;
  t.equal(decideConfig(intoHeader).standard.length, 1);
  const silent = pciImage({ ...IDENTITY, capabilities: [{ id: 0xff, at: 0x40, body: [0xff] }] });
  t.equal(decideConfig(silent).standard.length, 0);
  const express = pciImage({
    ...IDENTITY,
    capabilities: [expressCapability(0x40)],
    extended: [{ id: 0x03, at: 0x100, body: u32(1, 2) }],
    sizeBytes: 4096,
  });
  new DataView(express.buffer).setUint32(0x100, 0x1001_0003, true); // links to itself
  t.equal(decideConfig(express).extended.length, 1);
  t.equal(decideConfig(new Uint8Array(256).fill(0xff)).standard.length, 0);
});

t.test("decideConfig() shortens a capability that reaches into the next one", async (t) => {
  const policy = decideConfig(
    pciImage({ ...IDENTITY, capabilities: [{ id: 0x09, at: 0x40, body: [0xff] }, pmCapability(0x50)] }),
  );
  t.equal(policy.standard[0]?.sizeBytes, 0x10);
});
