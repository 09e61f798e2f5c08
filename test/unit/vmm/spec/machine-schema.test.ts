import { createRequire } from "node:module";
import t from "tap";
import { machineSchema } from "../../../../src/vmm/spec/machine-schema.ts";
import type { MachineInput } from "../../../../src/vmm/spec/spec.ts";
import { completeSpec } from "../../../../src/vmm/spec/spec-check.ts";
import { deadSocket } from "../../../support/socket-pair.ts";

const directory = t.testdir({
  vmlinux: "kernel",
  "a.raw": "disk",
  "0000:01:00.0": { vendor: "0x8086", config: "c" },
});
const kernel = `${directory}/vmlinux`;
const disk = `${directory}/a.raw`;
const device = `${directory}/0000:01:00.0`;
const socket = deadSocket(t);

/** The part of ajv that is used. */
interface Validator {
  (spec: unknown): boolean;
  readonly errors?: unknown;
}

/** Checks specifications by the schema; `undefined` where `npm ci` has not run since ajv is a dependency. */
function validator(): Validator | undefined {
  const require = createRequire(import.meta.url);
  try {
    // Cast: require answers `any`; this is ajv's class for JSON Schema 2020-12.
    const { Ajv2020 } = require("ajv/dist/2020.js") as {
      readonly Ajv2020: new (options: object) => { compile(schema: object): Validator };
    };
    return new Ajv2020({ strict: true }).compile(machineSchema());
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "MODULE_NOT_FOUND";
    if (!isMissing || process.env["CI"] === "true") throw error;
    return undefined;
  }
}

const found = validator();
const validate: Validator = found ?? (() => false);
const skip = found === undefined ? "ajv is not installed: npm ci" : false;

function isAccepted(spec: object): boolean {
  try {
    // Cast: the point is what the type refuses.
    completeSpec(spec as MachineInput);
    return true;
  } catch (error) {
    if (error instanceof Error && error.name === "SpecError") return false;
    throw error;
  }
}

const long = "x".repeat(65);

/** Parts of a machine that need nothing of the host that is not there, and whether they are good. */
const CASES: readonly (readonly [boolean, object])[] = [
  [true, {}],
  [true, { initramfs: kernel, cmdline: "quiet", cpus: { count: 2 }, memory: { sizeBytes: 16 << 20, prefault: true } }],
  [true, { disks: [{ path: disk, isReadOnly: true, isDirect: false, serial: "S 1", id: "root-1.x_y" }] }],
  [true, { disks: [{ path: disk, id: "_disk0" }] }],
  [true, { devices: [{ path: device, bars: "trap", excludedMmapBars: [0, 5], rom: { kind: "off" }, pciSlot: 31 }] }],
  [true, { devices: [{ path: device, rom: { kind: "file", path: kernel } }] }],
  [true, { userDevices: [{ socket, timeoutSeconds: "off" }] }],
  [true, { userDevices: [{ socket, timeoutSeconds: 86_400 }] }],
  [true, { serial: { kind: "tty" }, console: { kind: "file", path: `${directory}/log` } }],
  [true, { rng: {}, debugExitPort: 0xf4, hasTestDevice: true, allowReboot: false, pollMicroseconds: 0 }],
  [false, { kernel: "" }],
  [false, { kernel: 7 }],
  [false, { kernel: "a\0b" }],
  [false, { disk: [] }],
  [false, { cmdline: null }],
  [false, { cpus: { count: 0 } }],
  [false, { cpus: { count: 255 } }],
  [false, { cpus: { count: 1.5 } }],
  [false, { cpus: 2 }],
  [false, { memory: { sizeBytes: "512M" } }],
  [false, { memory: { sizeBytes: (16 << 20) + 1 } }],
  [false, { memory: { sizeBytes: 4096 } }],
  [false, { memory: { sizeBytes: 2 ** 46 } }],
  [false, { memory: { size: 16 << 20 } }],
  [false, { disks: {} }],
  [false, { disks: [disk] }],
  [false, { disks: [{}] }],
  [false, { disks: [{ path: disk, readonly: true }] }],
  [false, { disks: [{ path: disk, isReadOnly: "on" }] }],
  [false, { disks: [{ path: disk, serial: "" }] }],
  [false, { disks: [{ path: disk, serial: "123456789012345678901" }] }],
  [false, { disks: [{ path: disk, serial: "é" }] }],
  [false, { disks: [{ path: disk, id: "_other" }] }],
  [false, { disks: [{ path: disk, id: "_vfio0" }] }],
  [false, { disks: [{ path: disk, id: "a b" }] }],
  [false, { disks: [{ path: disk, id: long }] }],
  [false, { devices: [{ path: device, bars: "maybe" }] }],
  [false, { devices: [{ path: device, excludedMmapBars: [6] }] }],
  [false, { devices: [{ path: device, excludedMmapBars: 0 }] }],
  [false, { devices: [{ path: device, pciSlot: 0 }] }],
  [false, { devices: [{ path: device, pciSlot: 32 }] }],
  [false, { devices: [{ path: device, rom: "off" }] }],
  [false, { devices: [{ path: device, rom: { kind: "file" } }] }],
  [false, { devices: [{ path: device, rom: { kind: "off", path: kernel } }] }],
  [false, { userDevices: [{ socket, timeoutSeconds: "on" }] }],
  [false, { userDevices: [{ socket, timeoutSeconds: 0 }] }],
  [false, { serial: "tty" }],
  [false, { serial: { kind: "stdio" } }],
  [false, { serial: { kind: "socket", path: "" } }],
  [false, { rng: { source: "" } }],
  [false, { debugExitPort: 65_536 }],
  [false, { hasTestDevice: 1 }],
  [false, { pollMicroseconds: -1 }],
];

t.test("machineSchema() and completeSpec() give the same verdict", { skip }, async (t) => {
  for (const [isGood, part] of CASES) {
    const spec = { kernel, ...part };
    const text = JSON.stringify(part);
    t.equal(isAccepted(spec), isGood, `checks: ${text}`);
    t.equal(validate(spec), isGood, `schema: ${text} ${isGood ? JSON.stringify(validate.errors) : ""}`);
  }
  t.equal(validate({}), false, "a kernel is needed");
});

t.test("machineSchema() accepts what completeSpec() answers", { skip }, async (t) => {
  const input = { kernel, disks: [{ path: disk }], devices: [{ path: device }], userDevices: [{ socket }] };
  t.equal(validate(completeSpec(input)), true, JSON.stringify(validate.errors));
});
