import { firstWrong } from "../engine/operations.ts";
import { makeTarget, type Target } from "../engine/target.ts";
import { DiskBench } from "./disk-bench.ts";
import { generate } from "./generator.ts";
import { kindOf, type Operation } from "./operations.ts";
import { Places } from "./places.ts";

const EPISODE_LENGTH = 1500;

/** A guest's requests on a virtio disk in a file or block device. */
export function blockTarget(): Target {
  let made: Places | undefined;
  const places = (): Places => {
    made ??= new Places();
    return made;
  };
  return makeTarget<Operation>({
    name: "block",
    about: "a guest's disk requests against a model, on ext4, tmpfs and loop devices, 4Kn too",
    unit: "requests",
    leftOut: () => places().leftOut,
    generate: (random) => generate(random, EPISODE_LENGTH, places().usable),
    run: async (operations) => {
      const [first] = operations;
      const settings = first?.op === "disk" ? first : { isDirect: false, isWriteThrough: false };
      const place = first?.op === "disk" ? first.place : "tmpfs";
      const bench = new DiskBench(places().image(place), {
        ...settings,
        ...(place === "loop4k512" ? { logicalBlockBytes: 512 } : {}),
      });
      try {
        return (await firstWrong(operations, (operation) => bench.run(operation))) ?? bench.finish();
      } finally {
        bench.close();
      }
    },
    kind: kindOf,
    close: () => made?.close(),
  });
}
