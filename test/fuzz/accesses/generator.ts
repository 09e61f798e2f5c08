import type { Width } from "../../../src/base/units.ts";
import type { Random } from "../engine/random.ts";
import { driverStart, QUEUE_SIZE, queueCount, queueLayout } from "./driver.ts";
import { RAM_BASE, RAM_BYTES } from "./handed-memory.ts";
import { type FunctionLayout, functionLayouts } from "./layouts.ts";
import type { Operation } from "./operations.ts";
import { FUNCTION_COUNT, type HostEvent, VIRTIO_NAMES } from "./world.ts";

/** Places in configuration space where something happens; capabilities of the replayed devices are among them. */
const CONFIG_OFFSETS: readonly number[] = [
  ...[0x04, 0x04, 0x04, 0x05, 0x06, 0x0c, 0x10, 0x10, 0x14, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30, 0x3c],
  ...[0x40, 0x42, 0x43, 0x44, 0x48, 0x4c, 0x50, 0x52, 0x53, 0x54, 0x60, 0x64, 0x68, 0x69, 0x70, 0x74],
  ...[0x88, 0x89, 0x8c, 0x90, 0x94, 0x98, 0xa0, 0xa2, 0xa3, 0xa4, 0xa8, 0xac, 0xb0, 0xb4, 0xcc, 0xd2, 0xd4, 0xe8, 0xe9],
];
/** Base addresses, commands, control words and what tempts code to go wrong. */
const CONFIG_VALUES: readonly number[] = [
  ...[0, 1, 2, 3, 4, 6, 7, 0x10, 0x11, 0x21, 0x71, 0x81, 0x400, 0x406, 0x547, 0x8000, 0xc000, 0x4000, 0x80, 0xc0, 0xff],
  ...[0xffff_ffff, 0xffff_f000, 0x8000_0000, 0x8000_0003, 0x0000_8000, 0xfee0_0000, 0x4041, 0xffff],
  ...[
    0xc000_0000, 0xc000_1000, 0xc000_0100, 0xc001_0000, 0xc010_0000, 0xc800_0000, 0xcfff_f000, 0xd000_0000, 0xbfff_f000,
  ],
  ...[0x40, 0x41, 0x3f, 0x1001, 0x1041, 0xf001, 0xffe1, 0x1_0001, 0x7ff0_0001, 0xc800_0001],
];
const BAR_OFFSETS: readonly number[] = [
  ...[0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x14, 0x16, 0x18, 0x1a, 0x1c, 0x20, 0x24, 0x28, 0x30, 0x34, 0x38],
  ...[0x1000, 0x2000, 0x2008, 0x3000, 0x3004, 0x3006, 0x4000, 0x400c, 0x401c, 0x5000, 0x5004],
];
/** Structures of the functions in the world's order, as their capabilities say. */
const LAYOUTS: readonly FunctionLayout[] = functionLayouts();
const WITH_MSIX: readonly number[] = indices((layout) => layout.msix !== undefined);
const WITH_MSI: readonly number[] = indices((layout) => layout.msi !== undefined);
const WIDTHS: readonly Width[] = [1, 2, 4, 4];
const NO_TABLE = { bar: 0, table: 0, pbaBar: 0, pba: 0, count: 1 };
const HOST_EVENTS: readonly HostEvent[] = [
  ...(["deferRequests", "answerAtOnce", "completeOne", "completeOne", "completeLast", "type", "resize"] as const),
  ...(["turn", "turn", "turn"] as const),
];

function indices(predicate: (layout: FunctionLayout) => boolean): readonly number[] {
  return LAYOUTS.flatMap((layout, index) => (predicate(layout) ? [index] : []));
}

/** Makes a guest: a list of operations of at least that length, the same for the same numbers. */
export function generate(random: Random, length: number): readonly Operation[] {
  const operations: Operation[] = [];
  while (operations.length < length) {
    const made = scene(random);
    for (const operation of made) {
      // Something else in between, now and then: no driver is alone.
      if (random.chance(3)) operations.push(...scene(random));
      operations.push(operation);
    }
  }
  return operations;
}

