import { firstWrongToTheEnd } from "../engine/operations.ts";
import { makeTarget, type Target } from "../engine/target.ts";
import { ClientBench } from "./client-bench.ts";
import { generate } from "./client-generator.ts";
import { kindOf, type Operation } from "./client-operations.ts";
import { SharedFiles } from "./files.ts";

const EPISODE_LENGTH = 1200;

/** Clients that mean harm, or are broken, at a device server: an NVMe controller or edu. */
export function userServerTarget(): Target {
  let files: SharedFiles | undefined;
  return makeTarget<Operation>({
    name: "vfio-user-server",
    about: "hostile clients of device servers: messages, descriptors, NVMe commands, DMA by message",
    unit: "messages",
    generate: (random) => generate(random, EPISODE_LENGTH),
    run: async (operations) => {
      files ??= new SharedFiles();
      const [first] = operations;
      const bench = new ClientBench(files, first?.op === "device" ? first.kind : "nvme");
      return await firstWrongToTheEnd(bench, operations);
    },
    kind: kindOf,
    close: () => files?.close(),
  });
}
