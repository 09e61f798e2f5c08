import t from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { type Fd, fd } from "../../../src/base/units.ts";
import { HostVectors } from "../../../src/passthrough/host-vectors.ts";
import { FakeDeviceBackend } from "../../support/fake-device-backend.ts";
import { EDU, KIOXIA, NVME } from "../../support/fake-devices.ts";

const fds = (...numbers: readonly number[]): readonly Fd[] => numbers.map((number) => fd(number));

t.test("HostVectors arms as many vectors as are wanted, not as many as there are", async (t) => {
  const backend = new FakeDeviceBackend(NVME);
  const vectors = new HostVectors(backend, "msix");
  t.same(vectors.arm(fds(100, -1, 102, -1, -1)), []);
  t.same(backend.log, ["arm msix 0: 100 -1 102"]);
  t.equal(vectors.armedCount, 2);
});

t.test("HostVectors switches the kind on with one empty place when nothing is wanted yet", async (t) => {
  const backend = new FakeDeviceBackend(NVME);
  const vectors = new HostVectors(backend, "msix");
  vectors.arm([]);
  t.same(backend.log, ["arm msix 0: -1"]);
  t.ok(vectors.isOn);
  t.equal(vectors.armedCount, 0);
});

t.test("HostVectors adds single vectors where the host can grow", async (t) => {
  const backend = new FakeDeviceBackend(KIOXIA);
  const vectors = new HostVectors(backend, "msix");
  vectors.arm(fds(100));
  t.same(vectors.arm(fds(100, -1, -1, 103)), [], "no vector was disarmed meanwhile");
  vectors.arm(fds(100, 101, -1, 103));
  t.same(backend.log, ["arm msix 0: 100", "arm msix 3: 103", "arm msix 1: 101"]);
  t.same(backend.triggers.get("msix"), [100, 101, -1, 103]);
});

t.test(
  "HostVectors arms anew with twice the places where the host cannot grow, and names who may have lost one",
  async (t) => {
    const backend = new FakeDeviceBackend(NVME);
    const vectors = new HostVectors(backend, "msix");
    vectors.arm(fds(100, 101));
    backend.log.length = 0;
    t.same(vectors.arm(fds(100, 101, 102)), [0, 1]);
    t.same(backend.log, ["disarm msix", "arm msix 0: 100 101 102 -1"]);
    backend.log.length = 0;
    t.same(vectors.arm(fds(100, 101, 102, 103)), [], "the reserve takes the fourth");
    t.same(backend.log, ["arm msix 3: 103"]);
  },
);

t.test("HostVectors does without reserve when the host is short of vectors", async (t) => {
  const backend = new FakeDeviceBackend(NVME);
  const vectors = new HostVectors(backend, "msix");
  vectors.arm(fds(100, 101));
  backend.vectorsLeft = 3;
  vectors.arm(fds(100, 101, 102));
  t.same(backend.triggers.get("msix"), [100, 101, 102]);
  t.throws(() => vectors.arm(fds(100, 101, 102, 103)), HostError);
  t.notOk(vectors.isOn);
});

t.test("HostVectors tells the host of changed neighbours in one call each run", async (t) => {
  const backend = new FakeDeviceBackend(KIOXIA);
  const vectors = new HostVectors(backend, "msix");
  vectors.arm(fds(100, 101, 102, 103));
  backend.log.length = 0;
  vectors.arm(fds(100, 111, 112, 103));
  t.same(backend.log, ["arm msix 1: 111 112"]);
  backend.log.length = 0;
  vectors.arm(fds(100));
  t.same(backend.log, ["arm msix 1: -1 -1 -1"], "vectors no longer used are taken out");
});

t.test("HostVectors arms as many MSI messages as the guest enabled, whatever it masks", async (t) => {
  const backend = new FakeDeviceBackend(EDU);
  const vectors = new HostVectors(backend, "msi");
  const multipleMessageEnable = (): number => (backend.config.getUint16(0x42, true) >> 4) & 7;
  vectors.arm(fds(100, -1, -1, -1));
  t.same(backend.log, ["arm msi 0: 100 -1 -1 -1"]);
  t.equal(multipleMessageEnable(), 2, "the device sends four messages");
  backend.log.length = 0;
  vectors.arm(fds(100, -1, 102, -1));
  t.same(backend.log, ["arm msi 2: 102"]);
  backend.log.length = 0;
  t.same(vectors.arm(fds(100, 101)), [0], "what was off for a moment");
  t.same(backend.log, ["disarm msi", "arm msi 0: 100 101"]);
  t.equal(multipleMessageEnable(), 1);
});

t.test("HostVectors asks again for as many MSI messages as the host has, and says so once", async (t) => {
  const backend = new FakeDeviceBackend(EDU);
  backend.vectorsLeft = 3;
  const reports: string[] = [];
  const vectors = new HostVectors(backend, "msi", (level, text) => reports.push(`${level}: ${text}`));
  vectors.arm(fds(100, 101, 102, 103));
  t.same(backend.triggers.get("msi"), [100, 101], "a power of two, vector 0 among them");
  vectors.arm(fds(110, 101, 102, 103));
  t.same(backend.log, ["arm msi 0: 100 101", "arm msi 0: 110"], "the host is not asked in vain");
  t.match(reports, [/^warn: 0000:05:00.0 gets 2 of the 4 MSI messages enabled: the host has no more/]);
  backend.vectorsLeft = 0;
  vectors.disarm();
  t.throws(() => vectors.arm(fds(100)), HostError);
});

t.test("HostVectors.disarm() is harmless when the kind is off", async (t) => {
  const backend = new FakeDeviceBackend(NVME);
  const vectors = new HostVectors(backend, "msix");
  vectors.disarm();
  t.same(backend.log, []);
  vectors.arm(fds(100));
  vectors.disarm();
  vectors.disarm();
  t.same(backend.log, ["arm msix 0: 100", "disarm msix"]);
});