function scene(random: Random): readonly Operation[] {
  const roll = random.below(1000);
  if (roll < 250) return [configAccess(random)];
  if (roll < 430) return [barAccess(random)];
  if (roll < 450) return [wideAccess(random)];
  if (roll < 620) return tableScene(random);
  if (roll < 650) return msiScene(random);
  if (roll < 720) return [signal(random), signal(random)];
  if (roll < 760) return comeToSenses(random);
  if (roll < 905) return queueScene(random);
  if (roll < 930) return [{ op: "host", event: random.pick(HOST_EVENTS) }];
  if (roll < 980) return [absoluteAccess(random)];
  if (roll < 992) return driverScene(random);
  if (roll < 998) return [{ op: "probe", fn: random.below(VIRTIO_NAMES.length) }];
  return [{ op: "resetMachine" }];
}

const maybeWrite = (random: Random, value: () => number): { readonly value?: number } =>
  random.chance(60) ? { value: value() } : {};

/**
 * Any number, but none whose upper bytes are those of RAM: addresses of RAM come on purpose only, so that the model
 * knows them.
 */
function anyNumber(random: Random): number {
  const value = random.u32();
  return value >>> 20 === 0xcd0 ? value - 0x10_0000 : value;
}

function configAccess(random: Random): Operation {
  const isWild = random.chance(15);
  // Within 4 KiB: behind them ECAM has the next function, and the access would be judged by the wrong model.
  const offset = isWild ? random.below(4096) : random.pick(CONFIG_OFFSETS) + (random.chance(15) ? random.below(4) : 0);
  const width = random.pick(WIDTHS);
  const value = (): number => (random.chance(20) ? anyNumber(random) : random.pick(CONFIG_VALUES)) % 2 ** (8 * width);
  const via = random.chance(25) ? "ports" : "ecam";
  return { op: "config", fn: random.below(FUNCTION_COUNT), via, offset, width, ...maybeWrite(random, value) };
}

function barAccess(random: Random): Operation {
  const isVirtio = random.chance(50);
  const fn = isVirtio ? random.below(VIRTIO_NAMES.length) : random.below(FUNCTION_COUNT);
  const bar = isVirtio ? 0 : random.pick([0, 0, 1, 2, 3, 6]);
  const offset = random.chance(30) ? random.below(0x1_0000) : random.pick(BAR_OFFSETS) + (random.chance(15) ? 1 : 0);
  const width = random.pick(WIDTHS);
  const small = (): number => random.pick([0, 0, 1, 2, 3, 4, 0x0b, 0x0f, 0x10, 0x100, 0xffff, 0x80, 0x40]);
  const value = (): number => (random.chance(60) ? small() : anyNumber(random)) % 2 ** (8 * width);
  return { op: "bar", fn, bar, offset, width, ...maybeWrite(random, value) };
}

/** Eight bytes of a passed-through function's BAR, in and beside its MSI-X table. */
function wideAccess(random: Random): Operation {
  const fn = VIRTIO_NAMES.length + random.below(FUNCTION_COUNT - VIRTIO_NAMES.length);
  const { bar, table, pba } = LAYOUTS[fn]?.msix ?? NO_TABLE;
  const near = (place: number): number => place + random.below(64) - 32;
  const offset = random.pick([random.below(0x1_0000), near(table), near(pba), 8 * random.below(0x200)]);
  const write = random.chance(60) ? { value: [anyNumber(random), anyNumber(random)] as const } : {};
  return { op: "wide", fn, bar: random.pick([bar, bar, 0, 1, 6]), offset: Math.max(0, offset), ...write };
}

