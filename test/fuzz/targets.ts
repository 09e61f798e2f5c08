import { accessesTarget } from "./accesses/target.ts";
import { blockTarget } from "./block/target.ts";
import { bootTarget } from "./boot/target.ts";
import { commandLineTarget } from "./command-line/target.ts";
import type { Target } from "./engine/target.ts";
import { platformTarget } from "./platform/target.ts";
import { removalsTarget } from "./removals/target.ts";
import { userClientTarget } from "./vfio-user/client-target.ts";
import { userServerTarget } from "./vfio-user/server-target.ts";

/** Everything that can be fuzzed, by the name that `--target` takes. */
export const TARGETS: readonly (() => Target)[] = [
  () => accessesTarget(),
  removalsTarget,
  platformTarget,
  bootTarget,
  commandLineTarget,
  blockTarget,
  userServerTarget,
  userClientTarget,
];
