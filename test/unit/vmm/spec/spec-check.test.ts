import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { resolvePciFunction } from "../../../../src/vmm/spec/fields/spec-paths.ts";
import type { MachineInput } from "../../../../src/vmm/spec/spec.ts";
import { completeSpec } from "../../../../src/vmm/spec/spec-check.ts";
import { deadSocket } from "../../../support/socket-pair.ts";

// A folder of its own: files of one batch share t.testdir().
const directory = mkdtempSync(join(tmpdir(), "tsvmm-spec-check-"));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
for (const name of ["devices", "0000:01:00.0", "0000:01:00.1"]) mkdirSync(join(directory, name));
for (const [name, text] of [
  ["vmlinux", "kernel"],
  ["a.raw", "disk"],
  ["0000:01:00.0/vendor", "0x8086"],
  ["0000:01:00.0/config", "c"],
  ["0000:01:00.1/vendor", "0x8086"],
] as const) {
  writeFileSync(join(directory, name), text);
}
const kernel = `${directory}/vmlinux`;

t.test("completeSpec() fills in what a caller of the typed API leaves out", async (t) => {
  t.same(completeSpec({ kernel }), {
    kernel,
    cmdline: "",
    cpus: { count: 1 },
    memory: { sizeBytes: 536_870_912, hugepages: false, shared: true, prefault: false },
    platform: { vfioP2pDma: true },
    disks: [],
    devices: [],
    userDevices: [],
    serial: { kind: "api" },
    console: { kind: "off" },
    rng: { source: "/dev/urandom" },
    hasTestDevice: false,
    allowReboot: true,
  });
});

t.test("completeSpec() changes nothing in its own result", async (t) => {
  const input: MachineInput = {
    kernel,
    disks: [{ path: `${directory}/a.raw` }],
    devices: [{ path: `${directory}/0000:01:00.0/`, pciSlot: 4 }],
    debugExitPort: 0xf4,
    pollMicroseconds: 0,
    hasTestDevice: true,
    allowReboot: false,
  };
  const spec = completeSpec(input);
  t.same(completeSpec(spec), spec);
  t.match(spec, { debugExitPort: 0xf4, hasTestDevice: true, pollMicroseconds: 0, allowReboot: false });
});

t.test("completeSpec() knows the same device by its real path, whatever links lead there", async (t) => {
  const links = t.testdir({});
  symlinkSync(`${directory}/0000:01:00.0`, `${links}/card`);
  symlinkSync("card", `${links}/again`);
  const twice = [{ path: `${directory}/0000:01:00.0` }, { path: `${links}/again` }];
  t.throws(() => completeSpec({ kernel, devices: twice }), {
    path: "devices[1].path",
    message: /0000:01:00\.0 is given twice/,
  });
  t.equal(completeSpec({ kernel, devices: twice.slice(1) }).devices[0]?.path, `${directory}/0000:01:00.0`);
  const socket = deadSocket(t);
  symlinkSync(socket, `${links}/socket`);
  const sockets = [{ socket: `${links}/socket` }, { socket }];
  t.throws(() => completeSpec({ kernel, userDevices: sockets }), {
    path: "userDevices[1].socket",
    message: /is given twice/,
  });
});

t.test("completeSpec() names the place of a problem", async (t) => {
  const disk = { path: `${directory}/a.raw`, isReadOnly: true };
  const socket = deadSocket(t);
  const cases: readonly (readonly [Partial<MachineInput>, string])[] = [
    [{ kernel: "/no/such" }, "kernel"],
    [{ cpus: { count: 1.5 } }, "cpus.count"],
    [{ memory: { sizeBytes: Number.NaN } }, "memory.sizeBytes"],
    [{ disks: [disk, { path: "/no/such" }] }, "disks[1].path"],
    [{ disks: [disk, { ...disk, serial: "é" }] }, "disks[1].serial"],
    [{ disks: [disk, { ...disk, id: "_disk0" }] }, "disks[1].id"],
    [{ devices: [{ path: "" }] }, "devices[0].path"],
    [{ userDevices: [{ socket: kernel }] }, "userDevices[0].socket"],
    [{ userDevices: [{ socket, timeoutSeconds: 0 }] }, "userDevices[0].timeoutSeconds"],
    [{ userDevices: [{ socket, timeoutSeconds: 1.5 }] }, "userDevices[0].timeoutSeconds"],
    [{ rng: { source: directory } }, "rng.source"],
    [{ debugExitPort: -1 }, "debugExitPort"],
    [{ pollMicroseconds: -1 }, "pollMicroseconds"],
    [{ serial: { kind: "file", path: "" } }, "serial"],
    [{ devices: [{ path: `${directory}/0000:01:00.0`, rom: { kind: "file", path: "" } }] }, "devices[0].rom"],
  ];
  for (const [part, path] of cases) {
    t.throws(() => completeSpec({ kernel, ...part }), {
      name: "SpecError",
      path,
      message: new RegExp(`^${path.replace(/[[\].]/g, "\\$&")}: `),
    });
  }
});

