import t, { type Test } from "tap";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { MessageControls } from "../../../../src/vfio-user/client/message-control.ts";
import { pciImage } from "../../../support/pci-image.ts";
import { startOddServer, UserBench } from "../../../support/user-server.ts";

const MSI = 0x05;
const MSIX = 0x11;

/** A configuration space with one capability, and what is written to it. */
function controls(id: number, flags: number) {
  const body = [flags & 0xff, flags >>> 8, ...new Array<number>(id === MSI ? 10 : 8).fill(0)];
  const image = pciImage({
    ...{ vendorId: 1, deviceId: 2, classCode: 3, barFlags: [] },
    capabilities: [{ id, at: 0x50, body }],
  });
  const writes: string[] = [];
  const made = new MessageControls(image, (offset, value) =>
    writes.push(`0x${offset.toString(16)} = 0x${value.toString(16)}`),
  );
  return { controls: made, writes };
}

t.test("MessageControls switches MSI-X on with the first eventfds and off again, all vectors unmasked", async (t) => {
  const { controls: msix, writes } = controls(MSIX, 0x4003);
  msix.enable("msix", 1);
  msix.enable("msix", 4);
  msix.disable("msix");
  msix.disable("msix");
  t.same(writes, ["0x52 = 0x8003", "0x52 = 0x4003"]);
});

t.test(
  "MessageControls tells MSI of the power of two that holds the vectors, at most what the device has",
  async (t) => {
    const { controls: msi, writes } = controls(MSI, 0x0084); // 4 vectors, 64 bits
    msi.enable("msi", 1);
    msi.enable("msi", 3);
    msi.enable("msi", 2);
    msi.enable("msi", 32);
    msi.disable("msi");
    t.same(writes, ["0x52 = 0x85", "0x52 = 0xa5", "0x52 = 0xa5", "0x52 = 0x84"]);
  },
);

t.test("MessageControls writes nothing for a kind that the device does not have", async (t) => {
  const { controls: msi, writes } = controls(MSI, 0x0080);
  msi.enable("msix", 4);
  msi.disable("msix");
  t.same(writes, []);
});

/** Interrupts with each of four vectors; answers how many signals each eventfd got. */
async function signalled(t: Test, oddity: string): Promise<readonly number[]> {
  const { socket } = await startOddServer(t, oddity);
  const device = new UserBench(t).connect(socket);
  const events = [0, 1, 2, 3].map(() => EventFd.create());
  t.teardown(() => {
    for (const event of events) event.close();
  });
  const [first, ...rest] = events.map((event) => event.fd);
  if (first === undefined) throw new Error("no eventfd");
  device.setTrigger("msix", 0, [first]);
  device.setTrigger("msix", 1, rest);
  for (const vector of [0, 1, 2, 3]) device.writeRegion(0, 0, 4, vector);
  t.equal(device.readRegion(0, 0, 4), 4);
  const counts = events.map((event) => event.drain());
  device.disableInterrupts("msix");
  device.writeRegion(0, 0, 4, 0);
  t.equal(device.readRegion(0, 0, 4), 5);
  t.equal(events[0]?.drain(), 0, "it is off");
  t.equal(device.isLost, false);
  return counts;
}

t.test("UserDevice.setTrigger() enables MSI-X for a server whose device looks at the enable bit", async (t) => {
  t.same(await signalled(t, "plain"), [1, 1, 1, 1]);
});

t.test("UserDevice.setTrigger() unmasks the vectors of a server that begins with all masked", async (t) => {
  t.same(await signalled(t, "masked"), [1, 1, 1, 1]);
});

t.test("UserDevice goes on with a server that answers posted writes", async (t) => {
  t.same(await signalled(t, "talkative"), [1, 1, 1, 1]);
});
