import t from "tap";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { fields, RawClient, version } from "../../../support/user-client.ts";
import { startScratchServer, startServer } from "../../../support/user-server.ts";

/*
 * What other implementations expect of a server: libvfio-user's suite (test/py: test_negotiate, test_device_get_info,
 * …_irq_info, …_region_info, …_region_io_fds, test_setup_region) and QEMU's client (hw/vfio-user/proxy.c and device.c).
 */

const EINVAL = 22;
const [VERSION, DMA_MAP, GET_INFO, REGION_INFO, IO_FDS, IRQ_INFO, SET_IRQS] = [1, 2, 4, 5, 6, 7, 8] as const;
const [REGION_READ, REGION_WRITE, DMA_READ] = [9, 10, 11] as const;

const words = (payload: Uint8Array): number[] => [...new Uint32Array(payload.slice().buffer)];
const regionInfo = (index: number, argsz = 32): Uint8Array =>
  fields([argsz, 4], [0, 4], [index, 4], [0, 4], [0, 8], [0, 8]);
const access = (region: number, offset: number, count: number): Uint8Array =>
  fields([offset, 8], [region, 4], [count, 4]);

t.test("DeviceServer answers at most the version and the limits that were offered", async (t) => {
  const { socket } = await startServer(t, "edu");
  const answers: readonly (readonly [minor: number, offered: object | undefined, answered: number, limits: object])[] =
    [
      [0, { max_msg_fds: 16, max_data_xfer_size: 1024 }, 0, { max_msg_fds: 16, max_data_xfer_size: 1024 }],
      [1, { max_msg_fds: 8 }, 1, { max_msg_fds: 8, max_data_xfer_size: 1_048_576 }],
      [7, { max_data_xfer_size: 2 ** 40 }, 1, { max_msg_fds: 253, max_data_xfer_size: 1_048_576 }],
      [1, { max_msg_fds: 0 }, 1, { max_msg_fds: 0, max_data_xfer_size: 1_048_576 }],
      [0, undefined, 0, { max_msg_fds: 253, max_data_xfer_size: 1_048_576 }],
      [0, {}, 0, { max_msg_fds: 253, max_data_xfer_size: 1_048_576 }],
      // What QEMU 11 offers: an answer with more than its own names or numbers ends its start.
      [
        0,
        {
          ...{
            pgsizes: 4096,
            max_msg_fds: 16,
            max_dma_maps: 65_535,
            max_data_xfer_size: 1_048_576,
            write_multiple: true,
          },
          migration: { max_bitmap_size: 268_435_456, pgsize: 4096 },
        },
        0,
        { max_msg_fds: 16, max_data_xfer_size: 1_048_576, max_dma_maps: 4096, pgsizes: 4096 },
      ],
      [
        1,
        { pgsizes: 0x20_1000, max_dma_maps: 7 },
        1,
        {
          ...{ max_msg_fds: 253, max_data_xfer_size: 1_048_576 },
          ...{ max_dma_maps: 7, pgsizes: 0x20_1000 },
        },
      ],
    ];
  for (const [minor, offered, answered, capabilities] of answers) {
    const client = new RawClient(t, socket);
    const json = offered === undefined ? undefined : JSON.stringify({ capabilities: offered });
    const { payload, error } = client.request(VERSION, version(0, minor, json));
    t.equal(error, 0);
    t.same([...payload.subarray(0, 4)], [0, 0, answered, 0]);
    t.equal(payload.at(-1), 0);
    t.same(JSON.parse(new TextDecoder().decode(payload.subarray(4, -1))), { capabilities });
    client.wire.close();
  }
});