/** Entries written and masked as drivers do and do not, and pending bits read. */
function tableScene(random: Random): readonly Operation[] {
  const fn = random.pick(WITH_MSIX);
  const { bar, table, pbaBar, pba, count } = LAYOUTS[fn]?.msix ?? NO_TABLE;
  const vector = random.chance(70) ? random.below(Math.min(4, count)) : random.below(count);
  const entry = table + 16 * vector;
  const write = (offset: number, width: Width, value: number): Operation => ({
    ...{ op: "bar", fn, bar, offset, width },
    value: value % 2 ** (8 * width),
  });
  switch (random.below(6)) {
    case 0:
      return [
        write(entry, 4, 0xfee0_0000),
        write(entry + 4, 4, 0),
        write(entry + 8, 4, 0x4000 + random.below(256)),
        write(entry + 12, 4, 0),
      ];
    case 1:
      return [write(entry + 12, random.pick(WIDTHS), random.below(2))];
    case 2:
      return [
        write(
          entry + random.below(16) - 3 < 0 ? entry : entry + random.below(18) - 3,
          random.pick(WIDTHS),
          anyNumber(random),
        ),
      ];
    case 3:
      return [{ op: "bar", fn, bar, offset: entry + random.below(16), width: random.pick(WIDTHS) }];
    case 4:
      return [
        {
          op: "bar",
          fn,
          bar: pbaBar,
          offset: pba + random.below(Math.ceil(count / 8) + 4),
          width: random.pick(WIDTHS),
        },
      ];
    default:
      return [{ ...{ op: "bar", fn, bar: pbaBar, offset: pba + random.below(8), width: 4 }, value: anyNumber(random) }];
  }
}

/**
 * Several messages with an address and data of which the low bits are the function's, masked and unmasked, and signals
 * to them.
 */
function msiScene(random: Random): readonly Operation[] {
  const fn = random.pick(WITH_MSI);
  const { at, dataAt, masksAt } = LAYOUTS[fn]?.msi ?? { at: 0x40, dataAt: 0x4c, masksAt: undefined };
  const write = (offset: number, width: Width, value: number): Operation => ({
    ...{ op: "config", fn, via: "ecam", offset, width },
    value,
  });
  const operations = [write(at + 4, 4, 0xfee0_0000), write(dataAt, 2, random.below(0x1_0000))];
  if (masksAt !== undefined) operations.push(write(masksAt, 4, random.pick([0, 1, 2, 0xf, 0xffff_ffff])));
  operations.push(write(at + 2, random.pick([1, 2]), random.pick([0, 0x01, 0x11, 0x21, 0x51, 0x71])));
  for (let vector = 0; vector < 4; vector++) operations.push({ op: "signal", fn, vector });
  if (masksAt !== undefined && random.chance(50)) operations.push(write(masksAt, 1, random.below(4)));
  return operations;
}

const signal = (random: Random): Operation => ({
  op: "signal",
  fn: VIRTIO_NAMES.length + random.below(FUNCTION_COUNT - VIRTIO_NAMES.length),
  vector: random.chance(70) ? random.below(4) : random.below(600),
});

/**
 * A guest that writes at random soon has nothing decoded: awake, BARs apart from each other, decode, DMA and vectors
 * on.
 */
function comeToSenses(random: Random): readonly Operation[] {
  const fn = random.below(FUNCTION_COUNT);
  const write = (offset: number, width: Width, value: number): Operation => ({
    ...{ op: "config", fn, via: "ecam", offset, width },
    value,
  });
  const base = 0xc100_0000 + 0x100_0000 * fn;
  const operations = [write(0x04, 2, 0)];
  const layout = LAYOUTS[fn];
  if (layout?.powerAt !== undefined && random.chance(70)) operations.push(write(layout.powerAt + 4, 2, 0));
  // A 64-bit BAR takes the next register for its upper half.
  const is64 = layout?.isBar0Wide === true;
  operations.push(write(0x10, 4, base), write(0x14, 4, is64 ? 0 : base + 0x20_0000));
  operations.push(write(0x18, 4, base + 0x40_0000), write(0x1c, 4, base + 0x60_0000));
  if (random.chance(20)) operations.push(write(0x30, 4, base + 0x80_0001));
  operations.push(write(0x04, 2, random.pick([6, 7, 0x407])));
  for (const control of [0x42, 0x52, 0xa2])
    if (random.chance(60)) operations.push(write(control, 2, random.pick([0x8000, 0xc000, 0x8000])));
  return operations;
}

/** A driver's start, in one piece or with a step lost. */
function driverScene(random: Random): readonly Operation[] {
  if (random.chance(20)) return resetInFlight(random);
  const fn = random.below(VIRTIO_NAMES.length);
  const features = random.chance(70) ? 0 : random.pick([1 << 28, 1 << 29, (1 << 28) + (1 << 29)]);
  const operations = driverStart(fn, [features, 1]);
  if (random.chance(40)) return [...operations, ...busyQueue(random, fn)];
  if (random.chance(50)) return operations;
  const lost = random.below(operations.length);
  return operations.filter((_, at) => at !== lost);
}

