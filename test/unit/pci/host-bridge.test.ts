import t from "tap";
import { Bus, type BusDevice } from "../../../src/base/bus.ts";
import { ConfigPorts, Ecam, HostBridge } from "../../../src/pci/host-bridge.ts";
import { PciRoot } from "../../../src/pci/root.ts";
import { intxGsi } from "../../../src/vmm/shared/memory-map.ts";
import { FakePciFunction } from "../../support/fake-pci-function.ts";

function machine(others?: BusDevice) {
  const ports = new Bus("port");
  const mmio = new Bus("mmio");
  const root = new PciRoot({ gsiOf: intxGsi, ports, mmio, windows: { ports: [], memory32: [], memory64: [] } });
  const configPorts = new ConfigPorts(root, others);
  ports.attach(0xcf8, 8, configPorts);
  mmio.attach(0xe800_0000, 0x10_0000, new Ecam(root));
  root.plug(new HostBridge(), 0);
  const nic = new FakePciFunction("nic", []);
  nic.config.addExtendedCapability(0x03, 1, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  root.plug(nic, 5, 0);
  root.plug(new FakePciFunction("nic 1", [], 256), 5, 1);
  return { ports, mmio, root, configPorts, nic };
}

t.test("HostBridge is a host bridge at 0:0.0", async (t) => {
  const { ports } = machine();
  ports.write(0xcf8, 4, 0x8000_0000);
  t.equal(ports.read(0xcfc, 4), 0x0d57_8086);
  ports.write(0xcf8, 4, 0x8000_0008);
  t.equal(ports.read(0xcfe, 2), 0x0600);
});

t.test("ConfigPorts selects bus, device, function and register", async (t) => {
  const { ports } = machine();
  ports.write(0xcf8, 4, 0x8000_2800);
  t.equal(ports.read(0xcf8, 4), 0x8000_2800);
  t.equal(ports.read(0xcfc, 4), 0x5678_1234);
  t.equal(ports.read(0xcfe, 2), 0x5678);
  t.equal(ports.read(0xcfd, 1), 0x12);
  ports.write(0xcf8, 4, 0x8000_2900);
  t.equal(ports.read(0xcfc, 4), 0x5678_1234, "function 1");
  ports.write(0xcf8, 4, 0x8000_2a00);
  t.equal(ports.read(0xcfc, 4), 0xffff_ffff, "no function 2");
  ports.write(0xcf8, 4, 0x8001_2800);
  t.equal(ports.read(0xcfc, 2), 0xffff, "no bus 1");
});

t.test("ConfigPorts writes bytes and words at their place", async (t) => {
  const { ports, nic } = machine();
  ports.write(0xcf8, 4, 0x8000_283c);
  ports.write(0xcfc, 1, 0x2a);
  t.equal(nic.config.get8(0x3c), 0x2a);
  ports.write(0xcf8, 4, 0x8000_2804);
  ports.write(0xcfd, 1, 0x04);
  ports.write(0xcfc, 1, 0x02);
  t.equal(nic.config.get16(0x04), 0x0402);
});

t.test("ConfigPorts does nothing while the enable bit is clear", async (t) => {
  const { ports, nic, configPorts } = machine();
  ports.write(0xcf8, 4, 0x0000_283c);
  ports.write(0xcfc, 1, 0x2a);
  t.equal(ports.read(0xcfc, 4), 0xffff_ffff);
  t.not(nic.config.get8(0x3c), 0x2a);
  ports.write(0xcf8, 4, 0xffff_ffff);
  t.equal(ports.read(0xcf8, 4), 0x80ff_fffc, "reserved bits stay zero");
  configPorts.reset();
  t.equal(ports.read(0xcf8, 4), 0);
});

t.test("ConfigPorts takes its address as four bytes only; narrower accesses are for others", async (t) => {
  const calls: string[] = [];
  const { ports } = machine({
    name: "reset control",
    read: (offset, width) => {
      calls.push(`r${offset}/${width}`);
      return 0x06;
    },
    write: (offset, width, value) => {
      calls.push(`w${offset}/${width}=${value}`);
    },
  });
  ports.write(0xcf8, 4, 0x8000_2800);
  ports.write(0xcf9, 1, 0x0e);
  ports.write(0xcf8, 2, 0);
  t.equal(ports.read(0xcf9, 1), 0x06);
  t.equal(ports.read(0xcfa, 4), 0xffff_ffff, "no register takes an access across both");
  t.same(calls, ["w1/1=14", "w0/2=0", "r1/1"]);
  t.equal(ports.read(0xcf8, 4), 0x8000_2800);
  t.equal(machine().ports.read(0xcf9, 1), 0xff, "no other device there");
});

t.test("Ecam reaches all 4 KiB of a function", async (t) => {
  const { mmio, nic } = machine();
  const base = 0xe800_0000 + 5 * 0x8000;
  t.equal(mmio.read(base, 4), 0x5678_1234);
  t.equal(mmio.read(base + 0x100, 4), 0x0001_0003);
  t.equal(mmio.read(base + 0x106, 2), 0x0403);
  t.equal(mmio.read(base + 0x1000 + 0x100, 4), 0xffff_ffff, "function 1 has 256 bytes");
  t.equal(mmio.read(base + 0x2000, 4), 0xffff_ffff);
  t.equal(mmio.read(base + 0xffe, 4), 0xffff_0000, "an access does not run into the next function");
  mmio.write(base + 0x3c, 1, 0x33);
  t.equal(nic.config.get8(0x3c), 0x33);
});
