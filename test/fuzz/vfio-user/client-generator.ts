import type { Width } from "../../../src/base/units.ts";
import type { Random } from "../engine/random.ts";
import type { AnswerKind, FileKind, Operation } from "./client-operations.ts";

const RAM_BYTES = 2 ** 21;
const HALF = RAM_BYTES / 2;
const [VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION, IO_FDS, GET_IRQ, SET_IRQS, READ, WRITE] = [
  ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
] as const as readonly number[];
const RESET = 13;
const CONFIG = 7;

/** Offers that servers meet: none, few, many, and nonsense. */
const OFFERS: readonly string[] = [
  '{"capabilities":{"max_msg_fds":253,"max_data_xfer_size":1048576}}',
  '{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1024,"pgsizes":4096}}',
  '{"capabilities":{"max_msg_fds":0}}',
  '{"capabilities":{}}',
  "{}",
  '{"capabilities":{"max_msg_fds":-1,"max_data_xfer_size":1e99}}',
  '{"capabilities":[]}',
  '{"capabilities":{"max_msg_fds":"many"}}',
  "null",
  '{"a":',
  "",
];
const FILES: readonly FileKind[] = ["ram", "ram", "short", "event", "pipe", "null", "folder"];
const ANSWERS: readonly AnswerKind[] = [
  ...(["well", "well", "well", "well", "well", "short", "long", "error", "other", "commands"] as const),
  ...(["silence", "hangUp"] as const),
];

/** A client: right at its start, most often, and then anything. */
export function generate(random: Random, count: number): readonly Operation[] {
  const isNvme = random.below(4) !== 0;
  const operations: Operation[] = [{ op: "device", kind: isNvme ? "nvme" : "edu" }, ...start(random, isNvme)];
  let last = count;
  while (operations.length < count) {
    const made = scene(random, isNvme);
    operations.push(...made);
    // What ends a connection is followed by another client, not at once.
    if (made.some(isFatal)) last = Math.min(last, operations.length + random.below(20));
    if (operations.length < last) continue;
    operations.push({ op: "reconnect" }, ...start(random, isNvme));
    last = count;
  }
  return operations;
}

/** Whether the server hangs up on it, or may when it asks for memory next. */
function isFatal(operation: Operation): boolean {
  if (operation.op === "answers") return ["other", "silence", "hangUp"].includes(operation.how);
  return operation.op === "raw" || (operation.op === "send" && operation.reply === true);
}

const send = (command: number | undefined, words: readonly number[], files: readonly FileKind[] = []): Operation => ({
  ...{ op: "send", command: command ?? 0, words },
  ...(files.length === 0 ? {} : { files }),
});
const wide = (value: number): readonly number[] => [value % 2 ** 32, Math.floor(value / 2 ** 32) % 2 ** 32];
const write = (offset: number, value: number, region = 0, width: Width = 4): Operation => ({
  ...{ op: "write", region, offset, width, value, noReply: false },
});

function start(random: Random, isNvme: boolean): readonly Operation[] {
  const offer = random.chance(90) ? (OFFERS[0] ?? "") : random.pick(OFFERS);
  const version = random.chance(97) ? 0x0001_0000 : random.u32();
  return [
    { op: "send", command: 1, words: [version], text: offer },
    mapRam(0, "ram"),
    ...secondHalf(random),
    ...(isNvme ? [send(SET_IRQS, [20, 0x24, 2, 0, 3], ["event", "event", "event"])] : pin(random)),
    write(4, 6, CONFIG, 2),
    ...(isNvme ? enable(random) : []),
  ];
}

/** An eventfd for the pin, and one that unmasks it: both, one or neither. */
function pin(random: Random): readonly Operation[] {
  const trigger = send(SET_IRQS, [20, 0x24, 0, 0, 1], ["event"]);
  const unmask = send(SET_IRQS, [20, 0x14, 0, 0, 1], ["event"]);
  return [trigger, unmask].filter(() => random.chance(60));
}

/** Of guest RAM: not shared, so that it is asked for by message; shared to be read only; or not there. */
function secondHalf(random: Random): readonly Operation[] {
  const roll = random.below(100);
  if (roll < 60) return [send(DMA_MAP, [32, 3, ...wide(0), ...wide(HALF), ...wide(HALF)])];
  return roll < 80 ? [send(DMA_MAP, [32, 1, ...wide(HALF), ...wide(HALF), ...wide(HALF)], ["ram"])] : [];
}

const mapRam = (at: number, file: FileKind): Operation =>
  send(DMA_MAP, [32, 3, ...wide(at), ...wide(at), ...wide(HALF)], [file]);

