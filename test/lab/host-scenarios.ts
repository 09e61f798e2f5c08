import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  watch,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { eduGuest } from "../../guests/edu-guest.ts";
import { Machine } from "../../src/index.ts";
import { runProgram } from "../../tools/program.ts";
import { type CommandOutcome, haltedCommand, startHalted, tsvmm, tsvmmUnder } from "./host-commands.ts";
import { runScenarioProgram, type Scenarios } from "./scenario-program.ts";

/*
 * Runs inside the nested host, as scenarios.ts does: what somebody at the host's prompt sees, and what becomes of
 * devices there. Guests are a few instructions long. Nothing is bound to vfio-pci when this begins.
 */

/** Addresses of the nested host's functions. */
export interface HostInputs {
  readonly sdhci: string;
  readonly nvme: string;
  readonly e1000e: string;
  readonly edu: string;
  /** Two functions of one slot, which are a group. */
  readonly pair: readonly [string, string];
}

/** A root whose files' permissions count, and one who may lock no more than 1 MiB. */
const WITHOUT_OVERRIDE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"];
const WITHOUT_LOCKING = ["prlimit", "--memlock=1048576", "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-all"];

/** SIGKILL at any moment of a machine's life: so often. */
const KILLS = 20;

let inputs: HostInputs;
let folder: string;

/** The driver that a function has now. */
function driverOf(bdf: string): string | undefined {
  try {
    return basename(realpathSync(`/sys/bus/pci/devices/${bdf}/driver`));
  } catch {
    return undefined;
  }
}

/** Waits until the kernel has made a device node. */
async function deviceNode(path: string): Promise<string> {
  let look: () => void = () => undefined;
  const watcher = watch("/dev", () => look()); // before the first look, so that nothing comes in between
  try {
    await new Promise<void>((resolve) => {
      look = () => {
        if (existsSync(path)) resolve();
      };
      look();
    });
    return path;
  } finally {
    watcher.close();
  }
}

/** The address of some function that a driver has. */
function functionOf(driver: string): string {
  const [link] = readdirSync(`/sys/bus/pci/drivers/${driver}`).filter((name) => name.startsWith("0000:"));
  if (link === undefined) throw new Error(`The nested host has no function with the driver ${driver}`);
  return link;
}

