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
  const backend = new FakeDeviceBackend(EDU);
  const vectors = new HostVectors(backend, "msi");
  vectors.arm(fds(100, 101, 102, 103));
  backend.log.length = 0;
  vectors.arm(fds(100, 111, 112, 103));
  t.same(backend.log, ["arm msi 1: 111 112"]);
  backend.log.length = 0;
  vectors.arm(fds(100));
  t.same(backend.log, ["arm msi 1: -1 -1 -1"], "vectors no longer used are taken out");
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