t.test("DeviceServer refuses an offer that is malformed or moves nothing", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  const event = EventFd.create();
  t.teardown(() => event.close());
  t.equal(client.request(VERSION, version(0, 1), [event.fd]).error, EINVAL, "with a descriptor");
  t.equal(client.request(VERSION, new Uint8Array(0)).error, EINVAL, "without a payload");
  t.equal(client.request(VERSION, version(0, 1, "{}").subarray(0, -1)).error, EINVAL, "without its NUL");
  for (const json of [
    "{",
    '"',
    '{"capabilities": "23"}',
    '{"capabilities": {"max_msg_fds": "foo"}}',
    '{"capabilities": {"max_msg_fds": -1}}',
    '{"capabilities": {"max_msg_fds": 1.5}}',
    '{"capabilities": {"max_data_xfer_size": 0}}',
    '{"capabilities": {"max_data_xfer_size": []}}',
    '{"capabilities": {"max_dma_maps": true}}',
    '{"capabilities": {"pgsizes": 512}}',
    '{"capabilities": {"migration": "23"}}',
  ]) {
    t.equal(client.request(VERSION, version(0, 1, json)).error, EINVAL, json);
  }
  t.equal(client.negotiate().error, 0);
});

t.test("DeviceServer keeps to the transfer size that was agreed on, in both directions", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  client.negotiate({ max_data_xfer_size: 64 });
  t.equal(client.request(REGION_READ, access(7, 0, 64)).payload.length, 16 + 64);
  t.equal(client.request(REGION_READ, access(7, 0, 65)).error, EINVAL);
  const write = (count: number): Uint8Array => Uint8Array.from([...access(0, 0x1000, count), ...new Uint8Array(count)]);
  t.equal(client.request(REGION_WRITE, write(64)).error, 0);
  t.equal(client.request(REGION_WRITE, write(65)).error, EINVAL);
  // A transfer of the device is cut to pieces of that size.
  client.request(DMA_MAP, fields([32, 4], [3, 4], [0, 8], [0, 8], [0x1000, 8]));
  client.request(REGION_WRITE, Uint8Array.from([...access(7, 4, 2), 6, 0]));
  for (const [offset, value] of [
    [0x80, 0x100],
    [0x88, 0x4_0000],
    [0x90, 100],
    [0x98, 1],
  ] as const) {
    client.request(REGION_WRITE, Uint8Array.from([...access(0, offset, 4), ...fields([value, 4])]));
  }
  for (const [address, count] of [
    [0x100, 64],
    [0x140, 36],
  ] as const) {
    const asked = client.message();
    t.match(asked, { command: DMA_READ, isReply: false });
    t.same([...asked.payload], [...fields([address, 8], [count, 8])]);
    const data = Uint8Array.from([...asked.payload, ...new Uint8Array(count)]);
    client.wire.send({ id: asked.id, command: DMA_READ, isReply: true, payload: data }, performance.now() + 1000);
  }
  t.equal(client.request(REGION_READ, access(0, 0, 4)).error, 0);
});

t.test("DeviceServer keeps to the number of descriptors that was agreed on, in both directions", async (t) => {
  const { socket } = await startScratchServer(t);
  const event = EventFd.create();
  t.teardown(() => event.close());
  const one = new RawClient(t, socket);
  one.negotiate({ max_msg_fds: 1 });
  t.equal(one.request(GET_INFO, fields([16, 4], [0, 4], [0, 4], [0, 4]), [event.fd, event.fd]).error, EINVAL);
  t.equal(
    one.request(SET_IRQS, fields([20, 4], [0x24, 4], [4, 4], [0, 4], [1, 4]), [event.fd, event.fd]).error,
    EINVAL,
  );
  t.equal(one.request(REGION_INFO, regionInfo(0, 64)).descriptors.length, 1);
  one.wire.close();
  const none = new RawClient(t, socket);
  none.negotiate({ max_msg_fds: 0 });
  const { payload, descriptors } = none.request(REGION_INFO, regionInfo(0, 64));
  t.same(words(payload), [32, 3, 0, 0, 0x2000, 0, 0, 0], "a region that cannot be mapped");
  t.same(descriptors, []);
});

