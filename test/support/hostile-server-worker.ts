import { parentPort, workerData } from "node:worker_threads";
import type { RingWatcher } from "../../src/base/signals.ts";
import { type Fd, fd } from "../../src/base/units.ts";
import { SOCKET } from "../../src/host/constants.ts";
import { DescriptorSocket } from "../../src/host/descriptor-socket.ts";
import { EventSignals } from "../../src/host/event-signals.ts";
import { EventFd } from "../../src/host/eventfd.ts";
import { libc } from "../../src/host/libc.ts";
import { UnixListener } from "../../src/host/unix-socket.ts";
import { UserWire } from "../../src/vfio-user/protocol/wire.ts";
import { ClientMemory } from "../../src/vfio-user/server/client-memory.ts";
import { Connection } from "../../src/vfio-user/server/connection.ts";
import type { UserPciDevice } from "../../src/vfio-user/server/device.ts";
import { ClientInterrupts } from "../../src/vfio-user/server/interrupts.ts";
import { MemoryBlock } from "../../src/vfio-user/server/memory-block.ts";
import { DeviceModel } from "../../src/vfio-user/server/model.ts";
import { randomNumbers } from "./random-numbers.ts";
import { tamper } from "./tampered-message.ts";

/*
 * A vfio-user server in a thread whose answers are tampered with, by a seed a connection: 1, 2, 3 and so on. It ends
 * with the connection of seed `last`; one message in `oneIn` is tampered with. Everything but what it sends is the real
 * server's.
 */

// Cast: the test makes this worker with exactly these data.
const { path, last, oneIn } = workerData as { readonly path: string; readonly last: number; readonly oneIn: number };
const spare = EventFd.create();
const memory = new MemoryBlock("scratch", 4096, 4096);

/** Sends other things than it is told, now and then. */
class TamperedSocket extends DescriptorSocket {
  readonly #random: (below: number) => number;

  constructor(socket: Fd, random: (below: number) => number) {
    super(socket);
    this.#random = random;
  }

  override send(bytes: Uint8Array, descriptors: readonly Fd[] = []): number {
    if (this.#random(oneIn) !== 0) return super.send(bytes, descriptors);
    for (const piece of tamper({ bytes, descriptors }, this.#random, spare.fd)) {
      super.send(piece.bytes, piece.descriptors);
    }
    return bytes.length;
  }
}

const device: UserPciDevice = {
  name: "hostile",
  identity: {
    ...{ vendorId: 0x1234, deviceId: 0x5c5c, revision: 1, classCode: 0x05_8000 },
    ...{ subsystemVendorId: 0, subsystemId: 0, interruptPin: 1 },
  },
  bars: [{ request: { kind: "mem32", index: 0, sizeBytes: 0x4000, isPrefetchable: false }, memory }],
  interrupts: { msi: 4, msix: { vectors: 3, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 0x800 } } },
  reset: () => undefined,
};
const watcher: RingWatcher = { watchRings: () => ({ setInterest: () => undefined, close: () => undefined }) };
const signals = new EventSignals();

const listener = UnixListener.listen(path, 1).fd;
const waiting = new DescriptorSocket(listener);
parentPort?.postMessage("listening");
for (let seed = 1; seed <= last; seed++) {
  while (!waiting.wait("input", 200).isReadable);
  const socket = new TamperedSocket(fd(libc.accept4(listener, SOCKET.SOCK_NONBLOCK)), randomNumbers(seed));
  const reach = new ClientMemory();
  const interrupts = new ClientInterrupts([1, 4, 3], { signals, watcher, report: () => undefined });
  let isOpen = true;
  const connection = new Connection({
    wire: new UserWire(socket),
    model: new DeviceModel(device, { onMaster: () => undefined, onIntxDisable: () => undefined }),
    memory: reach,
    interrupts,
    report: () => undefined,
    onClosed: () => {
      isOpen = false;
    },
  });
  while (isOpen) {
    socket.wait("input", 1000);
    connection.pump();
  }
  reach.clear();
  interrupts.clear();
}
waiting.close();
memory.close();
signals.close();
spare.close();