/** The controller off and on, with admin queues that are somewhere, most often where they belong. */
function enable(random: Random): readonly Operation[] {
  const high = (): number => (random.chance(75) ? 0 : random.u32());
  const rows: readonly (readonly [offset: number, value: number])[] = [
    [0x14, 0],
    [0x24, random.pick([0x000f_000f, 0x000f_000f, 0x03ff_03ff, random.u32()])],
    [0x28, random.pick([0x1_0000, 0x1_0000, 0xf_f000, random.u32()])],
    [0x2c, 0],
    [0x30, random.pick([0x2_0000, 0x2_0000, 0x1_0000, random.u32()])],
    [0x34, high()],
    [0x14, random.pick([0x0046_0001, 0x0046_0001, 1, random.u32()])],
  ];
  return rows.map(([offset, value]) => write(offset, value));
}

function scene(random: Random, isNvme: boolean): readonly Operation[] {
  const roll = random.below(100);
  if (roll < 45) return isNvme ? nvmeCommand(random) : eduTransfer(random);
  if (roll < 48) return isNvme ? enable(random) : [{ op: "turn" }];
  if (roll < 62) return [anyWrite(random)];
  if (roll < 70) return [anyRead(random)];
  if (roll < 78) return [dma(random)];
  if (roll < 84) return [setIrqs(random)];
  if (roll < 89) return [anyCommand(random)];
  if (roll < 93) return [{ op: "turn" }];
  if (roll < 96) return [{ op: "answers", how: random.pick(ANSWERS) }];
  if (roll < 98) return [write(4, random.pick([6, 2, 0, 0x406, random.below(0x1_0000)]), CONFIG, 2)];
  if (roll < 99) return [{ op: "ram", at: 4 * random.below(RAM_BYTES / 4 - 64), words: words(random, 64) }];
  if (random.chance(50)) return [{ op: "reconnect" }, ...start(random, isNvme)];
  return [{ op: "raw", words: words(random, 8), count: 1 + random.below(32) }];
}

const words = (random: Random, count: number): readonly number[] =>
  Array.from({ length: count }, () => random.pick([0, 1, random.u32()]));

/** Numbers that are the edge of something. */
function any64(random: Random): readonly number[] {
  const edge = random.pick([0, 1, 4096, RAM_BYTES, random.below(RAM_BYTES), random.u32()]);
  return random.chance(70)
    ? wide(edge)
    : random.pick([
        [0xffff_ffff, 0xffff_ffff],
        [0, 0x8000_0000],
        [0, 0x20_0000],
      ]);
}

function anyWrite(random: Random): Operation {
  const region = random.pick([0, 0, 7, 7, random.below(12)]);
  if (random.chance(70)) {
    const width = random.pick([1, 2, 4, 4] as const);
    const offset = random.pick([random.below(0x4000), random.below(256)]);
    const value = random.u32() % 2 ** (8 * width);
    return { op: "write", region, offset, width, value, noReply: random.chance(50) };
  }
  const data = words(random, random.pick([0, 1, 2, 3, 50]));
  const count = random.chance(80) ? 4 * data.length : random.u32();
  const offset = random.chance(60) ? wide(random.below(0x4000)) : any64(random);
  return send(WRITE, [...offset, region, count, ...data]);
}

function anyRead(random: Random): Operation {
  const offset = random.chance(80) ? wide(random.below(0x4000)) : any64(random);
  const region = random.pick([0, 0, 7, random.below(12), random.u32()]);
  return send(READ, [...offset, region, random.pick([1, 2, 4, 4, 8, random.below(5000), random.u32()])]);
}

function dma(random: Random): Operation {
  const flags = random.pick([3, 3, 1, 2, 0, random.u32()]);
  const place = (): readonly number[] => (random.chance(60) ? wide(4096 * random.below(1024)) : any64(random));
  const files = random.chance(60) ? [random.pick(FILES)] : [];
  if (random.chance(50)) return send(DMA_MAP, [32, flags, ...place(), ...place(), ...place()], files);
  if (random.chance(40)) return mapRam(0, "ram");
  const half = random.pick([0, HALF]);
  const range = random.chance(50) ? [...wide(half), ...wide(HALF)] : [...place(), ...place()];
  return send(DMA_UNMAP, [24, random.pick([0, 0, 0, 2, random.u32()]), ...range], random.chance(3) ? ["ram"] : []);
}

function setIrqs(random: Random): Operation {
  const flags = random.pick([0x21, 0x24, 0x24, 0x11, 0x14, 0x09, 0x0c, 0x22, random.below(64), random.u32()]);
  const index = random.pick([0, 1, 2, 2, 3, 4, random.u32()]);
  const span = [random.pick([0, 0, random.below(20), random.u32()]), random.pick([0, 1, 2, random.u32()])];
  const files = Array.from({ length: random.pick([0, 0, 1, 2, random.below(20)]) }, () =>
    random.chance(85) ? "event" : random.pick(FILES),
  );
  return send(SET_IRQS, [random.pick([20, 20, 20, random.u32()]), flags, index, ...span], files);
}