t.test("DeviceServer tells of a capability chain only where there is room for it", async (t) => {
  const { socket } = await startScratchServer(t);
  const client = new RawClient(t, socket);
  client.negotiate();
  const cut = client.request(REGION_INFO, regionInfo(0, 32));
  t.same(
    words(cut.payload),
    [64, 7, 0, 0, 0x2000, 0, 0, 0],
    "mappable, without FLAG_CAPS: QEMU refuses it without a chain",
  );
  t.same(cut.descriptors, []);
  const whole = client.request(REGION_INFO, regionInfo(0, 64));
  t.same(words(whole.payload).slice(0, 4), [64, 15, 0, 32]);
  t.same(words(whole.payload).slice(8), [0x1_0001, 0, 1, 0, 0x1000, 0, 0x1000, 0]);
  t.equal(whole.descriptors.length, 1);
});

t.test("DeviceServer wants room for the fixed part of each answer", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  client.negotiate();
  for (const [command, size] of [
    [DMA_MAP, 32],
    [3, 24],
    [GET_INFO, 16],
    [REGION_INFO, 32],
    [IO_FDS, 16],
    [IRQ_INFO, 16],
    [SET_IRQS, 20],
  ] as const) {
    const payload = new Uint8Array(size);
    const view = new DataView(payload.buffer);
    view.setUint32(0, size - 1, true);
    t.equal(client.request(command, payload).error, EINVAL, `argsz of command ${command}`);
    view.setUint32(0, size, true);
    t.equal(client.request(command, payload.subarray(0, size - 4)).error, EINVAL, `size of command ${command}`);
    t.equal(client.request(command, new Uint8Array(0)).error, EINVAL, `command ${command} without a payload`);
  }
  t.same(
    words(client.request(GET_INFO, fields([32, 4], [0, 4], [0, 4], [0, 4])).payload),
    [16, 3, 9, 5],
    "larger argsz",
  );
});

t.test("DeviceServer answers DEVICE_GET_REGION_IO_FDS with an empty list for each of its regions", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  client.negotiate();
  const ask = (argsz: number, flags: number, index: number, count: number): number[] | number => {
    const { error, payload, descriptors } = client.request(
      IO_FDS,
      fields([argsz, 4], [flags, 4], [index, 4], [count, 4]),
    );
    t.same(descriptors, []);
    return error === 0 ? words(payload) : error;
  };
  t.same(ask(512, 0, 0, 0), [16, 0, 0, 0]);
  t.same(ask(16, 0, 7, 0), [16, 0, 7, 0]);
  t.equal(ask(512, 1, 0, 0), EINVAL, "flags");
  t.equal(ask(512, 0, 0, 1), EINVAL, "a count");
  t.equal(ask(15, 0, 0, 0), EINVAL, "too small");
  t.equal(ask(1_048_577, 0, 0, 0), EINVAL, "too large");
  t.equal(ask(512, 0, 3, 0), EINVAL, "a region that is not there");
  t.equal(ask(512, 0, 512, 0), EINVAL, "a region that cannot be");
});

t.test("DeviceServer moves nothing where nothing is asked for", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  client.negotiate();
  t.same([...client.request(REGION_READ, access(7, 0, 0)).payload], [...access(7, 0, 0)]);
  t.same([...client.request(REGION_WRITE, access(0, 0, 0)).payload], [...access(0, 0, 0)]);
});

t.test("DeviceServer carries posted writes out before what follows, and answers none of them", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  client.negotiate();
  const post = (payload: Uint8Array): void =>
    client.wire.send(
      { id: 0x7000, command: REGION_WRITE, isReply: false, wantsNoReply: true, payload },
      performance.now() + 1000,
    );
  for (let value = 0; value < 100; value++) {
    post(Uint8Array.from([...access(0, 4, 4), ...fields([value, 4])]));
    if (value % 3 === 0) post(access(0, 4, 4)); // malformed: without a reply
  }
  const { id, payload } = client.request(REGION_READ, access(0, 4, 4));
  t.equal(id, 2);
  t.same([...payload.subarray(16)], [...fields([~99 >>> 0, 4])]);
});
