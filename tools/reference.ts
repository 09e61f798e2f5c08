/**
 * The pages of docs/reference that are made of the program's own tables.
 *
 *     node dist/tools/reference.js     writes them; a test compares
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ERROR_SECTIONS, ERRORS, type ErrorCode } from "../src/base/errors.ts";
import { formatTable } from "../src/cli/output.ts";
import type { Field } from "../src/vmm/spec/fields/field.ts";
import type { KindDescription } from "../src/vmm/spec/kinds/kind.ts";
import { allKinds } from "../src/vmm/spec/kinds/list.ts";
import { machineSchema } from "../src/vmm/spec/machine-schema.ts";
import { projectRoot } from "./cache.ts";

/** The commands, in the order of the page. */
const COMMANDS = ["run", "devices", "bind", "unbind", "doctor"] as const;

/** What the program prints for `COMMAND --help` on a terminal of unknown width. */
function helpOf(program: string, ...command: readonly string[]): string {
  return execFileSync(process.execPath, [join(projectRoot(), "dist", "src", program), ...command, "--help"], {
    encoding: "utf8",
    env: { PATH: process.env["PATH"] ?? "" },
  }).trimEnd();
}

/** docs/reference/cli.md: the help texts. */
export function cliPage(): string {
  const sections = COMMANDS.map(
    (command) => `## tsvmm ${command}\n\n\`\`\`text\n${helpOf("main.js", command)}\n\`\`\`\n`,
  );
  return [
    "# The command line\n",
    "What `--help` prints. This page is made by `npm run reference`; a test compares it with the program.\n",
    ...sections,
    `## tsvmm-device\n\n\`\`\`text\n${helpOf("vfio-user/main.js")}\n\`\`\`\n`,
  ].join("\n");
}

/** The type of a field's value, as a program gives it. */
function typeText(field: Field): string {
  switch (field.type) {
    case "text":
    case "id":
    case "path":
      return "string";
    case "bytes":
      return "number";
    case "boolean":
      return "boolean";
    case "integer":
      return `${field.least} to ${field.most}${field.word === undefined ? "" : ` or "${field.word}"`}`;
    case "integers":
      return `list of ${field.least} to ${field.most}`;
    case "choice":
      return field.choices.map((choice) => `"${choice}"`).join(" or ");
    case "variants":
      return `{ kind: ${[...field.plain, ...field.withPath.map((word) => `${word}, path`)].join(" | ")} }`;
    default:
      return field satisfies never;
  }
}

/** What becomes of a field that is left out. */
function absenceText(field: Field): string {
  if (field.isRequired === true) return "required";
  if (field.type === "id") return `${field.prefix}0, ${field.prefix}1, …`;
  if (field.default === undefined) return "-";
  return JSON.stringify(field.default);
}

/** Rows of a kind's table: field, key, type, default, help. */
function kindRows(kind: KindDescription): readonly (readonly string[])[] {
  const fields = kind.shape === "value" ? [[kind.part, kind.field] as const] : Object.entries(kind.fields);
  const rows = fields.map(([name, field]) => [
    name,
    kind.shape === "value" ? kind.option : (field.key ?? "-"),
    typeText(field),
    absenceText(field),
    field.help,
  ]);
  return [["FIELD", "KEY", "TYPE", "DEFAULT", "MEANING"], ...rows];
}

/** A section of docs/reference/kinds.md. */
export function kindSection(kind: KindDescription): string {
  const shape = { list: "a list", object: "one object", value: "one value" }[kind.shape];
  const facts = [
    ["Specification", `${kind.part}, ${shape}`],
    ["Command line", `${kind.option}${kind.shape === "list" ? ", as often as wanted" : ""}`],
    ["Cloud Hypervisor", kind.cloudHypervisor ?? "-"],
    ["Passed through", kind.isPassedThrough ? "yes" : "no"],
  ];
  const tables = `${formatTable(facts)}\n${formatTable(kindRows(kind))}`;
  return `## ${kind.kind}\n\n${kind.about}\n\n\`\`\`text\n${tables}\`\`\`\n`;
}

/** docs/reference/kinds.md: what can be said of each kind of device. */
export function kindsPage(): string {
  return [
    "# Kinds of devices\n",
    "Fields as the typed API has them, with their keys on the command line. This page is made of\n" +
      "[vmm/spec/kinds](../../src/vmm/spec/kinds/README.md) by `npm run reference`; a test compares.\n",
    ...allKinds().map(kindSection),
  ].join("\n");
}

/** Broken at spaces into lines of at most 100 characters. */
const wrapped = (text: string): string => text.replaceAll(/(.{1,100})(?: |$)/g, "$1\n").trimEnd();

/** docs/reference/errors.md: the table of error codes. */
export function errorsPage(): string {
  const section = (code: ErrorCode): string => {
    const { title, meaning, look, advice, remedy } = ERRORS[code];
    // As the message has it, which is no sentence of prose.
    const told = advice === undefined ? [] : [`**The message's advice**:\n\n\`\`\`text\n${advice}\n\`\`\`\n`];
    const parts = [wrapped(`${title}. ${meaning}`), wrapped(`**How to see it**: ${look}`)].map((part) => `${part}\n`);
    return `### ${code}\n\n${[...parts, ...told, `${wrapped(`**What to do**: ${remedy}`)}\n`].join("\n")}`;
  };
  return [
    "# Errors\n",
    "Each `SpecError` and `HostError` has a `code`, the same in all versions; texts may change.",
    "`tsvmm help CODE` prints a section. This page is made by `npm run reference`; a test compares it with",
    "the program.\n",
    ...ERROR_SECTIONS.map(([title, codes]) => `## ${title}\n\n${codes.map(section).join("\n")}`),
  ].join("\n");
}

/** Pages by their path below the project's root. */
export const PAGES: Readonly<Record<string, () => string>> = {
  "docs/reference/cli.md": cliPage,
  "docs/reference/kinds.md": kindsPage,
  "docs/reference/machine-schema.json": () => `${JSON.stringify(machineSchema(), undefined, 2)}\n`,
  "docs/reference/errors.md": errorsPage,
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, page] of Object.entries(PAGES)) writeFileSync(join(projectRoot(), path), page());
}
