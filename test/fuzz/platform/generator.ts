import type { Width } from "../../../src/base/units.ts";
import type { Random } from "../engine/random.ts";
import { MEMORY, type Operation, PORTS } from "./operations.ts";

const WIDTHS: readonly Width[] = [1, 1, 1, 2, 4];
/** Values that mean something to one of the devices, beside any. */
const TELLING: readonly number[] = [
  ...[0, 1, 2, 3, 4, 5, 7, 0x08, 0x0b, 0x0f, 0x10, 0x1f, 0x34, 0x80, 0x83, 0xc1, 0xff],
  ...[0x20, 0x60, 0xa9, 0xaa, 0xab, 0xd0, 0xd1, 0xd2, 0xd4, 0xf0, 0xfe, 0x12, 0x59, 0x99, 0x31],
];
const TIME_INDEXES = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32] as const;
const DAY_MS = 86_400_000;

/** A guest that knows the ports, and now and then what is behind them. */
export function generate(random: Random, count: number): readonly Operation[] {
  const operations: Operation[] = [];
  while (operations.length < count) operations.push(...scene(random));
  return operations.slice(0, count);
}

function scene(random: Random): readonly Operation[] {
  const roll = random.below(100);
  if (roll < 60) return [portAccess(random)];
  if (roll < 72) return uartScene(random);
  if (roll < 75) return setClock(random);
  if (roll < 78) return readClock();
  if (roll < 86) return [memoryAccess(random)];
  return [hostEvent(random)];
}

function hostEvent(random: Random): Operation {
  switch (random.below(5)) {
    case 0:
      return { op: "type", count: random.below(40) };
    case 1:
      return { op: "pass", ms: random.pick([1, 7, 250, 1000, 61_000, DAY_MS, 400 * DAY_MS]) };
    case 2:
      return {
        op: "setHost",
        byMs: random.pick([-1, 1]) * random.pick([999, 3_600_000, 40 * DAY_MS, 90_000 * DAY_MS]),
      };
    case 3:
      return { op: "powerButton" };
    default:
      return { op: "requestEject", slot: random.below(32) };
  }
}

function portAccess(random: Random): Operation {
  const [base, size] = random.pick(Object.values(PORTS));
  // A port or two beside it too: accesses across borders.
  const address = Math.max(0, base - 2 + random.below(size + 3));
  return access(random, "ports", address);
}

function memoryAccess(random: Random): Operation {
  const { base, sizeBytes } = MEMORY;
  const offset = random.pick([random.below(64), random.below(sizeBytes), sizeBytes - 1 - random.below(6)]);
  return access(random, "mmio", base + offset);
}

function access(random: Random, bus: "ports" | "mmio", address: number): Operation {
  const width = random.pick(WIDTHS);
  if (random.chance(45)) return { op: "access", bus, address, width };
  const value = random.chance(70) ? random.pick(TELLING) : random.u32() % 2 ** (8 * width);
  return { op: "access", bus, address, width, value };
}

const out = (address: number, value: number): Operation => ({ op: "access", bus: "ports", address, width: 1, value });
const input = (address: number): Operation => ({ op: "access", bus: "ports", address, width: 1 });
const cmosWrite = (index: number, value: number): readonly Operation[] => [out(0x70, index), out(0x71, value)];

/** A driver of the serial port: set up, then bytes both ways by interrupt. */
function uartScene(random: Random): readonly Operation[] {
  const start = [out(0x3fb, 0x03), out(0x3fc, random.pick([0x0b, 0x0b, 0x1b, 0x00])), out(0x3f9, random.below(16))];
  const fifos = random.chance(60) ? [out(0x3fa, random.pick([0xc1, 0x07, 0x81, 0x01, 0x00]))] : [];
  const work = Array.from({ length: random.below(12) }, () =>
    random.pick([input(0x3fa), input(0x3fd), input(0x3f8), input(0x3fe), out(0x3f8, random.below(256))]),
  );
  return [...start, ...fifos, { op: "type", count: random.below(30) }, ...work];
}

/** The chip's own way to set the time: SET, all fields, SET off. Now and then a field is no time. */
function setClock(random: Random): readonly Operation[] {
  const mode = random.pick([0x00, 0x02, 0x04, 0x06, 0x12]);
  const digits = (value: number): number => ((mode & 0x04) !== 0 ? value : Number.parseInt(String(value), 16));
  const hours = random.below(24);
  const clock = (mode & 0x02) !== 0 ? digits(hours) : digits(((hours + 11) % 12) + 1) | (hours >= 12 ? 0x80 : 0);
  const fields: readonly (readonly [index: number, value: number])[] = [
    ...([
      [0x00, digits(random.below(60))],
      [0x02, digits(random.below(60))],
      [0x04, clock],
    ] as const),
    ...([
      [0x07, digits(1 + random.below(31))],
      [0x08, digits(1 + random.below(12))],
    ] as const),
    ...([
      [0x09, digits(random.below(100))],
      [0x32, digits(random.below(100))],
    ] as const),
  ];
  const wrong = random.chance(20) ? random.below(fields.length) : -1;
  return [
    ...cmosWrite(0x0b, 0x80 | mode),
    ...cmosWrite(0x0b, 0x80 | mode), // again: the first one's fields are in the old mode
    ...fields.flatMap(([index, value], at) => cmosWrite(index, at === wrong ? random.below(256) : value)),
    ...cmosWrite(0x0b, mode),
  ];
}

function readClock(): readonly Operation[] {
  return [...TIME_INDEXES, 0x0c].flatMap((index) => [out(0x70, index), input(0x71)]);
}
