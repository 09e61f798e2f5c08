/**
 * The pages of docs/reference that are made of the program's own tables.
 *
 *     node dist/tools/reference.js     writes them; a test compares
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
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

/** Pages by their path below the project's root. */
export const PAGES: Readonly<Record<string, () => string>> = { "docs/reference/cli.md": cliPage };

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, page] of Object.entries(PAGES)) writeFileSync(join(projectRoot(), path), page());
}
