import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import type { Assembler } from "../../guests/assembler.ts";
import { mem32 } from "../../guests/assembler-encoding.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { exit, expect, LOCAL_APIC, openFunction, readConfig, tables, writeConfig } from "../../guests/pci-guest.ts";
import { Machine } from "../../src/vmm/machine.ts";
import type { UserDeviceInput } from "../../src/vmm/spec/spec.ts";
import { missingKvm } from "../support/kvm-guest.ts";
import { startOddServer, startServer, startServerAt } from "../support/user-server.ts";

/*
 * Machines whose device's process is slow, silent, hostile or gone. Guests end by the debug exit port: status 1 is
 * success, others tell which check failed.
 */

const skip = missingKvm();
t.setTimeout(120_000); // 15 seconds where nothing else runs
const COM1 = 0x3f8;
const LINE_STATUS = 0x3fd;
/** Slots 0 and 1 are the host bridge's and the random number generator's. */
const SLOT = 2;
const SUCCESS = 1;
/** What a guest keeps over its reset. */
const SURVIVOR = mem32(0x20_0000);

const folder = mkdtempSync(join(tmpdir(), "tsvmm-kvm-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let images = 0;

interface Run {
  readonly machine: Machine;
  /** The log, `level: text`. */
  readonly lines: string[];
}

async function start(
  t: Test,
  devices: readonly UserDeviceInput[],
  write: (a: Assembler) => void,
  signal?: AbortSignal,
): Promise<Run> {
  const kernel = join(folder, `guest${images++}.elf`);
  writeFileSync(kernel, multibootImage(write).bytes);
  const input = { kernel, memory: { sizeBytes: 16 << 20 }, debugExitPort: 0xf4, userDevices: devices };
  const machine = await Machine.start(input, signal === undefined ? {} : { signal });
  t.teardown(() => machine.stop());
  const lines: string[] = [];
  machine.on("log", (level, text) => lines.push(`${level}: ${text}`));
  return { machine, lines };
}

const print = (a: Assembler, letter: string): Assembler =>
  a.mov("edx", COM1).mov("al", letter.charCodeAt(0)).out("dx", "al");

/** Waits until a slot is empty. */
function awaitEmpty(a: Assembler, slot: number): Assembler {
  a.label("listed");
  return readConfig(a, slot, 0).cmp("eax", -1).j("ne", "listed");
}

/** The guest's first life, which ends with a reset; `second` begins its second one. */
function twoLives(a: Assembler, first: (a: Assembler) => void): Assembler {
  a.mov("eax", SURVIVOR).cmp("eax", 0x5eed).j("e", "second");
  first(a);
  a.mov("eax", 0x5eed).mov(SURVIVOR, "eax").mov("al", 0xfe).out(0x64, "al").label("wait").hlt().jmp("wait");
  return a.label("second");
}

t.test("Machine gives a slow server a budget, not a deadline for each access: then it is gone", { skip }, async (t) => {
  const { socket } = await startOddServer(t, "slow");
  const { machine, lines } = await start(t, [{ socket, id: "thing", timeoutSeconds: 1 }], (a) => {
    openFunction(a, SLOT);
    a.label("again").mov("eax", mem32("ebx", 0x10)).cmp("eax", -1).j("ne", "again");
    exit(awaitEmpty(a, SLOT), 0);
    tables(a.label("handler"));
  });
  t.equal((await machine.exited).status, SUCCESS);
  t.match(
    lines.find((line) => line.startsWith("error")),
    /thing: .*its server has not answered VFIO_USER_\w+ for \d+ ms( after other waits of \d+ ms)? \(timeout= gives it longer\)/,
  );
});

t.test("Machine waits for a server under a debugger as long as timeout=off says", { skip }, async (t) => {
  const { socket } = await startOddServer(t, "slow");
  const { machine } = await start(t, [{ socket, timeoutSeconds: "off" }], (a) => {
    openFunction(a, SLOT);
    a.mov("ecx", 8).label("again").mov("eax", mem32("ebx", 0x10)).dec("ecx").j("ne", "again");
    expect(a, 0, 2);
    exit(a, 0);
    tables(a.label("handler"));
  });
  const exited = await machine.exited;
  t.equal(exited.status, SUCCESS, exited.text);
});

t.test("Machine.start() gives up a server that never answers, within its budget", { skip }, async (t) => {
  const { socket } = await startOddServer(t, "silent");
  await t.rejects(
    start(t, [{ socket, timeoutSeconds: 1 }], (a) => a.hlt()),
    {
      name: "HostError",
      message:
        /its server has not answered VFIO_USER_DEVICE_GET_REGION_INFO for \d+ ms.* \(timeout= gives it longer\)$/,
    },
  );
});

t.test(
  "Machine starts a reset guest without a device whose server is dead; others keep their slots",
  { skip },
  async (t) => {
    const dead = await startServer(t, "edu");
    const other = await startServer(t, "edu");
    const devices = [
      { socket: dead.socket, id: "dead" },
      { socket: other.socket, id: "other" },
    ];
    const { machine, lines } = await start(t, devices, (a) => {
      twoLives(a, () => awaitEmpty(print(a, "r"), SLOT));
      expect(readConfig(a, SLOT, 0), -1, 2);
      expect(readConfig(a, SLOT + 1, 0), 0x11e8_1234, 3);
      exit(a, 0);
    });
    await machine.serial.waitFor("r");
    await dead.kill();
    const exited = await machine.exited;
    t.equal(exited.status, SUCCESS, exited.text);
    t.match(
      lines.find((line) => line.startsWith("warn")),
      /^warn: dead: the guest starts without it: Cannot connect to socket .*\(no server listens there any more\)$/,
    );
  },
);

t.test("Machine connects to a server that came back, at the guest's next reset", { skip }, async (t) => {
  const server = await startServer(t, "edu");
  const { machine } = await start(t, [{ socket: server.socket, id: "thing" }], (a) => {
    twoLives(a, () => {
      awaitEmpty(print(a, "r"), SLOT);
      print(a, "g").label("silence").mov("edx", LINE_STATUS).in("al", "dx").test("al", 1).j("e", "silence");
    });
    expect(readConfig(a, SLOT, 0), 0x11e8_1234, 2);
    exit(a, 0);
  });
  await machine.serial.waitFor("r");
  await server.kill();
  await machine.serial.waitFor("g");
  await startServerAt(t, server.socket);
  machine.serial.write("go");
  const exited = await machine.exited;
  t.equal(exited.status, SUCCESS, exited.text);
});

t.test("Machine waits for no eventfd that its server makes block", { skip }, async (t) => {
  const { socket } = await startOddServer(t, "blocking");
  const { machine } = await start(t, [{ socket }], (a) => {
    openFunction(a, SLOT);
    for (const [offset, value] of [
      [0x2000, LOCAL_APIC],
      [0x2004, 0],
      [0x2008, 0x40],
      [0x200c, 0],
    ] as const) {
      a.mov(mem32("ebx", offset), value);
    }
    writeConfig(a, SLOT, 0x40, 0x8000_0011);
    a.mov(mem32("ebx", 0x200c), 1); // masked: pending bits are of interest now
    expect(a.mov("eax", mem32("ebx", 0x3000)), 0, 2);
    a.mov(mem32("ebx", 0), 0); // interrupts with vector 0
    expect(a.mov("eax", mem32("ebx", 0)), 1, 3);
    expect(a.mov("eax", mem32("ebx", 0x3000)), 1, 4);
    exit(a, 0);
    tables(a.label("handler"));
  });
  const exited = await machine.exited;
  t.equal(exited.status, SUCCESS, exited.text);
});

t.test("Machine keeps its RAM when a server tries to cut the file short", { skip }, async (t) => {
  const server = await startOddServer(t, "cutting");
  const { machine } = await start(t, [{ socket: server.socket }], (a) => {
    a.mov(mem32(0x20_0000), 7);
    expect(a.mov("eax", mem32(0x20_0000)), 7, 2);
    exit(a, 0);
  });
  await server.reported(/errno 1\n/);
  const exited = await machine.exited;
  t.equal(exited.status, SUCCESS, exited.text);
});

t.test("Machine.start() is ended by its signal while it waits for a server without limit", { skip }, async (t) => {
  const server = await startOddServer(t, "silent");
  const controller = new AbortController();
  const devices = [{ socket: server.socket, timeoutSeconds: "off" as const }];
  const starting = start(t, devices, (a) => a.hlt(), controller.signal);
  starting.catch(() => undefined); // awaited below
  await server.reported(/asked for region 3/);
  const reason = new Error("enough");
  controller.abort(reason);
  await t.rejects(starting, reason);
  await t.rejects(
    start(t, devices, (a) => a.hlt(), controller.signal),
    reason,
    "and by one that came before it",
  );
});

t.test(
  "Machine.stop() ends a guest's access to a server that may take without limit, and the release",
  { skip },
  async (t) => {
    const server = await startOddServer(t, "hanging");
    const { machine } = await start(t, [{ socket: server.socket, timeoutSeconds: "off" }], (a) => {
      openFunction(a, SLOT);
      a.mov("eax", mem32("ebx", 0x10));
      print(a, "r").label("again").mov("eax", mem32("ebx", 0x10)).jmp("again");
      tables(a.label("handler"));
    });
    await machine.serial.waitFor("r");
    await server.reported(/hangs/);
    t.match(await machine.stop(), { status: 0, reason: "stopped" });
  },
);

t.test("Machine.stop() gives servers that are slow to release one budget together", { skip }, async (t) => {
  const first = await startOddServer(t, "hanging");
  const second = await startOddServer(t, "hanging");
  const devices = [first, second].map(({ socket }) => ({ socket, timeoutSeconds: 3600 }));
  const { machine } = await start(t, devices, (a) => {
    for (const slot of [SLOT, SLOT + 1]) {
      writeConfig(a, slot, 0x04, 0x2);
      readConfig(a, slot, 0x10).and("eax", -16).mov("ebx", "eax").mov("eax", mem32("ebx", 0x10));
    }
    print(a, "r").label("wait").hlt().jmp("wait");
  });
  await machine.serial.waitFor("r");
  t.match(await machine.stop(), { status: 0, reason: "stopped" });
});
