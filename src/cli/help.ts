import type { KeyRow, OptionRow } from "./options/option-table.ts";
import { formatTable, type Style } from "./output.ts";

/** A command line to learn from. */
export interface Example {
  readonly text: string;
  readonly lines: readonly string[];
}

/** Examples first: most readers look for a line to start from. */
export const RUN_EXAMPLES: readonly Example[] = [
  {
    text: "Boot a kernel with an initial RAM disk; Ctrl-A x quits",
    lines: ['tsvmm --kernel vmlinux --initramfs initramfs.cpio --cmdline "console=ttyS0"'],
  },
  {
    text: "Boot a disk image and pass a PCI function of the host through",
    lines: [
      "tsvmm --kernel ~/vmlinux --disk path=~/focal-server-cloudimg-amd64.raw \\",
      '  --console off --serial tty --cmdline "console=ttyS0 root=/dev/vda1 rw" \\',
      "  --cpus 4 --memory size=512M --device path=/sys/bus/pci/devices/0000:01:00.0/",
    ],
  },
  {
    text: "See what such a machine would be made of, without starting it",
    lines: ["tsvmm --dry-run --kernel vmlinux --disk a.raw b.raw,readonly=on --device 0000:01:00.0"],
  },
];

const RUN_NOTES: readonly string[] = [
  "Values are comma-separated lists of key=value; the key of the first may be left out, and quotes or brackets " +
    "keep commas",
  "together: --disk 'path=\"a,b.raw\",readonly=on'. --disk and --device take several values after one flag, and " +
    "may be repeated.",
  "",
  "Exit status: 0 the guest powered off; 1 the host failed or refused something; 2 the command line is wrong;",
  "130, 143, 129 stopped by SIGINT, SIGTERM, SIGHUP; with --debug-exit what the guest wrote, times 2, plus 1.",
];

function optionTitle(row: OptionRow): string {
  const names = row.short === undefined ? row.name : `${row.short}, ${row.name}`;
  const { form } = row;
  switch (form.kind) {
    case "flag":
    case "count":
      return names;
    case "value":
      return `${names} ${form.value}`;
    case "keys":
      return `${names} ${form.value}[,key=value]`;
    case "list":
      return `${names} ${form.value}[,key=value] ...`;
    default:
      return form satisfies never;
  }
}

const shownKeys = (keys: readonly KeyRow[]): readonly (readonly string[])[] =>
  keys.filter((key) => key.isHidden !== true).map((key) => [`${key.name}=${key.value}`, key.help]);

/** Options with their help below them, and their keys below that, group by group. */
export function formatOptions(options: readonly OptionRow[], style: Style): string {
  const groups = [...new Set(options.map((row) => row.group))];
  return groups
    .map((group) => {
      const rows = options.filter((row) => row.group === group);
      const texts = rows.map((row) => {
        const keys = "keys" in row.form ? shownKeys(row.form.keys) : [];
        return `  ${style.bold(optionTitle(row))}\n      ${row.help}\n${formatTable(keys, "        ")}`;
      });
      return `${style.bold(`${group}:`)}\n${texts.join("")}`;
    })
    .join("\n");
}

/** The help of `run`, which is that of the program. */
export function runHelp(options: readonly OptionRow[], commands: readonly (readonly string[])[], style: Style): string {
  const examples = RUN_EXAMPLES.map(({ text, lines }) => {
    const shown = lines.map((line) => `    ${line}\n`).join("");
    return `  ${text}:\n${shown}`;
  });
  return [
    "tsvmm runs a virtual machine on Linux/KVM and gives it PCI functions of the host.\n\n",
    `${style.bold("Examples:")}\n${examples.join("\n")}\n`,
    `${style.bold("Usage:")}\n  tsvmm [COMMAND] [OPTIONS]\n\n`,
    `${style.bold("Commands:")} (tsvmm COMMAND --help tells more)\n${formatTable(commands, "  ")}\n`,
    `${formatOptions(options, style)}\n`,
    `${RUN_NOTES.join("\n")}\n`,
  ].join("");
}
