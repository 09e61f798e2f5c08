import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import type { Assembler } from "../../guests/assembler.ts";
import { blockGuest, VIRTIO_BLK_T_IN } from "../../guests/block.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import type { LogSettings, LogThreshold } from "../../src/vmm/log.ts";
import { Machine } from "../../src/vmm/machine.ts";
import type { TraceEvent } from "../../src/vmm/shared/trace-event.ts";
import type { MachineInput } from "../../src/vmm/spec/spec.ts";
import { missingKvm } from "../support/kvm-guest.ts";

const skip = missingKvm();
const folder = mkdtempSync(join(tmpdir(), "tsvmm-trace-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

interface Run {
  /** Trace lines as the typed API tells them. */
  readonly told: readonly string[];
  /** Those in the log file. */
  readonly logged: readonly string[];
}

/** Runs a guest to its end, or until it has written something. */
async function run(
  name: string,
  kernel: Uint8Array,
  level: LogThreshold,
  more: Partial<MachineInput> = {},
  until?: RegExp,
): Promise<Run> {
  const path = join(folder, name);
  writeFileSync(path, kernel);
  const log: LogSettings = { level, format: "json", file: `${path}.log` };
  const told: string[] = [];
  const machine = await Machine.start(
    { kernel: path, memory: { sizeBytes: 64 << 20 }, debugExitPort: 0xf4, ...more },
    { log },
  );
  machine.on("log", (lineLevel, text) => lineLevel === "trace" && told.push(text));
  await (until === undefined ? machine.exited : machine.serial.waitFor(until));
  await machine.stop();
  // Cast: pino writes such lines.
  const lines = readFileSync(`${path}.log`, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { level: number; msg: string });
  return { told, logged: lines.filter((line) => line.level === 10).map((line) => line.msg) };
}

const leaves = (a: Assembler): unknown => a.mov("al", 0).out(0xf4, "al").label("end").hlt().jmp("end");

t.test("Level trace tells every access of a guest once, in order, however fast it makes them", { skip }, async (t) => {
  const count = 5000;
  const { bytes } = multibootImage((a) => {
    a.mov("eax", 0x8000_0000).mov("edx", 0xcf8).out("dx", "eax").mov("edx", 0xcfc).in("eax", "dx");
    a.mov("esi", 0x10_0000).mov("ecx", count).mov("edx", 0x3f8).cld().rep().outs(8);
    leaves(a);
  }, 0x4000);
  const { logged } = await run("fast.elf", bytes, "trace", { serial: { kind: "null" } });
  const accesses = logged.filter((line) => /^(cpu0|coalesced) /.test(line));
  t.same(accesses.slice(0, 2), [
    "coalesced port write 0xcf8/4 = 0x80000000: PCI configuration ports address",
    "cpu0 port read 0xcfc/4 = 0xd578086: PCI configuration ports 00:00.0 host bridge vendor id",
  ]);
  t.equal(accesses.filter((line) => line.endsWith(": COM1 data")).length, count);
  t.equal(accesses.at(-1), "cpu0 port write 0xf4/1 = 0x0: debug-exit +0x0");
  t.equal(accesses.length, count + 3);
  t.equal(logged[0], "slot RAM at 0x0+0x4000000: mapped");
});

t.test("Level trace follows a disk request from the driver's first look to its interrupts", { skip }, async (t) => {
  const disk = join(folder, "disk.img");
  writeFileSync(disk, new Uint8Array(1 << 20));
  const reads = { type: VIRTIO_BLK_T_IN, sizeBytes: 4096, depth: 1, count: 3, isRandom: false, waits: true } as const;
  const { logged, told } = await run(
    "block.elf",
    blockGuest([reads], 1 << 20),
    "trace",
    {
      disks: [{ path: disk, id: "disk" }],
    },
    /-\n[^-]*-\n/,
  );
  const expected = [
    /^cpu0 MMIO read 0x[0-9a-f]+\/4 = 0x10421af4: PCI ECAM 00:01\.0 disk vendor id$/,
    /^cpu0 MMIO write 0x[0-9a-f]+\/1 = 0xf: disk BAR 0 device_status$/,
    /^doorbell 0x[0-9a-f]+: disk BAR 0 notification of queue 0$/,
    /^message disk msix 0: signalled$/,
    /^cpu0 MMIO read 0x[0-9a-f]+\/4 = 0x0: disk BAR 0 device_feature_select$/, // by the interrupt's handler
  ];
  let at = 0;
  for (const line of expected) {
    const found = logged.findIndex((text, index) => index >= at && line.test(text));
    t.ok(found >= 0, String(line));
    at = Math.max(at, found);
  }
  t.ok(logged.some((line) => /^message disk msix 0: vector 0x[0-9a-f]+ to APIC 0$/.test(line)));
  t.ok(
    told.length > 0 && logged.join("\n").endsWith(told.join("\n")),
    "the typed API tells the same, from its start on",
  );
});

t.test("Below that level no access is logged", { skip }, async (t) => {
  const { bytes } = multibootImage(leaves, 0x4000);
  const { logged, told } = await run("quiet.elf", bytes, "debug");
  t.same([...logged, ...told], []);
});

/** Writes dots to COM1 until it is sent something, then leaves. */
const dotting = (a: Assembler): unknown => {
  a.label("again").mov("edx", 0x3f8).mov("al", 0x2e).out("dx", "al");
  a.mov("edx", 0x3fd).in("al", "dx").test("al", 1).j("e", "again");
  return leaves(a);
};

t.test("Machine.trace() tells the steps of a running guest from its call to its stop", { skip }, async (t) => {
  const path = join(folder, "dots.elf");
  writeFileSync(path, multibootImage(dotting, 0x4000).bytes);
  const machine = await Machine.start({ kernel: path, memory: { sizeBytes: 16 << 20 }, debugExitPort: 0xf4 });
  await machine.serial.waitFor("....");
  const seen: TraceEvent[] = [];
  let tellEnough = (): void => undefined;
  const enough = new Promise<void>((resolve) => {
    tellEnough = resolve;
  });
  const trace = await machine.trace((event) => {
    if (seen.push(event) === 100) tellEnough();
  });
  await enough;
  await trace.stop();
  const count = seen.length;
  t.ok(
    seen.some((event) => event.kind === "access" && event.what === "COM1 data" && event.value === 0x2e),
    "the dots are among them",
  );
  machine.serial.write("x");
  await machine.exited;
  t.equal(seen.length, count, "nothing is told after the stop");
  await t.rejects(
    machine.trace(() => undefined),
    { name: "HostError", message: "Cannot trace the machine: it has ended" },
  );
});

t.test(
  "Machine.trace() drops what a slow listener cannot take, counts it, and loses nothing where it waits",
  { skip },
  async (t) => {
    const count = 5000;
    const { bytes } = multibootImage((a) => {
      a.label("idle").mov("edx", 0x3fd).in("al", "dx").test("al", 1).j("e", "idle");
      a.mov("esi", 0x10_0000).mov("ecx", count).mov("edx", 0x3f8).cld().rep().outs(8);
      leaves(a);
    }, 0x4000);
    const path = join(folder, "burst.elf");
    writeFileSync(path, bytes);
    for (const whenBehind of ["drop", "wait"] as const) {
      const machine = await Machine.start({
        kernel: path,
        memory: { sizeBytes: 16 << 20 },
        debugExitPort: 0xf4,
        serial: { kind: "socket", path: join(folder, `${whenBehind}.sock`) },
      });
      let [data, lost] = [0, 0];
      const trace = await machine.trace(
        (event) => {
          if (event.kind === "access" && event.what === "COM1 data") data++;
          if (event.kind === "lost") lost += event.count;
        },
        { whenBehind },
      );
      const client = connect(join(folder, `${whenBehind}.sock`));
      client.resume();
      client.write("x");
      await machine.exited;
      client.destroy();
      t.equal(trace.lost, lost);
      if (whenBehind === "wait") t.same([data, lost], [count, 0]);
      else t.ok(data + lost >= count, `${data} told and ${lost} lost of ${count}`);
    }
  },
);
