import { VirtioRng } from "../../../virtio/rng.ts";
import type { DeviceKind } from "./device-kind.ts";
import { virtioFunction } from "./virtio.ts";

export const rng: DeviceKind<"rng"> = {
  part: "rng",
  make: (_spec, board) => [virtioFunction(board, "rng", () => new VirtioRng("rng", board.ends.entropy))],
};
