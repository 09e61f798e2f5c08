import { readdirSync } from "node:fs";
import t from "tap";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { postUserWide, queryUserRegion } from "../../../../src/vfio-user/client/region.ts";
import { PreparedServer } from "../../../support/prepared-server.ts";

const GET_REGION_INFO = 5;
const READ_WRITE = 3;

/** struct vfio_region_info of BAR 0: 16 KiB. <linux/vfio.h> */
function regionInfo(argsz: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(32));
  view.setUint32(0, argsz, true);
  view.setUint32(4, READ_WRITE, true);
  view.setUint32(16, 0x4000, true);
  return new Uint8Array(view.buffer);
}

t.test("queryUserRegion() asks once more with the room that the server wants", async (t) => {
  const server = new PreparedServer(t);
  server.reply(GET_REGION_INFO, regionInfo(64));
  server.reply(GET_REGION_INFO, regionInfo(64));
  t.match(queryUserRegion(server.channel, 0), { info: { sizeBytes: 0x4000 }, file: undefined });
  t.equal(new DataView(server.take().payload.slice().buffer).getUint32(0, true), 32);
  t.equal(new DataView(server.take().payload.slice().buffer).getUint32(0, true), 64);
});

t.test("queryUserRegion() asks a server that wants more each time twice, not on and on", async (t) => {
  const server = new PreparedServer(t);
  const spare = EventFd.create();
  t.teardown(() => spare.close());
  const before = readdirSync("/proc/self/fd").length;
  server.reply(GET_REGION_INFO, regionInfo(64), [spare.fd]);
  server.reply(GET_REGION_INFO, regionInfo(65), [spare.fd]);
  server.reply(GET_REGION_INFO, regionInfo(65));
  t.throws(() => queryUserRegion(server.channel, 0), {
    name: "HostError",
    message: "Cannot use thing: its server wants 65 bytes for DEVICE_GET_REGION_INFO after it had wanted 64",
  });
  t.equal(server.lost.length, 1);
  t.equal(
    readdirSync("/proc/self/fd").length,
    before - 1,
    "the channel's socket is closed, and what came with the answers",
  );
});

t.test("postUserWide() sends eight bytes in one message", async (t) => {
  const server = new PreparedServer(t);
  postUserWide(server.channel, 2, 0x1_0000_0010, { low: 0x8899_aabb, high: 0xccdd_eeff });
  const { command, payload } = server.take();
  t.equal(command, 10);
  t.same(
    [...payload],
    [0x10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 0xbb, 0xaa, 0x99, 0x88, 0xff, 0xee, 0xdd, 0xcc],
  );
});