function anyCommand(random: Random): Operation {
  const command = random.pick([
    GET_INFO,
    GET_REGION,
    IO_FDS,
    GET_IRQ,
    RESET,
    VERSION,
    99,
    11,
    12,
    random.below(0x1_0000),
  ]);
  if (random.chance(60)) {
    const info = random.pick([GET_INFO, GET_REGION, GET_REGION, IO_FDS, GET_IRQ]);
    const size = random.pick([16, 24, 32, 64, 80, random.u32()]);
    return send(info, [size, 0, random.below(12), 0, ...words(random, random.pick([0, 4, 4, 4]))]);
  }
  const argument = random.chance(60) ? [random.pick([16, 20, 24, 32, 64]), 0, random.below(12), 0] : [];
  const more = words(random, random.pick([0, 0, 4, 4, random.below(20)]));
  return {
    ...{ op: "send", command: command ?? 0, words: [...argument, ...more] },
    ...(random.chance(20) ? { files: [random.pick(FILES)] } : {}),
    ...(random.chance(10) ? { noReply: true } : {}),
    ...(random.chance(2) ? { reply: true } : {}),
  };
}

/** A command in a queue and its doorbell; fields are right, random or at an edge. NVMe 1.4 §4.2 */
function nvmeCommand(random: Random): readonly Operation[] {
  const isIo = random.chance(35);
  const slot = random.below(16);
  const at = (isIo ? 0x3_0000 : 0x1_0000) + 64 * slot;
  const page = (): number =>
    random.pick([0x4_0000, 0x4_1000, 0x8_0000, 0x1_0000, 0x2_0000, 0xf_f000, 0x10_0000, 0x1f_f000, 0x4_0004, 0x4_0ffc]);
  const command = Array.from({ length: 16 }, () => (random.chance(25) ? random.pick([0, 1, random.u32()]) : 0));
  const opcode = isIo
    ? random.pick([0, 1, 2, 2, 1, 8, 9, 4, random.below(256)])
    : random.pick([0, 1, 4, 5, 5, 1, 2, 6, 6, 8, 9, 10, 12, 12, random.below(256)]);
  command[0] = opcode + 65_536 * random.below(65_536) + (random.chance(5) ? 256 * random.below(256) : 0);
  command[1] = random.pick([1, 1, 1, 0, 0xffff_ffff, random.u32()]);
  command[6] = random.chance(90) ? page() : random.u32();
  command[7] = random.chance(92) ? 0 : random.u32();
  command[8] = random.chance(90) ? page() : random.u32();
  if (!isIo && (opcode === 5 || opcode === 1)) {
    command[6] = random.chance(80) ? (opcode === 1 ? 0x3_0000 : 0x3_8000) : random.u32();
    command[10] = random.pick([0x000f_0001, 0x000f_0001, random.u32()]);
    command[11] =
      opcode === 1 ? random.pick([0x1_0001, 0x1_0001, random.u32()]) : random.pick([0x1_0003, 3, random.u32()]);
  }
  if (isIo) {
    command[10] = random.pick([0, 1, 2047, 2040, random.below(4096), random.u32()]);
    command[11] = random.chance(90) ? 0 : random.u32();
    command[12] = random.pick([0, 7, 255, 0xffff, random.u32()]);
  }
  const doorbell = isIo ? 0x1008 : 0x1000;
  const tail = random.pick([(slot + 1) % 16, (slot + 1) % 16, (slot + 1) % 16, random.below(32), random.u32()]);
  const list = random.chance(10) ? [{ op: "ram" as const, at: 0x4_1000, words: prpList(random) }] : [];
  return [
    ...list,
    { op: "ram", at, words: command },
    write(doorbell, tail),
    write(doorbell + 4, random.pick([tail, random.below(20)])),
  ];
}

/** Pages that a PRP list names. */
const prpList = (random: Random): readonly number[] =>
  Array.from({ length: 64 }, (_, at) => [
    random.chance(90) ? 0x8_0000 + 4096 * (at % 64) : random.pick([0x4_1000, random.u32()]),
    0,
  ]).flat();

function eduTransfer(random: Random): readonly Operation[] {
  const rows = [0x80, 0x84, 0x88, 0x8c, 0x90, 0x94].filter(() => random.chance(50));
  const value = (): number => random.pick([0, 0x4_0000, 0x4_0ff0, 4096, 64, 0xffff_ffff, random.u32()]);
  const start = random.pick([0x98, 0x98, 0x60, 0x64, 0x08, 0x20, 0x04]);
  return [...rows.map((offset) => write(offset, value())), write(start, random.pick([1, 3, 5, 7, random.u32()]))];
}
