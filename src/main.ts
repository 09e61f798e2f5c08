#!/usr/bin/env node
import { findCommand } from "./cli/commands.ts";
import { describeError, EXIT_STATUS, styleFor } from "./cli/output.ts";

/** `TSVMM_OPTIONS`: options added behind those of the command line, split at spaces, as NODE_OPTIONS is for node. */
function extraArguments(): string[] {
  return (process.env["TSVMM_OPTIONS"] ?? "").split(" ").filter((word) => word !== "");
}

/** After the end nothing should keep the event loop alive; should something, the process ends all the same. */
const LINGER_MS = 1000;

// A reader that went away (`tsvmm --help | head -1`) is no reason for a stack trace.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
}

/** A function, since a bundle in CommonJS has no `await` at its top. */
async function main(): Promise<void> {
  // until something better is known: nothing that is left waiting ends as a success
  process.exitCode = EXIT_STATUS.hostFailure;
  try {
    const { command, rest } = findCommand([...process.argv.slice(2), ...extraArguments()]);
    process.exitCode = await command.run(rest);
  } catch (error) {
    const { text, status } = describeError(error, styleFor(process.stderr, process.env));
    process.stderr.write(`${text}\n`);
    process.exitCode = status;
  }
  setTimeout(() => process.exit(), LINGER_MS).unref();
}

void main();