t.test("resolvePciFunction() finds a function by its address, in the long and the short form", async (t) => {
  const devices = `${directory}/devices`;
  symlinkSync("../0000:01:00.0", `${devices}/0000:01:00.0`);
  const real = `${directory}/0000:01:00.0`;
  for (const path of ["0000:01:00.0", "01:00.0", `${devices}/0000:01:00.0`, `${devices}/0000:01:00.0/`, real]) {
    t.equal(resolvePciFunction("--device", path, devices), real, path);
  }
  t.throws(() => resolvePciFunction("--device", "02:00.0", devices), {
    message: "--device: this machine has no PCI function 0000:02:00.0 (tsvmm devices lists them)",
  });
});

t.test("resolvePciFunction() refuses a directory without a function's files", async (t) => {
  t.throws(() => resolvePciFunction("--device", `${directory}/0000:01:00.1`), { message: /is not a PCI function/ });
  t.throws(() => resolvePciFunction("--device", kernel), { message: /is not a PCI function/ });
});

t.test("completeSpec() refuses what has another type or name than a program without types may give", async (t) => {
  const path = `${directory}/a.raw`;
  const cases: readonly (readonly [object, string])[] = [
    [{ disk: [] }, "there is no field 'disk' (fields: kernel, initramfs, cmdline, "],
    [{ disks: [{ path, readonly: true }] }, "disks[0]: there is no field 'readonly' (fields: path, isReadOnly, "],
    [{ disks: [{ path, isReadOnly: "off" }] }, "disks[0].isReadOnly: 'off' is neither true nor false"],
    [{ disks: { path } }, "disks: an object is not a list"],
    [{ disks: [path] }, `disks[0]: '${path}' is not an object`],
    [{ disks: [{ path: 7 }] }, "disks[0].path: a path is needed"],
    [{ disks: [{ path, id: 7 }] }, "disks[0].id: 7 may have letters, digits, dots, dashes and underscores only"],
    [{ devices: "0000:01:00.0" }, "devices: '0000:01:00.0' is not a list"],
    [{ cmdline: ["quiet"] }, "cmdline: a list is not a text"],
    [{ cpus: 2 }, "cpus: 2 is not an object"],
    [{ cpus: { count: "2" } }, "cpus.count: '2' is not a whole number from 1 to 254"],
    [{ memory: { sizeBytes: "512M" } }, "memory.sizeBytes: '512M' is not a size in bytes"],
    [{ serial: "tty" }, "serial: 'tty' is not an object"],
    [{ serial: { kind: "stdio" } }, "serial: 'stdio' is none of off, null, tty, pty, api, file, socket"],
    [{ serial: { kind: "tty", path: "/x" } }, "serial: there is no field 'path' (fields: kind)"],
    [{ allowReboot: null }, "allowReboot: null is neither true nor false"],
  ];
  for (const [part, message] of cases) {
    // Cast: the point is what the type refuses.
    const input = { kernel, ...part } as MachineInput;
    t.throws(() => completeSpec(input), { name: "SpecError" }, message);
    try {
      completeSpec(input);
    } catch (error) {
      t.equal(error instanceof Error ? error.message.slice(0, message.length) : "", message);
    }
  }
  // Cast: as above.
  const withUndefined = { kernel, initramfs: undefined, disks: undefined } as unknown as MachineInput;
  t.same(completeSpec(withUndefined), completeSpec({ kernel }), "undefined is left out");
});
