import { FOREIGN_OPTIONS } from "../../../src/cli/options/foreign-options.ts";
import type { KeyRow, OptionRow } from "../../../src/cli/options/option-table.ts";
import { runOptions } from "../../../src/cli/options/options.ts";
import { HOSTILE_WORDS } from "../../support/hostile-words.ts";
import type { Random } from "../engine/random.ts";
import type { Operation } from "./operations.ts";

/** Values that are right somewhere; the paths are there (see host.ts). */
const RIGHT: readonly string[] = [
  ...["on", "off", "null", "tty", "pty", "api", "file=~/out", "socket=~/sock", "auto", "pretty", "json", "raw"],
  ...["~/vmlinux", "~/initramfs", "~/a.raw", "~/b.raw", "~/a.raw,readonly=on", "~/socket", "~/none/x", "/dev/urandom"],
  ...["1", "2", "254", "255", "0", "50", "1000000", "16M", "512M", "1G", "33554432", "3T", "0xf4", "65535", "31"],
  ...[
    "map",
    "trap",
    "[0,1]",
    "[0]",
    "file=~/rom",
    "0000:01:00.0",
    "01:00.0",
    "console=ttyS0 root=/dev/vda1 rw",
    "a",
    "_disk0",
  ],
];
const CHARACTERS = [
  "a",
  "0",
  "-",
  "=",
  ",",
  "[",
  "]",
  '"',
  "'",
  ".",
  "/",
  "~",
  " ",
  "\n",
  "\x1b",
  "\0",
  "é",
  "\u202e",
  "\ud83d",
];
const FOREIGN = [...FOREIGN_OPTIONS.keys()];
const SUBCOMMANDS = ["devices", "bind", "unbind", "doctor"] as const;
const SUBCOMMAND_OPTIONS = ["--json", "--group", "--force", "--dry-run", "--memory", "--help"];

export const generate = (random: Random, count: number): readonly Operation[] =>
  Array.from({ length: count }, () => operation(random));

function operation(random: Random): Operation {
  if (random.chance(88)) return { command: "run", argv: run(random) };
  const words = Array.from({ length: random.below(5) }, () => {
    if (random.chance(40)) return [misspelt(random, random.pick(SUBCOMMAND_OPTIONS))];
    return [random.chance(60) ? random.pick(["0000:01:00.0", "0000:01:00.1", "0000:02:00.0"]) : word(random)];
  });
  return { command: random.pick(SUBCOMMANDS), argv: words.flat() };
}

function run(random: Random): readonly string[] {
  const start = random.chance(90) ? ["--kernel", "~/vmlinux"] : [];
  const parts = Array.from({ length: random.pick([0, 1, 1, 1, 2, 3, 6]) }, () => part(random));
  return [...start, ...parts.flat()];
}

function part(random: Random): readonly string[] {
  const roll = random.below(100);
  if (roll < 4) return [random.pick(FOREIGN), word(random)];
  if (roll < 8) return [word(random)];
  const row = random.pick(runOptions());
  const spelt = row.short !== undefined && random.chance(30) ? row.short : row.name;
  const name = misspelt(random, spelt);
  const values = Array.from({ length: count(random, row) }, () => value(random, row));
  const [first, ...others] = values;
  if (first !== undefined && random.chance(30)) return [`${name}=${first}`, ...others];
  return [name, ...values];
}

function count(random: Random, { form }: OptionRow): number {
  if (random.chance(3)) return random.below(4);
  if (!("value" in form)) return 0;
  return form.kind === "list" ? 1 + random.below(3) : 1;
}

function value(random: Random, { form }: OptionRow): string {
  if (!("keys" in form) || random.chance(15)) return word(random);
  const items = Array.from({ length: 1 + random.below(4) }, (_, index) => {
    if (index === 0 && random.chance(60)) return word(random);
    return keyed(random, form.keys);
  });
  return items.join(random.chance(97) ? "," : random.pick(["", ",,", ";", ", "]));
}

function keyed(random: Random, keys: readonly KeyRow[]): string {
  const { name, aliases = [] } = random.pick(keys);
  const key = misspelt(random, random.pick([name, ...aliases]));
  const text = word(random);
  return random.chance(10) ? `${key}="${text}"` : `${key}${random.chance(97) ? "=" : ""}${text}`;
}

function word(random: Random): string {
  const roll = random.below(100);
  if (roll < 55) return random.pick(RIGHT);
  if (roll < 75) return random.pick(HOSTILE_WORDS);
  if (roll < 88) return misspelt(random, random.pick(RIGHT), 100);
  if (roll < 95) return String(random.pick([random.u32(), -random.u32(), random.u32() * 2 ** 21, 1.5, 1e21]));
  return Array.from({ length: random.below(20) }, () => random.pick(CHARACTERS)).join("");
}

/** The word, or one with a character more, less or other. */
function misspelt(random: Random, text: string, percent = 4): string {
  if (!random.chance(percent)) return text;
  const at = random.below(text.length + 1);
  return text.slice(0, at) + (random.chance(70) ? random.pick(CHARACTERS) : "") + text.slice(at + random.below(2));
}
