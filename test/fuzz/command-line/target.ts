import { isDeepStrictEqual } from "node:util";
import { bind, unbind } from "../../../src/cli/binding.ts";
import { devices } from "../../../src/cli/devices.ts";
import { doctor } from "../../../src/cli/doctor.ts";
import { parseRun } from "../../../src/cli/options/parse.ts";
import { completeSpec } from "../../../src/vmm/spec/spec-check.ts";
import { judgeFailure, judgeRefusal } from "../../support/refusals.ts";
import { makeTarget, type Target } from "../engine/target.ts";
import { generate } from "./generator.ts";
import { FuzzedHost } from "./host.ts";
import type { Operation } from "./operations.ts";

const LINES_A_RUN = 500;
/** What bind and unbind write goes nowhere. */
const NO_CHANGES = { write: () => undefined, loadModule: () => undefined };

/** Command lines: what they describe is a machine, or they are refused in one line that names the option. */
export function commandLineTarget(): Target {
  let host: FuzzedHost | undefined;
  const there = (): FuzzedHost => {
    host ??= new FuzzedHost();
    return host;
  };
  return makeTarget<Operation>({
    name: "command-line",
    about: "command lines of run and of the other commands, with hostile words",
    unit: "command lines",
    generate: (random) => generate(random, LINES_A_RUN),
    run: async (operations) => {
      for (const [index, operation] of operations.entries()) {
        const isRun = operation.command === "run";
        const wrong = isRun ? tryRun(operation.argv, there()) : await tryCommand(operation, there());
        if (wrong !== undefined) return `command line ${index}: ${wrong}`;
      }
      return undefined;
    },
    kind: ({ command }) => command,
    close: () => host?.close(),
  });
}

function tryRun(argv: readonly string[], { home }: FuzzedHost): string | undefined {
  let request: ReturnType<typeof parseRun>;
  try {
    request = parseRun(argv, home);
  } catch (error) {
    return judgeRefusal(error);
  }
  const again = completeSpec(request.spec);
  if (!isDeepStrictEqual(again, request.spec)) return `the machine is another one when it is checked again`;
  const sent: unknown = structuredClone(request.spec);
  return isDeepStrictEqual(sent, request.spec) ? undefined : "the machine is not plain data";
}

async function tryCommand({ command, argv }: Operation, host: FuzzedHost): Promise<string | undefined> {
  // The one command that writes a file, wherever it is told to.
  if (argv.some((word) => word.startsWith("--rec"))) return undefined;
  const { surroundings } = host;
  try {
    if (command === "devices") await devices(argv, surroundings);
    else if (command === "doctor") await doctor(argv, surroundings);
    else if (command === "bind") bind(argv, surroundings, NO_CHANGES);
    else unbind(argv, surroundings, NO_CHANGES);
  } catch (error) {
    return judgeFailure(error);
  }
  const printed = host.takePrinted();
  return /[^\P{C}\n]/u.test(printed) ? `characters that do not print: ${JSON.stringify(printed)}` : undefined;
}
