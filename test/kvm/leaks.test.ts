import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import t from "tap";
import { mem32 } from "../../guests/assembler-encoding.ts";
import { eduGuest } from "../../guests/edu-guest.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { exit, expect, openFunction, tables } from "../../guests/pci-guest.ts";
import { Machine } from "../../src/vmm/machine.ts";
import type { MachineInput } from "../../src/vmm/spec/spec.ts";
import { missingKvm } from "../support/kvm-guest.ts";
import { startScratchServer, startServer } from "../support/user-server.ts";

const skip = missingKvm();
t.setTimeout(200_000);
const STARTS = 200;
/** Machines until pools, caches and compiled code have their size. */
const SETTLED = 50;
/**
 * Every so many machines one has a device in another process: with mapped memory, and edu with DMA and an MSI, by
 * turns.
 */
const DEVICE_INTERVAL = 5;

/*
 * What one start may leave for good. A machine ends two threads. Node 20 keeps some 25 KiB of each, and koffi as much
 * again, until the allocator reuses them. Measured over 150 starts: from 50 KiB a start down to less than nothing. One
 * leaked page of our own a start would not show in that. So the number of file mappings, which are all our own, must be
 * as before.
 */
const MAX_KIB_PER_START = 150;
/** Address ranges of all kinds: koffi keeps the call stack, a guard page and the heap of each of the two threads. */
const MAX_MAPPINGS_PER_START = 8;

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void; // cast: what the flag just made

/** What a process has that could leak. */
interface Holdings {
  readonly descriptors: readonly string[];
  /** Of files and of kernel objects: guest RAM, `kvm_run`, a device's memory. */
  readonly fileMappings: number;
  readonly mappings: number;
  readonly threads: number;
  readonly residentKib: number;
  readonly heapKib: number;
}

async function holdings(): Promise<Holdings> {
  // Twice with a turn between: what the first finds dead may hold what the second does.
  for (let round = 0; round < 2; round++) {
    collect();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const status = readFileSync("/proc/self/status", "utf8");
  const figure = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1]);
  const mappings = readFileSync("/proc/self/maps", "utf8").trim().split("\n");
  return {
    descriptors: readdirSync("/proc/self/fd"),
    fileMappings: mappings.filter((line) => /(memfd:|anon_inode|\/dev\/|\(deleted\))/.test(line)).length,
    mappings: mappings.length,
    threads: figure("Threads"),
    residentKib: figure("VmRSS"),
    heapKib: Math.round(process.memoryUsage().heapUsed / 1024),
  };
}

t.test(`Machine leaves nothing behind, ${STARTS} times in one process`, { skip }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-leaks-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const image = (name: string, write: Parameters<typeof multibootImage>[0]): MachineInput => {
    const kernel = join(folder, name);
    writeFileSync(kernel, multibootImage(write).bytes);
    return { kernel, memory: { sizeBytes: 16 << 20 }, debugExitPort: 0xf4 };
  };
  const scratch = await startScratchServer(t);
  const edu = await startServer(t, "edu");
  const alone = image("alone.elf", (a) => void exit(a, 0));
  const halted = image("halted.elf", (a) => void a.cli().label("end").hlt().jmp("end"));
  const withDevice = image("device.elf", (a) => {
    openFunction(a, 2);
    a.mov(mem32("ebx", 0x1000), 7);
    expect(a.mov("eax", mem32("ebx", 0x1000)), 7, 2);
    exit(a, 0);
    tables(a.label("handler"));
  });
  const withEdu = { ...alone, kernel: join(folder, "edu.elf") };
  writeFileSync(withEdu.kernel, eduGuest(2));
  const runOne = async (index: number): Promise<void> => {
    const kind = index % DEVICE_INTERVAL;
    if (kind === 0) {
      const [guest, { socket }] = (index / DEVICE_INTERVAL) % 2 === 0 ? [withDevice, scratch] : [withEdu, edu];
      const machine = await Machine.start({ ...guest, userDevices: [{ socket }] });
      const { status, text } = await machine.exited;
      if (status !== 1) throw new Error(`machine ${index}: ${text}`);
    } else if (kind === 1) {
      const machine = await Machine.start(halted);
      await machine.stop();
    } else await (await Machine.start(alone)).exited;
  };

  for (let index = 0; index < SETTLED; index++) await runOne(index);
  const before = await holdings();
  for (let index = SETTLED; index < STARTS; index++) await runOne(index);
  const after = await holdings();

  const starts = STARTS - SETTLED;
  const perStart = (name: "mappings" | "residentKib" | "heapKib"): number =>
    Math.round((10 * (after[name] - before[name])) / starts) / 10;
  t.comment(
    `after ${SETTLED} and ${STARTS} starts: ${before.descriptors.length} and ${after.descriptors.length} ` +
      "descriptors, " +
      `${before.residentKib} and ${after.residentKib} KiB resident (${perStart("residentKib")} a start), ` +
      `${perStart("heapKib")} KiB of JavaScript heap and ${perStart("mappings")} mappings a start`,
  );
  t.same(after.descriptors, before.descriptors);
  t.equal(after.threads, before.threads);
  t.equal(after.fileMappings, before.fileMappings);
  t.ok(perStart("residentKib") < MAX_KIB_PER_START, `${perStart("residentKib")} KiB a start stay resident`);
  t.ok(perStart("heapKib") < 10, `${perStart("heapKib")} KiB a start stay on the heap`);
  t.ok(perStart("mappings") < MAX_MAPPINGS_PER_START, `${perStart("mappings")} mappings a start stay`);
});
