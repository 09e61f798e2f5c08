import { firstWrongToTheEnd } from "../engine/operations.ts";
import { makeTarget, type Target } from "../engine/target.ts";
import { SharedFiles } from "./files.ts";
import { ServerBench } from "./server-bench.ts";
import { generate } from "./server-generator.ts";
import { kindOf, type Operation } from "./server-operations.ts";

const EPISODE_LENGTH = 600;

/** Servers that mean harm, or are broken, at a machine's end of vfio-user. */
export function userClientTarget(): Target {
  let files: SharedFiles | undefined;
  return makeTarget<Operation>({
    name: "vfio-user-client",
    about: "hostile servers of vfio-user devices: messages tampered with, at every moment of a device's life",
    unit: "operations",
    generate: (random) => generate(random, EPISODE_LENGTH),
    run: async (operations) => {
      files ??= new SharedFiles();
      const bench = new ServerBench(files);
      return await firstWrongToTheEnd(bench, operations);
    },
    kind: kindOf,
    close: () => files?.close(),
  });
}
