import { type ErrorCode, isErrorCode, SpecError } from "../base/errors.ts";
import { didYouMean } from "./options/suggest.ts";

/** A subcommand. Its code is loaded when it is used, so that none pays for the others. */
export interface Command {
  readonly name: string;
  readonly summary: string;
  /**
   * @param argv What follows the command's name.
   * @returns The exit status.
   */
  run(argv: readonly string[]): Promise<number>;
}

/** All commands; the first is meant when none is named. */
export const COMMANDS: readonly Command[] = [
  {
    name: "run",
    summary: "start a machine and wait for its end; the default",
    run: async (argv) => {
      const { run } = await import("./run.ts");
      return await run(argv, commandRows());
    },
  },
  {
    name: "devices",
    summary: "list the host's PCI functions, and say which can be passed through",
    run: async (argv) => (await import("./devices.ts")).devices(argv),
  },
  {
    name: "bind",
    summary: "give PCI functions to vfio-pci",
    run: async (argv) => (await import("./binding.ts")).bind(argv),
  },
  {
    name: "unbind",
    summary: "give PCI functions back to their drivers",
    run: async (argv) => (await import("./binding.ts")).unbind(argv),
  },
  {
    name: "doctor",
    summary: "check what a machine needs of the host, and tell what to do",
    run: async (argv) => (await import("./doctor.ts")).doctor(argv),
  },
];

/** Names and summaries, for the help. */
export function commandRows(): readonly (readonly string[])[] {
  return COMMANDS.map(({ name, summary }) => [name, summary]);
}

async function printExplanation(code: ErrorCode): Promise<number> {
  const { explain } = await import("./explain.ts");
  process.stdout.write(explain(code, process.stdout.columns ?? 100));
  return 0;
}

/**
 * Finds the command a command line means, by its first word.
 *
 * @throws SpecError when the word is none of them.
 */
export function findCommand(argv: readonly string[]): { readonly command: Command; readonly rest: readonly string[] } {
  const [word] = argv;
  const [fallback] = COMMANDS;
  if (fallback !== undefined && (word === undefined || word.startsWith("-"))) return { command: fallback, rest: argv };
  const isHelp = word === "help";
  const [, topic = ""] = argv;
  if (isHelp && isErrorCode(topic)) {
    return { command: { name: "help", summary: "", run: async () => await printExplanation(topic) }, rest: [] };
  }
  // Options may follow, by TSVMM_OPTIONS.
  const [, about = fallback?.name, tooMany] = argv.filter((argument) => !argument.startsWith("-"));
  if (isHelp && tooMany !== undefined)
    throw new SpecError("TSVMM_UNKNOWN_OPTION", "", `help takes one command: '${tooMany}' is too many`);
  const wanted = isHelp ? about : word;
  const command = COMMANDS.find(({ name }) => name === wanted);
  if (command !== undefined) return { command, rest: isHelp ? ["--help"] : argv.slice(1) };
  const names = COMMANDS.map(({ name }) => name);
  const guess =
    didYouMean(wanted ?? "", names) || `; the commands are ${names.join(", ")}, a kernel goes after --kernel`;
  throw new SpecError("TSVMM_UNKNOWN_OPTION", "", `unknown command '${wanted}'${guess}`);
}
