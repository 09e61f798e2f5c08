import t, { type Test } from "tap";
import type { Fd } from "../../../../src/base/units.ts";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { fields, RawClient } from "../../../support/user-client.ts";
import { startServer } from "../../../support/user-server.ts";

/*
 * SET_IRQS as libvfio-user's test/py/test_device_set_irqs.py and the kernel's vfio_set_irqs_validate_and_prepare and
 * vfio_pci_intrs.c have it. edu has INTx and one MSI, nvme 17 vectors of MSI-X.
 */

const EINVAL = 22;
const [IRQ_INFO, SET_IRQS, REGION_WRITE] = [7, 8, 10] as const;
const [NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20] as const;
const [INTX, MSI, MSIX, ERR, REQ] = [0, 1, 2, 3, 4] as const;

class IrqClient extends RawClient {
  set(
    index: number,
    flags: number,
    start: number,
    count: number,
    fds: readonly Fd[] = [],
    bools: number[] = [],
  ): number {
    const head = fields([20 + bools.length, 4], [flags, 4], [index, 4], [start, 4], [count, 4]);
    return this.request(SET_IRQS, Uint8Array.from([...head, ...bools]), fds).error;
  }

  /** Writes a register of BAR 0. */
  write(offset: number, value: number): void {
    this.request(REGION_WRITE, fields([offset, 8], [0, 4], [4, 4], [value, 4]));
  }
}

async function connect(t: Test, kind: "edu" | "nvme"): Promise<IrqClient> {
  const rest = kind === "nvme" ? ["--image", `${t.testdir({ i: Buffer.alloc(4096) })}/i`] : [];
  const client = new IrqClient(t, (await startServer(t, kind, ...rest)).socket);
  client.negotiate();
  return client;
}

function events(t: Test, count: number): readonly EventFd[] {
  const made = Array.from({ length: count }, () => EventFd.create());
  t.teardown(() => {
    for (const event of made) event.close();
  });
  return made;
}

t.test("DeviceServer announces ERR and REQ, and refuses indexes behind them", async (t) => {
  const client = await connect(t, "nvme");
  const info = (index: number): number[] => [
    ...new Uint32Array(client.request(IRQ_INFO, fields([16, 4], [0, 4], [index, 4], [0, 4])).payload.slice().buffer),
  ];
  t.same([0, 1, 2, 3, 4].map(info), [
    [16, 0, 0, 0],
    [16, 0, 1, 0],
    [16, 1, 2, 17],
    [16, 1, 3, 1],
    [16, 1, 4, 1],
  ]);
  t.equal(client.request(IRQ_INFO, fields([16, 4], [0, 4], [5, 4], [0, 4])).error, EINVAL);
});

t.test("DeviceServer refuses a SET_IRQS that does not hold together", async (t) => {
  const client = await connect(t, "nvme");
  const [event = EventFd.create()] = events(t, 1);
  const refused: readonly (readonly [string, number, number, number, number, (readonly Fd[])?, number[]?])[] = [
    ["an index that is not there", 5, TRIGGER | NONE, 0, 0],
    ["an index far away", 0xffff_ffff, TRIGGER | NONE, 0, 0],
    ["an index that the device does not have", INTX, TRIGGER | NONE, 0, 0],
    ["two actions", MSIX, MASK | UNMASK | NONE, 0, 1],
    ["no action", MSIX, NONE, 0, 1],
    ["two kinds of data", MSIX, TRIGGER | NONE | BOOL, 0, 1],
    ["no kind of data", MSIX, TRIGGER, 0, 1],
    ["a flag that there is not", MSIX, 0x40 | TRIGGER | NONE, 0, 1],
    ["vectors beyond the last", MSIX, TRIGGER | NONE, 16, 2],
    ["a start beyond the last", MSIX, TRIGGER | NONE, 17, 1],
    ["a start beyond the last, of nothing", MSIX, TRIGGER | NONE, 17, 0],
    ["a sum that overflows", MSIX, TRIGGER | EVENTFD, 4, 0xffff_ffff],
    ["a mask of ERR", ERR, MASK | NONE, 0, 1],
    ["a mask of REQ", REQ, MASK | NONE, 0, 1],
    ["a mask of MSI-X", MSIX, MASK | NONE, 0, 1],
    ["two of ERR", ERR, TRIGGER | NONE, 0, 2],
    ["two of REQ", REQ, TRIGGER | NONE, 0, 2],
    ["nothing, from the second on", MSIX, TRIGGER | NONE, 1, 0],
    ["a mask of nothing", MSIX, MASK | NONE, 0, 0],
    ["bools of nothing", MSIX, TRIGGER | BOOL, 0, 0],
    ["eventfds of nothing", MSIX, TRIGGER | EVENTFD, 0, 0],
    ["an eventfd with bools", MSIX, TRIGGER | BOOL, 0, 1, [event.fd], [0]],
    ["an eventfd with no data", MSIX, TRIGGER | NONE, 0, 1, [event.fd]],
    ["an eventfd with the end of all", MSIX, TRIGGER | NONE, 0, 0, [event.fd]],
    ["fewer eventfds than vectors", MSIX, TRIGGER | EVENTFD, 0, 2, [event.fd]],
    ["fewer bools than vectors", MSIX, TRIGGER | BOOL, 0, 2, [], [0]],
    ["more bools than vectors", MSIX, TRIGGER | BOOL, 0, 2, [], [0, 0, 0]],
    ["a trigger of what is off", MSIX, TRIGGER | NONE, 0, 1],
  ];
  for (const [what, ...request] of refused) t.equal(client.set(...request), EINVAL, what);
});

