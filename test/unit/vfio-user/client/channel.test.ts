import t from "tap";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { PreparedServer } from "../../../support/prepared-server.ts";

const GET_INFO = 4;
const REGION_READ = 9;
const REGION_WRITE = 10;
const DMA_READ = 11;
const NOTHING = new Uint8Array(0);

t.test("UserChannel passes over answers to messages that want none", async (t) => {
  const server = new PreparedServer(t);
  server.reply(REGION_WRITE, NOTHING);
  server.reply(REGION_WRITE, NOTHING);
  server.reply(REGION_READ, Uint8Array.of(7));
  server.channel.post(REGION_WRITE, NOTHING);
  server.channel.post(REGION_WRITE, NOTHING);
  t.equal(server.channel.request(REGION_READ, NOTHING).getUint8(0), 7);
  server.channel.post(REGION_WRITE, NOTHING);
  server.reply(REGION_WRITE, NOTHING);
  server.channel.pump();
  t.same(server.lost, []);
  t.equal(server.take().wantsNoReply, true);
});

t.test("UserChannel takes one answer to such a message, not two, and none of another command", async (t) => {
  for (const [id, command] of [
    [2, REGION_WRITE],
    [3, GET_INFO],
  ] as const) {
    const server = new PreparedServer(t);
    server.reply(REGION_WRITE, NOTHING);
    server.channel.post(REGION_WRITE, NOTHING);
    server.channel.post(REGION_WRITE, NOTHING);
    server.wire.send({ id, command, isReply: true }, performance.now() + 1000);
    server.channel.pump();
    t.match(server.lost, [/which no request asked for/]);
  }
});

t.test(
  "UserChannel takes an error for an answer although its type says command, as one library sends it",
  async (t) => {
    const server = new PreparedServer(t);
    const header = new DataView(new ArrayBuffer(16));
    header.setUint16(0, 2, true); // id
    header.setUint16(2, REGION_READ, true);
    header.setUint32(4, 16, true);
    header.setUint32(8, 0x20, true); // VFIO_USER_ERROR alone
    header.setUint32(12, 22, true);
    server.socket.send(new Uint8Array(header.buffer));
    t.throws(() => server.channel.request(REGION_READ, NOTHING), { name: "SyscallError", errno: "EINVAL" });
    t.same(server.lost, []);
  },
);

t.test("UserChannel hangs up on a server that sends descriptors where there are none", async (t) => {
  const spare = EventFd.create();
  t.teardown(() => spare.close());
  const answering = new PreparedServer(t);
  answering.reply(GET_INFO, new Uint8Array(16), [spare.fd]);
  t.throws(() => answering.channel.request(GET_INFO, NOTHING), {
    message:
      "Cannot use thing: its server has sent descriptors with its answer to VFIO_USER_DEVICE_GET_INFO, which has none",
  });
  t.equal(answering.channel.isLost, true);
  const commanding = new PreparedServer(t);
  const message = { id: 1, command: DMA_READ, isReply: false, payload: new Uint8Array(16), descriptors: [spare.fd] };
  commanding.wire.send(message, performance.now() + 1000);
  commanding.channel.pump();
  t.same(commanding.lost, ["its server has sent descriptors with VFIO_USER_DMA_READ, which has none"]);
});
