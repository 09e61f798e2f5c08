import type { LogEntry } from "./write-log.ts";

/*
 * Power cuts at every moment of a recorded run. The host may have lost every write that no flush covers, in any
 * selection, a sector of 512 bytes at a time. Data that was reported as being on stable storage must be there, or a
 * later write.
 *
 * Sectors are lost independently of each other, so each sector's possible contents, looked at one by one, are those of
 * every selection.
 */

export const SECTOR = 512;

/** A change of the disk that the guest asked for. */
export interface Change {
  readonly first: number;
  readonly count: number;
  readonly isZero: boolean;
}

/** One content of a sector: 32 bits, repeated. */
interface Version {
  readonly value: number;
  /** The log's length when the guest asked for it. */
  readonly from: number;
  isDone: boolean;
  /** The log's length when the guest was told that it is on stable storage; before that, infinite. */
  durableFrom: number;
}

/** What a guest knows of its disk, which was all zeroes. No sector may be in two changes at a time. */
export class DiskModel {
  readonly #versions: Version[][];
  readonly #underWay = new Map<Change, readonly Version[]>();
  readonly #logLength: () => number;
  #lastValue = 0;

  /** @param logLength How much the log holds now. */
  constructor(sectors: number, logLength: () => number) {
    this.#versions = Array.from({ length: sectors }, () => [{ value: 0, from: 0, isDone: true, durableFrom: 0 }]);
    this.#logLength = logLength;
  }

  get sectors(): number {
    return this.#versions.length;
  }

  /** Whether no change of these sectors is under way: what they hold is known then. */
  isQuiet(first: number, count: number): boolean {
    return [...this.#underWay.keys()].every(
      (other) => other.first + other.count <= first || first + count <= other.first,
    );
  }

  /** The guest asks for a change. */
  begin(change: Change): void {
    const versions = this.#of(change).map((list) => {
      const value = change.isZero ? 0 : ++this.#lastValue;
      const version = { value, from: this.#logLength(), isDone: false, durableFrom: Number.POSITIVE_INFINITY };
      list.push(version);
      return version;
    });
    this.#underWay.set(change, versions);
  }

  /** What a write's buffer has to hold. */
  bytesOf(change: Change): Uint8Array {
    const words = new Uint32Array((change.count * SECTOR) / 4);
    (this.#underWay.get(change) ?? []).forEach(({ value }, index) => {
      words.fill(value, (index * SECTOR) / 4, ((index + 1) * SECTOR) / 4);
    });
    return new Uint8Array(words.buffer);
  }

  /** The disk has answered. A change that failed, or was never answered, may be there or not. */
  end(change: Change, { isOk, isDurable }: { readonly isOk: boolean; readonly isDurable: boolean }): void {
    for (const version of this.#underWay.get(change) ?? []) {
      version.isDone = isOk;
      if (isOk && isDurable) version.durableFrom = this.#logLength();
    }
    this.#underWay.delete(change);
  }

  /** The guest asks for a flush, which is to cover what was answered before. @returns To be called when it succeeds. */
  beginFlush(): () => void {
    const covered = this.#versions.flatMap((list) => list.findLast(({ isDone }) => isDone) ?? []);
    return () => {
      for (const version of covered) version.durableFrom = Math.min(version.durableFrom, this.#logLength());
    };
  }

  /** What the guest reads where it is quiet: one value for each sector, or several where a change has failed. */
  expected(sector: number): readonly number[] {
    const list = this.#versions[sector] ?? [];
    const last = list.findLastIndex(({ isDone }) => isDone);
    return list.slice(Math.max(0, last)).map(({ value }) => value);
  }

  /** What a sector may hold after a cut behind so many entries of the log. */
  allowed(sector: number, cut: number): readonly number[] {
    const list = this.#versions[sector] ?? [];
    const last = list.findLastIndex(({ durableFrom }) => durableFrom <= cut);
    return list.slice(Math.max(0, last)).flatMap(({ value, from }) => (from <= cut ? value : []));
  }

  #of({ first, count }: Change): readonly Version[][] {
    return this.#versions.slice(first, first + count);
  }
}

/** The value that fills a sector. @throws Error for one that is mixed: a sector is written whole. */
export function sectorValue(bytes: Uint8Array, sector: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset + sector * SECTOR, SECTOR);
  const value = view.getUint32(0, true);
  for (let at = 4; at < SECTOR; at += 4) {
    if (view.getUint32(at, true) !== value) throw new Error(`Sector ${sector} is mixed`);
  }
  return value;
}

/** What may be on the medium in one sector. */
interface Medium {
  /** Covered by a flush. */
  safe: number;
  /** Written since, in order. `isLost`: a flush failed meanwhile, and no later one covers it. */
  pending: { readonly index: number; readonly value: number; isLost: boolean }[];
}

/**
 * Cuts the power before the log's first entry, and behind each.
 *
 * @returns What is lost: "cut 12, sector 3: 7 is possible, of 9, 11". Empty for a disk that keeps its word.
 */
export function lostByPowerCuts(log: readonly LogEntry[], model: DiskModel): readonly string[] {
  const medium = Array.from({ length: model.sectors }, (): Medium => ({ safe: 0, pending: [] }));
  const lost: string[] = [];
  for (let cut = 0; cut <= log.length; cut++) {
    medium.forEach(({ safe, pending }, sector) => {
      const allowed = model.allowed(sector, cut);
      for (const value of [safe, ...pending.map((one) => one.value)]) {
        if (!allowed.includes(value)) lost.push(`cut ${cut}, sector ${sector}: ${value} is possible, of ${allowed}`);
      }
    });
    const entry = log[cut];
    if (entry !== undefined) apply(medium, entry, cut);
  }
  return lost;
}

function apply(medium: readonly Medium[], entry: LogEntry, index: number): void {
  if (entry.kind === "write") {
    if (entry.offset % SECTOR !== 0 || entry.bytes.length % SECTOR !== 0)
      throw new Error("A sector was written in part");
    for (let sector = 0; sector < entry.bytes.length / SECTOR; sector++) {
      const value = sectorValue(entry.bytes, sector);
      medium[entry.offset / SECTOR + sector]?.pending.push({ index, value, isLost: false });
    }
    return;
  }
  for (const sector of medium) {
    if (entry.kind === "failedFlush") for (const one of sector.pending) one.isLost = true;
    else {
      const covered = sector.pending.findLastIndex((one) => one.index < entry.covers && !one.isLost);
      if (covered < 0) continue;
      sector.safe = sector.pending[covered]?.value ?? sector.safe;
      sector.pending = sector.pending.slice(covered + 1); // what came before can no longer overwrite it
    }
  }
}
