import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import type { Assembler } from "../../guests/assembler.ts";
import { at, mem32 } from "../../guests/assembler-encoding.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import {
  awaitFlag,
  enableInterrupts,
  exit,
  expect,
  handler,
  MSI_VECTOR,
  openFunction,
  readConfig,
  tables,
  writeConfig,
} from "../../guests/pci-guest.ts";
import { Machine } from "../../src/vmm/machine.ts";
import { missingKvm } from "../support/kvm-guest.ts";
import { startScratchServer, startServer } from "../support/user-server.ts";

/*
 * Whole machines with a device in a process of its own: passthrough from configuration space to MSI, without hardware.
 * Guests end by the debug exit port: status 1 is success, others tell which check failed.
 */

const skip = missingKvm();
const COM1 = 0x3f8;
const DEBUG_EXIT = 0xf4;
/** Slot 0 is the host bridge, 1 the random number generator. */
const SLOT = 2;
const SUCCESS = 1;

const folder = mkdtempSync(join(tmpdir(), "tsvmm-kvm-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let images = 0;

/** Runs a guest with a device; its serial port and log are the machine's. */
async function start(t: Test, socket: string, write: (a: Assembler) => void): Promise<Machine> {
  const kernel = join(folder, `guest${images++}.elf`);
  writeFileSync(kernel, multibootImage(write).bytes);
  const machine = await Machine.start({
    kernel,
    memory: { sizeBytes: 16 << 20 },
    debugExitPort: DEBUG_EXIT,
    userDevices: [{ socket, id: "thing" }],
  });
  t.teardown(() => machine.stop());
  return machine;
}

/** A DMA transfer of edu: source, destination, size in bytes, command; waits for its end. */
function edutransfer(a: Assembler, label: string, from: number, to: number, count: number, command: number): void {
  for (const [offset, value] of [
    [0x80, from],
    [0x84, 0],
    [0x88, to],
    [0x8c, 0],
    [0x90, count],
    [0x94, 0],
    [0x98, command],
  ] as const) {
    a.mov(mem32("ebx", offset), value);
  }
  a.label(label).mov("eax", mem32("ebx", 0x98)).test("eax", 1).j("ne", label);
}

t.test("Machine's guest drives edu in another process: config space, BAR, DMA and MSI", { skip }, async (t) => {
  const { socket } = await startServer(t, "edu");
  const machine = await start(t, socket, (a) => {
    expect(readConfig(a, SLOT, 0x00), 0x11e8_1234, 2);
    openFunction(a, SLOT);
    enableInterrupts(a);
    // MSI: 64-bit address, data, then enable. The capability is where the device has it.
    expect(readConfig(a, SLOT, 0x34), 0x40, 3);
    writeConfig(a, SLOT, 0x44, 0xfee0_0000);
    writeConfig(a, SLOT, 0x48, 0);
    writeConfig(a, SLOT, 0x4c, MSI_VECTOR);
    writeConfig(a, SLOT, 0x40, 0x0001_0000);
    expect(a.mov("eax", mem32("ebx", 0)), 0x0100_00ed, 4);
    a.mov(mem32("ebx", 4), 0x1234_5678);
    expect(a.mov("eax", mem32("ebx", 4)), 0xedcb_a987, 5);
    // There and back again through the device's buffer.
    a.mov(mem32(0x20_0000), 0x600d_cafe).mov(mem32(0x20_0004), 0x5ee_d11a);
    edutransfer(a, "there", 0x20_0000, 0x4_0000, 8, 1);
    edutransfer(a, "back", 0x4_0000, 0x20_1000, 8, 1 | 2 | 4);
    awaitFlag(a, "hasInterrupt");
    expect(a.mov("eax", mem32(0x20_1000)), 0x600d_cafe, 6);
    expect(a.mov("eax", mem32(0x20_1004)), 0x5ee_d11a, 7);
    expect(a.mov("eax", mem32(at("cause"))), 0x100, 8);
    exit(a, 0);
    handler(a, "hasInterrupt", (a) =>
      a
        .mov("eax", mem32("ebx", 0x24))
        .mov(mem32(at("cause")), "eax")
        .mov(mem32("ebx", 0x64), "eax"),
    );
    a.align(4).label("cause").dd(0).label("hasInterrupt").dd(0);
    tables(a);
  });
  const exited = await machine.exited;
  t.equal(exited.status, SUCCESS, exited.text);
  t.match((await machine.statistics()).functions, [
    { name: "thing", counters: { host: `vfio-user ${socket}`, "bar0.sizeBytes": 0x10_0000, "bar0.mappedBytes": 0 } },
  ]);
  t.match(machine.plan?.functions.at(-1), { bdf: "00:02.0", interrupts: /INTA → GSI \d+; MSI, 1 vector/ });
});

t.test("Machine's guest stores straight into a device's memory, which the device sees", { skip }, async (t) => {
  const { socket } = await startScratchServer(t);
  const machine = await start(t, socket, (a) => {
    openFunction(a, SLOT);
    for (const [word, value] of [1, 20, 300, 4000].entries()) a.mov(mem32("ebx", 0x1000 + 4 * word), value);
    expect(a.mov("eax", mem32("ebx", 0)), 4321, 2);
    expect(a.mov("eax", mem32("ebx", 0x1008)), 300, 3);
    expect(a.mov("eax", mem32("ebx", 4)), 1, 4);
    exit(a, 0);
    tables(a.label("handler"));
  });
  const exited = await machine.exited;
  t.equal(exited.status, SUCCESS, exited.text);
  const [thing] = (await machine.statistics()).functions;
  t.equal(thing?.counters["bar0.trappedWrites"], 0, "no store left the guest");
  t.equal(thing?.counters["bar0.trappedReads"], 2, "registers did");
  t.match(machine.plan?.functions.at(-1)?.bars[0]?.parts, [
    { offset: 0, sizeBytes: 0x1000, way: "trapped" },
    { offset: 0x1000, sizeBytes: 0x1000, way: "mapped" },
  ]);
});

t.test("Machine goes on when a device's process dies: the guest reads all ones", { skip }, async (t) => {
  const server = await startServer(t, "edu");
  const machine = await start(t, server.socket, (a) => {
    openFunction(a, SLOT);
    expect(a.mov("eax", mem32("ebx", 0)), 0x0100_00ed, 2);
    a.mov("edx", COM1).mov("al", 0x72).out("dx", "al");
    a.label("wait").mov("eax", mem32("ebx", 0)).cmp("eax", -1).j("ne", "wait");
    // It is off the bus: no device answers in its slot any more.
    a.label("listed");
    readConfig(a, SLOT, 0x00).cmp("eax", -1).j("ne", "listed");
    exit(a, 0);
    tables(a.label("handler"));
  });
  const lines: string[] = [];
  machine.on("log", (level, text) => lines.push(`${level}: ${text}`));
  await machine.serial.waitFor("r");
  await server.kill();
  const exited = await machine.exited;
  t.equal(exited.status, SUCCESS, exited.text);
  t.match(
    lines.find((line) => line.startsWith("error")),
    /^error: thing: vfio-user .* was lost: its server has closed the connection; it is taken from the guest/,
  );
});

t.test("Machine takes memory of a dead device's process away, too", { skip }, async (t) => {
  const server = await startScratchServer(t);
  const machine = await start(t, server.socket, (a) => {
    openFunction(a, SLOT);
    a.mov(mem32("ebx", 0x1000), 7);
    a.mov("edx", COM1).mov("al", 0x72).out("dx", "al");
    a.label("wait").mov("eax", mem32("ebx", 0x1000)).cmp("eax", 7).j("e", "wait");
    expect(a, -1, 2);
    exit(a, 0);
    tables(a.label("handler"));
  });
  await machine.serial.waitFor("r");
  await server.kill();
  const exited = await machine.exited;
  t.equal(exited.status, SUCCESS, exited.text);
});

t.test("Machine connects to the same device again after a reset of the guest", { skip }, async (t) => {
  const { socket } = await startServer(t, "edu");
  const survivor = mem32(0x20_0000);
  const machine = await start(t, socket, (a) => {
    openFunction(a, SLOT);
    expect(a.mov("eax", mem32("ebx", 4)), 0, 2);
    a.mov(mem32("ebx", 4), 5);
    a.mov("eax", survivor).cmp("eax", 0x5eed).j("e", "second");
    a.mov("eax", 0x5eed).mov(survivor, "eax").mov("al", 0xfe).out(0x64, "al").label("wait").hlt().jmp("wait");
    exit(a.label("second"), 0);
    tables(a.label("handler"));
  });
  const exited = await machine.exited;
  t.equal(exited.status, SUCCESS, exited.text);
});

t.test("Machine.start() says what is wrong with a device's socket", { skip }, async (t) => {
  const server = await startServer(t, "edu");
  await server.kill();
  const nothing = (a: Assembler): void => void a.hlt();
  await t.rejects(start(t, server.socket, nothing), { name: "HostError", message: /no server listens there any more/ });
  await t.rejects(start(t, join(folder, "none"), nothing), { name: "SpecError", path: "userDevices[0].socket" });
  await t.rejects(start(t, folder, nothing), { name: "SpecError", message: /is not a socket/ });
});
