import { join } from "node:path";
import t from "tap";
import { readRom } from "../../../../../src/vmm/device/passed/rom-file.ts";

t.test("readRom() answers a file's content, none, or the device's own", async (t) => {
  const folder = t.testdir({ "rom.bin": Buffer.from([0x55, 0xaa, 0x08]) });
  t.same(readRom("0000:01:00.0", { kind: "file", path: join(folder, "rom.bin") }), Buffer.from([0x55, 0xaa, 0x08]));
  t.equal(readRom("0000:01:00.0", { kind: "off" }), "none");
  t.equal(readRom("0000:01:00.0", { kind: "on" }), undefined);
  t.equal(readRom("0000:01:00.0", undefined), undefined);
});

t.test("readRom() says which file cannot be read", async (t) => {
  t.throws(() => readRom("0000:01:00.0", { kind: "file", path: "/no/such" }), {
    message: "Cannot read the expansion ROM for 0000:01:00.0: /no/such: ENOENT",
  });
});
