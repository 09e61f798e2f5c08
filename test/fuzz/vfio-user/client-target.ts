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
      let wrong: string | undefined;
      for (const [index, operation] of operations.entries()) {
        const found = bench.run(operation);
        if (found === undefined) continue;
        wrong = `after operation ${index}: ${found}`;
        break;
      }
      const atEnd = await bench.close();
      return wrong ?? atEnd;
    },
    kind: kindOf,
    close: () => files?.close(),
  });
}