/** A disk request that the host still works on when the driver resets the device. */
function resetInFlight(random: Random): readonly Operation[] {
  const requests = busyQueue(random, 0);
  const status: Operation = { ...{ op: "bar", fn: 0, bar: 0, offset: 0x14, width: 1 }, value: 0 };
  const end = random.pick<Operation>([status, status, { op: "resetMachine" }]);
  const complete: Operation = { op: "host", event: random.pick(["completeOne", "completeLast"]) };
  const first = requests.findIndex((operation) => operation.op === "bar") + 1;
  return [
    { op: "host", event: "deferRequests" },
    ...driverStart(0),
    ...requests.slice(0, first),
    end,
    complete,
    complete,
    { op: "host", event: "answerAtOnce" },
  ];
}

/** More requests than the ring has places, each good: its indices wrap. */
function busyQueue(random: Random, fn: number): readonly Operation[] {
  const { descriptors, available, buffers } = queueLayout(fn, 0);
  const high = Math.floor(RAM_BASE / 2 ** 32);
  const low = (RAM_BASE + buffers) % 2 ** 32;
  const operations: Operation[] = [];
  const ram = (offset: number, width: Width, value: number): void =>
    void operations.push({ op: "ram", offset, width, value });
  const isDisk = fn === 0;
  for (let index = 0; index < QUEUE_SIZE; index++) {
    // Chains of two for the disk, a flush and its status; a buffer to fill for the others.
    const isHeader = isDisk && index % 2 === 0;
    const flags = isHeader ? 1 + 65_536 * (index + 1) : 2;
    const rows = [low + 0x100 * index, high, isHeader ? 16 : isDisk ? 1 : 8, flags];
    for (const [row, value] of rows.entries()) ram(descriptors + 16 * index + 4 * row, 4, value);
    if (isHeader) ram(buffers + 0x100 * index, 4, 4);
    ram(available + 4 + 2 * index, 2, isDisk ? index - (index % 2) : index);
  }
  const step = random.pick([1, 5, 7, 8]);
  for (let index = step; index < 60; index += step) {
    ram(available + 2, 2, index);
    operations.push({ ...{ op: "bar", fn, bar: 0, offset: 0x3000, width: 2 }, value: 0 });
    if (fn === 1) operations.push({ op: "host", event: "type" });
  }
  return operations;
}

/** Descriptors, ring entries and notifications of a queue, good and bad ones. */
function queueScene(random: Random): readonly Operation[] {
  const fn = random.below(VIRTIO_NAMES.length);
  const queue = random.below(queueCount(fn));
  const layout = queueLayout(fn, queue);
  const ram = (offset: number, width: Width, value: number): Operation => ({ op: "ram", offset, width, value });
  const notify: Operation = { ...{ op: "bar", fn, bar: 0, offset: 0x3000 + 4 * queue, width: 2 }, value: queue };
  const descriptor = (table: number, index: number): readonly Operation[] => {
    const at = table + 16 * index;
    const [low, high, sizeBytes] = buffer(random, layout.buffers, layout.buffersSizeBytes);
    const flags = random.pick([0, 0, 2, 2, 2, 1, 3, 4, 5, 6, 8]);
    const isTable = (flags & 4) !== 0 && random.chance(80);
    const next = random.chance(90) ? (index + 1) % QUEUE_SIZE : random.below(0x1_0000);
    return [
      ram(at, 4, isTable ? (RAM_BASE + layout.indirect) % 2 ** 32 : low),
      ram(at + 4, 4, high),
      ram(at + 8, 4, isTable ? random.pick([16, 32, 64, 160, 256, 8, 0]) : sizeBytes),
      ram(at + 12, 4, flags + 65_536 * next),
    ];
  };
  switch (random.below(9)) {
    case 8:
      // A chain without an end, which a device must stop following.
      return [
        ram(layout.descriptors + 8, 4, 16),
        ram(layout.descriptors + 12, 4, random.pick([0x0000_0001, 0x0001_0001])),
        ram(layout.available + 2, 2, 1),
        notify,
      ];
    case 0:
    case 1:
      return descriptor(layout.descriptors, random.below(QUEUE_SIZE));
    case 2:
      return descriptor(layout.indirect, random.below(16));
    case 3: {
      const heads = Array.from({ length: QUEUE_SIZE }, (_, at) => ram(layout.available + 4 + 2 * at, 2, at));
      return heads;
    }
    case 4:
      return [
        ram(layout.available + 4 + 2 * random.below(QUEUE_SIZE), 2, random.below(random.chance(90) ? 16 : 65_536)),
      ];
    case 5:
      return [ram(layout.available + random.pick([0, 2]), 2, random.below(65_536)), notify];
    case 6:
      return blockRequest(random, ram, notify);
    default:
      // One more chain than the rings can have seen: most often what a driver does.
      return [ram(layout.available + 2, 2, random.below(4) + 1), notify];
  }
}

