import type { VirtioDevice } from "../../../virtio/device.ts";
import { VirtioPciFunction } from "../../../virtio/pci-transport.ts";
import { intxGsi } from "../../shared/memory-map.ts";
import type { BoardAccess, NewFunction } from "./device-kind.ts";

/** A virtio device as function 0 of a slot of its own. */
export function virtioFunction(board: BoardAccess, name: string, make: () => VirtioDevice): NewFunction {
  return {
    plug: (slot) => {
      const { memory, wires, report, root, undo } = board;
      const { router, doorbells } = wires;
      const line = wires.line(intxGsi(slot, 1), name);
      const defer = (work: () => void): void => board.defer(work);
      const options = { name, device: make(), memory, router, doorbells, line, report, defer };
      root.plug(undo.own(new VirtioPciFunction(options)), slot);
    },
  };
}
