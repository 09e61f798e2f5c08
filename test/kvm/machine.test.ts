import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import type { Assembler } from "../../guests/assembler.ts";
import { at, mem32 } from "../../guests/assembler-encoding.ts";
import { FLOOD_BYTES, floodGuest } from "../../guests/flood.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { Machine } from "../../src/vmm/machine.ts";
import type { MachineInput } from "../../src/vmm/spec/spec.ts";

/*
 * Whole machines, all threads, with tiny multiboot guests. Each guest ends itself by the debug exit port, so that a
 * guest which goes astray fails by tap's timeout rather than passing.
 */

const COM1 = 0x3f8;
const DEBUG_EXIT = 0xf4;

const folder = mkdtempSync(join(tmpdir(), "tsvmm-kvm-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let images = 0;

/** Writes a guest to a file and answers a spec that boots it. */
function guest(write: (assembler: Assembler) => void): MachineInput {
  const kernel = join(folder, `guest${images++}.elf`);
  writeFileSync(kernel, multibootImage(write, 0x4000).bytes);
  return { kernel, memory: { sizeBytes: 16 << 20 }, debugExitPort: DEBUG_EXIT };
}

/** Code that writes a text to COM1 by a string instruction. */
function print(assembler: Assembler, label: string, length: number): void {
  assembler.mov("esi", { label, addend: 0 }).mov("ecx", length).mov("edx", COM1).cld().rep().outs(8);
}

t.test("Machine.start() runs a multiboot guest that talks on COM1 and leaves by the debug exit port", async (t) => {
  const machine = await Machine.start(
    guest((a) => {
      print(a, "text", 6);
      a.mov("al", 3).out(DEBUG_EXIT, "al").label("end").hlt().jmp("end").label("text").ascii("hello\n");
    }),
  );
  await machine.serial.waitFor("hello\n");
  const exit = await machine.exited;
  t.same(exit, { status: 7, reason: "debugExit", text: "the guest wrote 3 to the debug exit port" });
  t.equal(machine.exitCode, 7);
});

t.test("Machine.stop() ends a guest that spins on two vCPUs, and one that halts", async (t) => {
  for (const body of [
    (a: Assembler) => a.label("end").jmp("end"),
    (a: Assembler) => a.cli().label("end").hlt().jmp("end"),
  ]) {
    const machine = await Machine.start({ ...guest((a) => void body(a)), cpus: { count: 2 } });
    const exit = await machine.stop();
    t.same(exit, { status: 0, reason: "stopped", text: "stopped by the host" });
  }
});

/** A word of RAM outside the image: it survives a reset and so tells the second run from the first. */
const SURVIVOR = mem32(0x20_0000);

/** A guest that resets itself the first time and exits the second. */
function resettingGuest(reset: (assembler: Assembler) => void): MachineInput {
  return guest((a) => {
    a.mov("eax", SURVIVOR).cmp("eax", 0x5eed).j("e", "second");
    a.mov("eax", 0x5eed).mov(SURVIVOR, "eax");
    print(a, "first", 6);
    reset(a);
    a.label("wait").hlt().jmp("wait");
    a.label("second");
    print(a, "again", 6);
    a.mov("al", 0).out(DEBUG_EXIT, "al").hlt();
    a.label("first").ascii("first\n").label("again").ascii("again\n");
    a.label("noTable").dw(0).dd(0);
  });
}

const RESETS: Readonly<Record<string, (assembler: Assembler) => void>> = {
  "two ways of resetting at once": (a) =>
    a.mov("al", 1).mov("edx", 0x602).out("dx", "al").mov("al", 0xfe).out(0x64, "al"),
  "the keyboard controller": (a) => a.mov("al", 0xfe).out(0x64, "al"),
  "the ACPI reset register": (a) => a.mov("al", 1).mov("edx", 0x602).out("dx", "al"),
  "a triple fault": (a) => a.lidt(mem32(at("noTable"))).ud2(),
};

for (const [name, reset] of Object.entries(RESETS)) {
  t.test(`Machine starts the guest anew after ${name}, on the same serial port`, async (t) => {
    const machine = await Machine.start(resettingGuest(reset));
    let resets = 0;
    machine.on("reset", () => resets++);
    await machine.serial.waitFor("first\n");
    await machine.serial.waitFor("again\n");
    const exit = await machine.exited;
    t.equal(exit.status, 1, "the debug exit of the second run");
    t.equal(resets, 1);
  });
}

t.test("Machine starts anew and ends with processors whose threads were not there yet", async (t) => {
  const machine = await Machine.start({
    ...resettingGuest((a) => a.mov("al", 0xfe).out(0x64, "al")),
    cpus: { count: 8 },
  });
  await machine.serial.waitFor("first\n");
  await machine.serial.waitFor("again\n");
  const exit = await machine.exited;
  t.same([exit.status, exit.reason], [1, "debugExit"]);
});

/** Interrupt command register, low and high. Intel SDM vol. 3 §11.6.1 */
const ICR_LOW = mem32(0xfee0_0300);
const ICR_HIGH = mem32(0xfee0_0310);

t.test("Machine's second processor takes an INIT and a SIPI that came before its thread", async (t) => {
  const machine = await Machine.start({
    ...guest((a) => {
      // At 0x8000, in real mode: mov byte [0x9000], 1; hlt
      a.mov(mem32(0x9000), 0).mov(mem32(0x8000), 0x9000_06c6).mov(mem32(0x8004), 0xf401);
      a.mov(ICR_HIGH, 1 << 24).mov(ICR_LOW, 0x4500); // INIT to APIC ID 1
      a.mov(ICR_LOW, 0x4608); // SIPI, page 8
      a.label("wait").pause().mov("eax", mem32(0x9000)).cmp("eax", 1).j("ne", "wait");
      a.mov("al", 5).out(DEBUG_EXIT, "al").hlt();
    }),
    cpus: { count: 2 },
  });
  const exit = await machine.exited;
  t.equal(exit.status, 11, "the guest wrote 5");
});

t.test("Machine ends at a reset with allowReboot: false", async (t) => {
  const machine = await Machine.start({
    ...resettingGuest((a) => a.mov("al", 0xfe).out(0x64, "al")),
    allowReboot: false,
  });
  t.same(await machine.exited, { status: 0, reason: "reset", text: "the guest reset itself" });
});

t.test("Machine ends with status 0 when the guest powers off through ACPI", async (t) => {
  // SLP_TYP 5 and SLP_EN in the sleep control register. ACPI 6.5 §4.8.3.7
  const machine = await Machine.start(
    guest((a) =>
      a
        .mov("al", (5 << 2) | 0x20)
        .mov("edx", 0x600)
        .out("dx", "al")
        .hlt(),
    ),
  );
  t.same(await machine.exited, { status: 0, reason: "powerOff", text: "the guest powered off" });
});

t.test("Machine says so when a guest triple-faults before it touched any device", async (t) => {
  const machine = await Machine.start(
    guest((a) =>
      a
        .lidt(mem32(at("noTable")))
        .ud2()
        .label("noTable")
        .dw(0)
        .dd(0),
    ),
  );
  const exit = await machine.exited;
  t.equal(exit.status, 1);
  t.match(exit.text, /triple-faulted before it touched any device/);
});

t.test("Machine's guest reads all ones from ports and addresses where nothing is", async (t) => {
  const machine = await Machine.start(
    guest((a) => {
      a.mov("edx", 0x9999).in("eax", "dx").cmp("eax", -1).j("ne", "bad");
      a.mov("eax", mem32(0xd000_0000)).cmp("eax", -1).j("ne", "bad");
      a.mov(mem32(0xd000_0000), "eax").out("dx", "eax");
      a.mov("al", 1).out(DEBUG_EXIT, "al").hlt();
      a.label("bad").mov("al", 2).out(DEBUG_EXIT, "al").hlt();
    }),
  );
  t.equal((await machine.exited).status, 3);
});

t.test(
  "Machine passes what is typed to the guest's COM1, and the interrupt line stays quiet while it polls",
  async (t) => {
    const machine = await Machine.start(
      guest((a) => {
        // Echo until a full stop: wait for LSR bit 0, read, write.
        a.label("wait")
          .mov("edx", COM1 + 5)
          .in("al", "dx")
          .test("al", 1)
          .j("e", "wait");
        a.mov("edx", COM1).in("al", "dx").out("dx", "al").cmp("al", 0x2e).j("ne", "wait");
        a.mov("al", 0).out(DEBUG_EXIT, "al").hlt();
      }),
    );
    machine.serial.write("ping.");
    await machine.serial.waitFor("ping.");
    t.equal((await machine.exited).status, 1);
  },
);

t.test("Machine.statistics() counts exits by kind and accesses by device", async (t) => {
  const machine = await Machine.start(
    guest((a) => {
      print(a, "text", 3);
      a.mov("edx", 0x71).in("al", "dx").label("end").hlt().jmp("end").label("text").ascii("ok\n");
    }),
  );
  await machine.serial.waitFor("ok\n");
  const statistics = await machine.statistics();
  t.ok(statistics.exits.portWrite >= 1 && statistics.exits.portWrite <= 3, `${statistics.exits.portWrite} port writes`);
  t.equal(statistics.accesses["COM1"], 3, "one for each byte");
  await machine.stop();
});

t.test("A guest whose output a program does not take loses the oldest, which is counted and told", async (t) => {
  const kernel = join(folder, "flood.elf");
  const path = join(folder, "flood.log");
  const loops = 3;
  writeFileSync(kernel, floodGuest({ serial: true, console: true, loops }));
  const machine = await Machine.start({
    ...{ kernel, memory: { sizeBytes: 16 << 20 }, debugExitPort: DEBUG_EXIT },
    ...{ serial: { kind: "file", path }, console: { kind: "api" } },
  });
  const warnings: string[] = [];
  machine.on("log", (level, text) => level === "warn" && warnings.push(text));
  machine.console.onOutput(() => {
    // A program that is busy until the guest has written everything: a loop's page on COM1 comes after its output here.
    const pause = new Int32Array(new SharedArrayBuffer(4));
    while (statSync(path).size < loops * FLOOD_BYTES.serial) Atomics.wait(pause, 0, 0, 1);
  });
  t.match(await machine.exited, { reason: "debugExit", status: 1 });
  const { text, droppedBytes } = machine.console;
  const marker = `\n[tsvmm: ${droppedBytes} bytes of output were dropped here]\n`;
  const received = text.replace(marker, "").length;
  t.equal(received + droppedBytes, loops * FLOOD_BYTES.console);
  t.ok(received <= (1 << 20) + 4 * (64 << 10), `${received} bytes: 1 MiB kept, four messages of 64 KiB under way`);
  t.match(text, /a{63}\na{63}\n$/, "the newest output is there");
  t.same(warnings, [
    "console: output is being dropped: the program does not take it fast enough",
    `console: ${droppedBytes} bytes of output were dropped`,
  ]);
});

t.test("A guest that resets itself again and again makes few lines in the log, which count the others", async (t) => {
  const resets = 30;
  const machine = await Machine.start(
    guest((a) => {
      a.mov("eax", SURVIVOR).inc("eax").mov(SURVIVOR, "eax").cmp("eax", resets).j("e", "over").j("a", "over");
      a.mov("al", 0xfe).out(0x64, "al").label("wait").hlt().jmp("wait");
      a.label("over").mov("al", 0).out(DEBUG_EXIT, "al").hlt();
    }),
  );
  const lines: string[] = [];
  machine.on("log", (_level, text) => /^the guest resets/.test(text) && lines.push(text));
  t.match(await machine.exited, { reason: "debugExit" });
  t.ok(lines.length < 20, `${lines.length} lines`);
  const counted = lines.map((line) => Number(/and (\d+) more/.exec(line)?.[1] ?? 0));
  t.equal(
    counted.reduce((sum, count) => sum + count, lines.length),
    resets - 1,
  );
});

t.test("Machine.start() rejects once where several threads refuse", async (t) => {
  const kernel = join(folder, "text.elf");
  writeFileSync(kernel, "no kernel");
  // Found by the device thread, a moment after the kernel was refused here.
  const serial = { kind: "file", path: join(folder, "nowhere", "serial.log") } as const;
  const unhandled: unknown[] = [];
  const note = (reason: unknown): void => void unhandled.push(reason);
  process.on("unhandledRejection", note);
  t.teardown(() => process.off("unhandledRejection", note));
  await t.rejects(Machine.start({ kernel, memory: { sizeBytes: 16 << 20 }, serial }), { name: "SpecError" });
  await new Promise(setImmediate);
  t.same(unhandled, []);
});
