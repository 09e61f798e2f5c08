import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { gpa } from "../../../../src/base/units.ts";
import { libc } from "../../../../src/host/libc.ts";
import { LocalNvme } from "../../../support/local-nvme.ts";
import { type Change, DiskModel, lostByPowerCuts, SECTOR, sectorValue } from "../../../support/power-cut.ts";
import { randomNumbers } from "../../../support/random-numbers.ts";
import { WriteLog } from "../../../support/write-log.ts";

/** NVM and admin commands. NVMe 1.4 §5, §6 */
const FLUSH = 0x00;
const WRITE = 0x01;
const READ = 0x02;
const WRITE_ZEROES = 0x08;
const SET_FEATURES = 0x09;
const WRITE_CACHE = 0x06;
const FUA = 0x4000_0000;
const OK = 0;
const EIO = 5;

const BLOCKS = 64;
const MOST_BLOCKS = 8;
const DATA = 0x2_0000;

/** What the controller is made to get wrong. */
type Lie = "fua" | "cache off" | "flush";

/** A host's driver and its controller at the hands of one sequence of random numbers. */
class Workload {
  readonly log: WriteLog;
  readonly model: DiskModel;
  readonly wrong: string[] = [];
  readonly #nvme: LocalNvme;
  readonly #random: (below: number) => number;
  readonly #lie: Lie | undefined;
  #isCacheOn = true;

  private constructor(nvme: LocalNvme, log: WriteLog, seed: number, lie: Lie | undefined) {
    this.#nvme = nvme;
    this.log = log;
    this.model = new DiskModel(BLOCKS, () => log.entries.length);
    this.#random = randomNumbers(seed);
    this.#lie = lie;
  }

  static async make(t: Test, seed: number, lie?: Lie): Promise<Workload> {
    const folder = mkdtempSync(join(tmpdir(), "tsvmm-power-"));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const path = join(folder, "disk.raw");
    writeFileSync(path, new Uint8Array(BLOCKS * SECTOR));
    const log = new WriteLog(t, path);
    if (lie === "flush") libc.fdatasync = () => 0;
    return new Workload(await LocalNvme.start(t, path), log, seed, lie);
  }

  /** @param failsAt The step in which the host's flush fails. */
  async run(steps: number, failsAt = -1): Promise<void> {
    for (let step = 0; step < steps; step++) {
      if (step === failsAt) this.log.nextFlushErrno = EIO;
      const die = this.#random(100);
      if (die < 45) await this.#change(WRITE);
      else if (die < 60) await this.#change(WRITE_ZEROES);
      else if (die < 72) await this.#flush();
      else if (die < 95) await this.#read();
      else if (die < 98) await this.#setCache(this.#random(2) === 1);
      else await this.#reset();
    }
    for (let first = 0; first < BLOCKS; first++) await this.#read({ first, count: 1 });
  }

  async #change(opcode: number): Promise<void> {
    const change: Change = { ...this.#range(), isZero: opcode === WRITE_ZEROES };
    const isForced = this.#random(4) === 0;
    this.model.begin(change);
    this.#nvme.memory.write(gpa(DATA), this.model.bytesOf(change));
    const status = await this.#io(opcode, change, isForced && this.#lie !== "fua" ? FUA : 0);
    this.model.end(change, { isOk: status === OK, isDurable: isForced || !this.#isCacheOn });
  }

  async #flush(): Promise<void> {
    const covered = this.model.beginFlush();
    if ((await this.#nvme.runIo({ opcode: FLUSH, nsid: 1 })).status === OK) covered();
  }

  async #read({ first, count } = this.#range()): Promise<void> {
    const status = await this.#io(READ, { first, count }, 0);
    const bytes = this.#nvme.memory.bytes(DATA, count * SECTOR);
    for (let index = 0; index < count; index++) {
      const value = sectorValue(bytes, index);
      if (status === OK && this.model.expected(first + index).includes(value)) continue;
      this.wrong.push(`block ${first + index} reads ${value} with status ${status}`);
    }
  }

  /** Switching the cache off brings to the medium what it holds. */
  async #setCache(isOn: boolean): Promise<void> {
    const covered = this.model.beginFlush();
    if (this.#lie !== "cache off") {
      const { status } = await this.#nvme.run({ opcode: SET_FEATURES, dwords: [WRITE_CACHE, isOn ? 1 : 0] });
      if (status !== OK) return;
    }
    this.#isCacheOn = isOn;
    if (!isOn) covered();
  }

  /** Features have their default value afterwards. */
  async #reset(): Promise<void> {
    await this.#nvme.restart();
    this.#isCacheOn = true;
  }

  async #io(
    opcode: number,
    { first, count }: { readonly first: number; readonly count: number },
    flags: number,
  ): Promise<number> {
    const dwords = [first, 0, flags | (count - 1)];
    return (await this.#nvme.runIo({ opcode, nsid: 1, prp1: DATA, dwords })).status;
  }

  #range(): { readonly first: number; readonly count: number } {
    const count = 1 + this.#random(MOST_BLOCKS);
    return { first: this.#random(BLOCKS - count + 1), count };
  }
}

const SEEDS = 8;
const STEPS = 250;

for (const [how, failsAt] of [
  ["", -1],
  [", where a flush of the host fails too", 100],
] as const) {
  t.test(`NvmeDevice loses nothing that it acknowledged, wherever the power is cut${how}`, async (t) => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const workload = await Workload.make(t, seed);
      await workload.run(STEPS, failsAt);
      const { entries } = workload.log;
      t.ok(entries.length > 150, `seed ${seed}: ${entries.length} cuts`);
      t.equal(entries.filter(({ kind }) => kind === "failedFlush").length, failsAt < 0 ? 0 : 1);
      t.same(workload.wrong, [], `seed ${seed}: what was read`);
      t.same(lostByPowerCuts(entries, workload.model).slice(0, 5), [], `seed ${seed}: what was lost`);
    }
  });
}

const LIES: Readonly<Record<Lie, string>> = {
  fua: "takes no notice of Force Unit Access",
  "cache off": "keeps its write cache on",
  flush: "does not flush",
};

for (const [lie, what] of Object.entries(LIES)) {
  t.test(`the power cuts find a controller that ${what}`, async (t) => {
    // Cast: the keys of LIES.
    const workload = await Workload.make(t, 1, lie as Lie);
    await workload.run(STEPS);
    t.same(workload.wrong, [], "it reads right as long as the power is there");
    t.not(lostByPowerCuts(workload.log.entries, workload.model).length, 0);
  });
}