/** A disk request in three descriptors, its header wrong now and then. VIRTIO 1.2 §5.2.6 */
function blockRequest(
  random: Random,
  ram: (offset: number, width: Width, value: number) => Operation,
  notify: Operation,
): readonly Operation[] {
  const { descriptors, available, buffers } = queueLayout(0, 0);
  const high = Math.floor(RAM_BASE / 2 ** 32);
  const low = (RAM_BASE + buffers) % 2 ** 32;
  const type = random.pick([0, 1, 0, 1, 4, 8, 11, 13, 99]);
  const isToDevice = type === 1 || type === 11 || type === 13;
  const sizeBytes = random.pick([512, 1024, 4096, 16, 513, 20]);
  const rows = [
    [low, 16, 0x0001_0001],
    [low + 0x200, sizeBytes, 0x0002_0001 + (isToDevice ? 0 : 2)],
    [low + 0x3000, 1, 2],
  ] as const;
  return [
    ram(buffers, 4, type),
    ram(buffers + 8, 4, random.pick([0, 1, 127, 128, 120, 0xffff_ffff])),
    ram(buffers + 12, 4, random.chance(95) ? 0 : anyNumber(random)),
    ram(buffers + 0x208, 4, random.pick([1, 8, 128, 129, 0xffff_ffff])),
    ...rows.flatMap(([address, size, flags], index) => {
      const at = descriptors + 16 * index;
      return [ram(at, 4, address), ram(at + 4, 4, high), ram(at + 8, 4, size), ram(at + 12, 4, flags)];
    }),
    ram(available + 4, 2, 0),
    ram(available + 2, 2, random.below(3) + 1),
    { ...notify, ...("fn" in notify ? { fn: 0 } : {}) },
  ];
}

/** A place for a buffer: in the queue's own half of its memory, across the end of RAM, or nowhere. */
function buffer(random: Random, start: number, sizeBytes: number): readonly [low: number, high: number, size: number] {
  const roll = random.below(20);
  const high = Math.floor(RAM_BASE / 2 ** 32);
  if (roll === 0) return [(RAM_BASE + RAM_BYTES - 8) % 2 ** 32, high, 64];
  if (roll === 1) return [anyNumber(random), random.pick([0, 0xffff_ffff, 0x1f_ffff, 0x20_0000]), anyNumber(random)];
  const offset = random.below(sizeBytes - 0x1000);
  return [(RAM_BASE + start + offset) % 2 ** 32, high, random.pick([0, 1, 16, 20, 512, 0x1000])];
}

function absoluteAccess(random: Random): Operation {
  const width = random.pick(WIDTHS);
  const isPort = random.chance(20);
  const memory = random.chance(50)
    ? 0xc000_0000 + random.below(0x1100_0000)
    : 0x40_0000_0000 + random.below(16) * 0x10_0000 + random.below(0x1_0000);
  const value = (): number => anyNumber(random) % 2 ** (8 * width);
  return {
    ...{ op: "absolute", bus: isPort ? "ports" : "mmio", address: isPort ? random.below(0x1_0000) : memory, width },
    ...maybeWrite(random, value),
  };
}
