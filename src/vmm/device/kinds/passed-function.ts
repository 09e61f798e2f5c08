import { EventFd } from "../../../host/eventfd.ts";
import { libc } from "../../../host/libc.ts";
import { HostMapping } from "../../../host/memory/mapping.ts";
import { KvmVfioDevice } from "../../../kvm/vfio-device.ts";
import type { PassthroughHost } from "../../../passthrough/function.ts";
import { GroupSource } from "../../../vfio/group-source.ts";
import { HostFunctions } from "../passed/host-functions.ts";
import { plugPassthrough } from "../passed/passthrough-slots.ts";
import type { BoardAccess, DeviceKind, NewFunction } from "./device-kind.ts";

/** What functions of the host and of other processes are wired to. */
export function passthroughHost({ wires, mmio, watcher, report }: BoardAccess): PassthroughHost {
  const { slots, router, resampled: lines } = wires;
  return {
    slots,
    mmio,
    router,
    lines,
    watcher,
    createEvent: EventFd.create,
    createMemory: HostMapping.anonymous,
    report,
  };
}

export const passedFunctions: DeviceKind<"devices"> = {
  part: "devices",
  make: (devices, board) => {
    if (devices.length === 0) return [];
    const { memory, report, root, undo, passed, removals } = board;
    const files = undo.own(new KvmVfioDevice(board.vm));
    const facts = devices.map(({ host }) => host);
    const functions = undo.own(
      new HostFunctions({
        devices,
        source: GroupSource.open(libc, facts, report, files),
        memory,
        host: passthroughHost(board),
        defer: board.defer,
        onError: (id, policy) => removals.hostReportsError(id, policy),
        onRequest: (id) => removals.hostWants(id),
        onStep: board.onStep,
      }),
    );
    board.setDma(functions.dma);
    for (const one of functions.passed) passed.add(one);
    return functions.groups().map(({ slot: wanted, members }): NewFunction => {
      const plug = (slot: number): void => {
        for (const { function: fn, functionNumber } of members) plugPassthrough(root, fn, slot, functionNumber);
      };
      return { plug, ...(wanted === undefined ? {} : { slot: wanted }) };
    });
  },
};