t.test("DeviceServer triggers by a client's word what it has connected, and no more", async (t) => {
  const client = await connect(t, "nvme");
  const [first, second, third] = events(t, 3);
  if (first === undefined || second === undefined || third === undefined) throw new Error("no eventfds");
  t.equal(client.set(MSIX, TRIGGER | EVENTFD, 8, 2, [first.fd, second.fd]), 0);
  t.equal(client.set(MSIX, TRIGGER | NONE, 9, 1), 0);
  t.same([first.drain(), second.drain()], [0, 1]);
  t.equal(client.set(MSIX, TRIGGER | BOOL, 8, 2, [], [0, 1]), 0);
  t.same([first.drain(), second.drain()], [0, 1]);
  t.equal(client.set(MSIX, TRIGGER | EVENTFD, 9, 1, [third.fd]), 0, "in another's place");
  t.equal(client.set(MSIX, TRIGGER | EVENTFD, 8, 1), 0, "taken away");
  t.equal(client.set(MSIX, TRIGGER | NONE, 0, 17), 0);
  t.same([first.drain(), second.drain(), third.drain()], [0, 0, 1]);
  for (const index of [ERR, REQ]) {
    t.equal(client.set(index, TRIGGER | NONE, 0, 0), 0, "off while it is off");
    t.equal(client.set(index, TRIGGER | EVENTFD, 0, 1), 0);
    t.equal(client.set(index, TRIGGER | EVENTFD, 0, 1, [first.fd]), 0);
    t.equal(client.set(index, TRIGGER | NONE, 0, 1), 0);
    t.equal(first.drain(), 1);
    t.equal(client.set(index, TRIGGER | NONE, 0, 0), 0);
    t.equal(client.set(index, TRIGGER | NONE, 0, 1), EINVAL);
  }
  t.equal(client.set(MSIX, TRIGGER | NONE, 9, 1), 0, "MSI-X has stayed on");
  t.equal(third.drain(), 1);
});

t.test("DeviceServer masks and unmasks the pin while it is on, by bools too", async (t) => {
  const client = await connect(t, "edu");
  const [trigger, unmask] = events(t, 2);
  if (trigger === undefined || unmask === undefined) throw new Error("no eventfds");
  for (const action of [MASK, UNMASK]) t.equal(client.set(INTX, action | NONE, 0, 1), EINVAL, "while it is off");
  t.equal(client.set(INTX, UNMASK | EVENTFD, 0, 1, [unmask.fd]), EINVAL, "while it is off");
  t.equal(client.set(INTX, TRIGGER | EVENTFD, 0, 1, [trigger.fd]), 0);
  t.equal(client.set(INTX, MASK | EVENTFD, 0, 1, [unmask.fd]), EINVAL, "there is no event for a masking");
  t.equal(client.set(INTX, MASK | BOOL, 0, 1, [], [1]), 0);
  client.write(0x60, 1);
  t.equal(trigger.drain(), 0, "masked");
  t.equal(client.set(INTX, UNMASK | BOOL, 0, 1, [], [0]), 0);
  t.equal(trigger.drain(), 0, "a bool that is false");
  t.equal(client.set(INTX, UNMASK | BOOL, 0, 1, [], [1]), 0);
  t.equal(trigger.drain(), 1);
});

t.test("DeviceServer has one of INTx and MSI on at a time", async (t) => {
  const client = await connect(t, "edu");
  const [pin, message, error] = events(t, 3);
  if (pin === undefined || message === undefined || error === undefined) throw new Error("no eventfds");
  client.set(ERR, TRIGGER | EVENTFD, 0, 1, [error.fd]);
  client.set(INTX, TRIGGER | EVENTFD, 0, 1, [pin.fd]);
  t.equal(client.set(MSI, TRIGGER | EVENTFD, 0, 1, [message.fd]), 0);
  client.write(0x60, 1);
  t.same([pin.drain(), message.drain()], [0, 1]);
  t.equal(client.set(INTX, TRIGGER | NONE, 0, 1), EINVAL);
  client.set(ERR, TRIGGER | NONE, 0, 1);
  t.equal(error.drain(), 1);
});
