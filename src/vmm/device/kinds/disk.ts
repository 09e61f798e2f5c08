import { VirtioBlock } from "../../../virtio/block.ts";
import type { DeviceKind } from "./device-kind.ts";
import { virtioFunction } from "./virtio.ts";

export const disks: DeviceKind<"disks"> = {
  part: "disks",
  make: (specs, board) =>
    specs.map(({ id, serial }) =>
      virtioFunction(board, id, () => new VirtioBlock(id, board.ends.disks.backend(id), serial ?? id)),
    ),
};
