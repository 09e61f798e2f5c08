import { openSync, readdirSync } from "node:fs";
import t from "tap";
import { type Fd, fd } from "../../../src/base/units.ts";
import { closeAll, DescriptorSocket, isMemoryFile } from "../../../src/host/descriptor-socket.ts";
import { EventFd } from "../../../src/host/eventfd.ts";
import { libc } from "../../../src/host/libc.ts";
import { decodeRights, encodeRights } from "../../../src/host/rights.ts";
import { connectTo } from "../../../src/host/unix-socket.ts";
import { socketPair, socketPath } from "../../support/socket-pair.ts";

function pair(t: Parameters<typeof socketPair>[0]): readonly [DescriptorSocket, DescriptorSocket] {
  const [a, b] = socketPair(t);
  const sockets = [new DescriptorSocket(a), new DescriptorSocket(b)] as const;
  t.teardown(() => {
    for (const socket of sockets) socket.close();
  });
  return sockets;
}

t.test("encodeRights() lays out one SCM_RIGHTS message as struct cmsghdr wants it", async (t) => {
  t.same(
    [...encodeRights([fd(3), fd(0x105), fd(7)])],
    [
      ...[28, 0, 0, 0, 0, 0, 0, 0], // cmsg_len: 16 + 3 * 4
      ...[1, 0, 0, 0], // SOL_SOCKET
      ...[1, 0, 0, 0], // SCM_RIGHTS
      ...[3, 0, 0, 0, 5, 1, 0, 0, 7, 0, 0, 0],
      ...[0, 0, 0, 0], // up to a multiple of 8
    ],
  );
  t.same([...encodeRights([])], [], "nothing for no descriptors");
});

t.test("decodeRights() passes over other control messages and stops at a broken one", async (t) => {
  const credentials = [28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, ...new Array(16).fill(9)];
  const rights = [...encodeRights([fd(5)])];
  t.same(decodeRights(Uint8Array.from([...credentials, ...rights])), [5]);
  const broken = [3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];
  t.same(decodeRights(Uint8Array.from([...rights, ...broken, ...rights])), [5], "a length below the header's");
  t.same(decodeRights(encodeRights([fd(5), fd(6)]).subarray(0, 20)), [5], "cut short");
});

t.test("DescriptorSocket.send() hands over bytes with descriptors that mean the same file", async (t) => {
  const [client, server] = pair(t);
  const event = EventFd.create();
  t.equal(client.send(Uint8Array.of(1, 2, 3), [event.fd]), 3);
  event.close();
  const target = new Uint8Array(8);
  const received = server.receive(target);
  if (received.kind !== "bytes") throw new Error(received.kind);
  t.same([...target.subarray(0, received.count)], [1, 2, 3]);
  t.equal(received.descriptors.length, 1);
  const [copy = fd(-1)] = received.descriptors;
  const attached = EventFd.attach(copy);
  attached.signal();
  t.equal(attached.drain(), 1, "it is an eventfd");
  closeAll(received.descriptors);
});

t.test("DescriptorSocket.receive() into part of an array leaves the rest alone", async (t) => {
  const [client, server] = pair(t);
  client.send(Uint8Array.of(7, 8, 9));
  const target = new Uint8Array(100);
  const received = server.receive(target.subarray(50, 52));
  t.match(received, { kind: "bytes", count: 2, descriptors: [] });
  t.same([...target.subarray(48, 55)], [0, 0, 7, 8, 0, 0, 0]);
  t.match(server.receive(target), { kind: "bytes", count: 1 }, "the rest comes next");
  t.same(server.receive(target), { kind: "nothing" });
});

t.test("DescriptorSocket tells a hang-up from silence, and waits no longer than told", async (t) => {
  const [client, server] = pair(t);
  t.same(server.wait("input", 1), { isReadable: false, isWritable: false });
  t.same(server.wait("both", 1000), { isReadable: false, isWritable: true });
  client.send(Uint8Array.of(1));
  t.same(server.wait("input", 1000), { isReadable: true, isWritable: false });
  server.receive(new Uint8Array(1));
  client.close();
  t.equal(server.wait("input", 1000).isReadable, true);
  t.same(server.receive(new Uint8Array(1)), { kind: "closed" });
  t.throws(() => server.send(Uint8Array.of(1)), { name: "SyscallError", errno: "EPIPE" });
});

t.test("DescriptorSocket.send() answers 0 when the other side does not read", async (t) => {
  const [client, server] = pair(t);
  const block = new Uint8Array(65_536);
  let sent = 0;
  for (let count = client.send(block); count > 0; count = client.send(block)) sent += count;
  t.ok(sent > 0);
  t.equal(client.wait("both", 1).isWritable, false);
  const target = new Uint8Array(1 << 20);
  let got = 0;
  for (let found = server.receive(target); found.kind === "bytes"; found = server.receive(target)) got += found.count;
  t.equal(got, sent);
});

t.test(
  "DescriptorSocket.receive() loses no descriptor: as many come as were sent, and all can be closed",
  async (t) => {
    const [client, server] = pair(t);
    const before = readdirSync("/proc/self/fd").length;
    const event = EventFd.create();
    const many: Fd[] = new Array(253).fill(event.fd);
    client.send(Uint8Array.of(1), many);
    const received = server.receive(new Uint8Array(1));
    t.equal(received.kind === "bytes" ? received.descriptors.length : 0, 253);
    if (received.kind === "bytes") closeAll(received.descriptors);
    event.close();
    t.equal(readdirSync("/proc/self/fd").length, before);
  },
);

t.test("closeAll() closes memory and eventfds at once, and what may linger on a thread that may wait", async (t) => {
  const before = readdirSync("/proc/self/fd").length;
  const memory = fd(libc.memfdCreate("memory", 1));
  closeAll([memory, EventFd.create().fd]);
  t.equal(readdirSync("/proc/self/fd").length, before, "they are the kernel's alone");
  const [file, server] = socketPair(t);
  const client = new DescriptorSocket(file);
  t.teardown(() => client.close());
  closeAll([server, fd(openSync("/etc", "r"))]);
  t.equal(client.wait("input", 10_000).isReadable, true);
  t.same(client.receive(new Uint8Array(1)), { kind: "closed" });
});

t.test("isMemoryFile() tells memfds and files of tmpfs from directories, pipes and other files", async (t) => {
  const memory = fd(libc.memfdCreate("memory", 1));
  t.teardown(() => libc.close(memory));
  t.equal(isMemoryFile(memory), true);
  for (const path of ["/etc", "/etc/passwd", "/proc/self/stat", "/dev/zero"]) {
    const file = fd(openSync(path, "r"));
    t.equal(isMemoryFile(file), false, path);
    libc.close(file);
  }
  const [client] = pair(t);
  t.equal(isMemoryFile(client.fd), false);
});

t.test("connectTo() says what is wrong with a socket's path", async (t) => {
  const path = socketPath(t);
  t.throws(() => connectTo(path), { errno: "ENOENT", message: /no server has made it/ });
  t.throws(() => connectTo(`/tmp/${"x".repeat(120)}`), { name: "HostError", message: /use a shorter path/ });
});
