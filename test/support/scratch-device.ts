import { DeviceServer, MemoryBlock, type UserPciDevice } from "../../src/vfio-user/index.ts";

/*
 * A device with memory in its BAR, as a process: `scratch-device.js SOCKET`. BAR 0 has a page of registers, then a page
 * of memory. The first register reads as the sum of the memory's first four words. The second counts reads of the
 * first.
 */

const PAGE = 4096;
const memory = new MemoryBlock("scratch", PAGE, PAGE);
const words = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.sizeBytes);
let reads = 0;

const device: UserPciDevice = {
  name: "scratch",
  identity: {
    ...{ vendorId: 0x1234, deviceId: 0x5c5c, revision: 1, classCode: 0x05_8000 },
    ...{ subsystemVendorId: 0, subsystemId: 0 },
  },
  bars: [
    {
      request: { kind: "mem32", index: 0, sizeBytes: 2 * PAGE, isPrefetchable: false },
      memory,
      registers: {
        read: (offset) => {
          if (offset !== 0) return offset === 4 ? reads : 0;
          reads++;
          return [0, 4, 8, 12].reduce((sum, at) => sum + words.getUint32(at, true), 0);
        },
        write: () => undefined,
      },
    },
  ],
  interrupts: {},
  reset: () => {
    memory.bytes.fill(0);
    reads = 0;
  },
};

const socket = process.argv[2] ?? "";
DeviceServer.listen({ socket, device: () => device });
process.stdout.write(`listening at ${socket}\n`);