const SCENARIOS: Scenarios = {
  /** A new user's way: what is there, what is in the way, bind, once more, a start, unbind. */
  async prompt() {
    const { nvme, edu, pair, e1000e } = inputs;
    await runProgram("modprobe", ["nvme"]);
    const disk = await deviceNode("/dev/nvme0n1"); // the only one
    await runProgram("mke2fs", ["-q", disk]);
    const mountPoint = join(folder, "mounted");
    mkdirSync(mountPoint);
    await runProgram("mount", [disk, mountPoint]);

    const table = await tsvmm("devices");
    const listed = await tsvmm("devices", "--json");
    const missing = await tsvmm("doctor", edu);
    const wouldWrite = await tsvmm("bind", "--dry-run", edu);
    const stillUnbound = driverOf(edu);
    const refused = await tsvmm("bind", nvme);
    await runProgram("umount", [mountPoint]);
    const bound = await tsvmm("bind", edu, nvme);
    const again = await tsvmm("bind", edu);
    const half = await tsvmm("bind", pair[0]);
    const halfDoctor = await tsvmm("doctor", pair[0]);
    const group = await tsvmm("bind", "--group", pair[0]);
    const drivers = { edu: driverOf(edu), nvme: driverOf(nvme), pair: pair.map(driverOf), e1000e: driverOf(e1000e) };
    const ready = await tsvmm("doctor", edu);
    const states = await tsvmm("devices", "--json", edu, nvme, ...pair);
    const held = await startHalted(edu);
    const whileHeld = await tsvmm("unbind", edu);
    held.process.kill("SIGTERM");
    await held.ended;
    const unbound = await tsvmm("unbind", edu, nvme);
    const nothing = await tsvmm("unbind", edu);
    const driversAfter = { edu: driverOf(edu), nvme: driverOf(nvme) };
    const wrong = {
      nowhere: await tsvmm("bind", "0000:42:00.0"),
      nonsense: await tsvmm("doctor", "fish"),
      none: await tsvmm("unbind"),
    };
    return {
      ...{ table, listed, missing, wouldWrite, stillUnbound, refused, bound, again, half, halfDoctor, group, drivers },
      ...{ ready, states, holder: held.process.pid, whileHeld, unbound, nothing, driversAfter, wrong },
    };
  },

  /** Descriptions of real functions, as the test suite's fixtures are. */
  async recordings() {
    const { sdhci, nvme, e1000e, edu } = inputs;
    const recordings: Record<string, unknown> = {};
    const outcomes: CommandOutcome[] = [await tsvmm("bind", sdhci, nvme, e1000e, edu)];
    for (const [name, bdf] of Object.entries({ "sdhci-pci": sdhci, nvme, e1000e, edu })) {
      const file = join(folder, `${name}.json`);
      outcomes.push(await tsvmm("devices", "--record", bdf, file));
      recordings[name] = JSON.parse(readFileSync(file, "utf8"));
    }
    return { statuses: outcomes.map(({ status }) => status), recordings };
  },

  /**
   * Refusals, each by the command itself; and machines that are killed, after each of which the next one takes the
   * device.
   */
  async refusals() {
    await tsvmm("bind", inputs.edu);
    const missing = await tsvmm(...haltedCommand("0000:42:00.0"));
    const ownDriver = await tsvmm(...haltedCommand(functionOf("virtio-pci"))); // one that the nested host itself uses
    const group = basename(realpathSync(`/sys/bus/pci/devices/${inputs.edu}/iommu_group`));
    const forbidden: CommandOutcome[] = [];
    for (const node of ["/dev/kvm", "/dev/vfio/vfio", `/dev/vfio/${group}`]) {
      const { mode } = statSync(node);
      chmodSync(node, 0);
      forbidden.push(await tsvmmUnder(WITHOUT_OVERRIDE, ...haltedCommand(inputs.edu)));
      chmodSync(node, mode & 0o777);
    }
    const lockLimit = await tsvmmUnder(WITHOUT_LOCKING, ...haltedCommand(inputs.edu));
    let machine = await startHalted(inputs.edu);
    const holderPid = machine.process.pid;
    const inUse = await tsvmm(...haltedCommand(inputs.edu));
    const kills: (string | null)[] = [];
    while (kills.length < KILLS) {
      machine.process.kill("SIGKILL");
      kills.push((await machine.ended).signal);
      machine = await startHalted(inputs.edu);
    }
    machine.process.kill("SIGTERM");
    const { status: afterTerm } = await machine.ended;
    return { missing, ownDriver, group, forbidden, lockLimit, inUse, holderPid, kills, afterTerm };
  },

  /** Both functions of a slot in one guest: they stay together, and each works. */
  async sameSlot() {
    await tsvmm("bind", ...inputs.pair);
    const kernel = join(folder, "edu.elf");
    const seen = [];
    for (const index of [0, 1] as const) {
      writeFileSync(kernel, eduGuest(5, index));
      const machine = await Machine.start({
        kernel,
        memory: { sizeBytes: 16 << 20 },
        devices: [{ path: inputs.pair[0], pciSlot: 5 }, { path: inputs.pair[1] }],
        debugExitPort: 0xf4,
      });
      const { status } = await machine.exited;
      const functions = machine.plan?.functions.filter(({ bdf }) => bdf.startsWith("00:05.")).map(({ bdf }) => bdf);
      seen.push({ failedStep: status >> 1, functions });
    }
    const twice = await tsvmm(...haltedCommand(inputs.pair[0], `/sys/bus/pci/devices/${inputs.pair[0]}/`));
    return { seen, twice };
  },

  /**
   * The host wants a device back, and the guest keeps it. The machine goes on and says who waits; its end gives the
   * device back.
   */
  async kept() {
    await tsvmm("bind", inputs.edu);
    const machine = await startHalted(inputs.edu);
    const unbinding = tsvmm("unbind", "--force", inputs.edu);
    await machine.says("has waited 20 s for it");
    machine.process.kill("SIGTERM");
    const ended = await machine.ended;
    return { unbound: await unbinding, ended, driver: driverOf(inputs.edu) };
  },
};

const [json = "{}", results = "", ...names] = process.argv.slice(2);
// Cast: the test wrote it from a value of that type.
inputs = JSON.parse(json) as HostInputs;
folder = mkdtempSync(join(tmpdir(), "tsvmm-host-scenarios-"));
await runScenarioProgram(SCENARIOS, results, names);
