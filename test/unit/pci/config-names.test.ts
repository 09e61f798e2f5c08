import t from "tap";
import { Bus } from "../../../src/base/bus.ts";
import { nameConfigRegister } from "../../../src/pci/config-names.ts";
import { ConfigSpace } from "../../../src/pci/config-space.ts";
import { ConfigPorts, Ecam, HostBridge } from "../../../src/pci/host-bridge.ts";
import { PciRoot } from "../../../src/pci/root.ts";
import { intxGsi } from "../../../src/vmm/shared/memory-map.ts";

t.test(
  "nameConfigRegister() knows the header, the capability an offset is in, and says numbers for the rest",
  async (t) => {
    const config = new ConfigSpace("device", 4096);
    const msix = config.addCapability(0x11, new Uint8Array(10), 0x50);
    config.addCapability(0x12, new Uint8Array(6), 0x70);
    config.addExtendedCapability(0x01, 2, new Uint8Array(40), 0x100);
    const name = (offset: number): string => nameConfigRegister(config, offset);
    t.same([0x00, 0x04, 0x05, 0x12, 0x24, 0x30, 0x34, 0x3d].map(name), [
      ...["vendor id", "command", "command byte 1", "BAR 0 byte 2", "BAR 5", "expansion ROM"],
      ...["capability list", "interrupt pin"],
    ]);
    t.equal(name(0x38), "0x38", "a hole of the header");
    t.equal(name(0x44), "0x44", "before all capabilities");
    t.equal(name(msix + 2), "MSI-X +0x2");
    t.equal(name(0x74), "capability 0x12 +0x4");
    t.equal(name(0x104), "extended capability 0x1 +0x4");
    t.equal(nameConfigRegister(new ConfigSpace("small", 256), 0x104), "0x104");
  },
);

t.test("ConfigPorts.describe() and Ecam.describe() name the function and register they lead to", async (t) => {
  const ports = new Bus("port");
  const mmio = new Bus("MMIO");
  const root = new PciRoot({ gsiOf: intxGsi, ports, mmio, windows: { ports: [], memory32: [], memory64: [] } });
  root.plug(new HostBridge(), 0);
  const decoder = new ConfigPorts(root);
  ports.attach(0xcf8, 8, decoder);
  mmio.attach(0xe000_0000, 0x10_0000, new Ecam(root));
  t.equal(ports.describe(0xcf8), "PCI configuration ports address");
  t.equal(ports.describe(0xcfc), "PCI configuration ports data, not enabled");
  decoder.write(0, 4, 0x8000_0000);
  t.equal(ports.describe(0xcfe), "PCI configuration ports 00:00.0 host bridge device id");
  decoder.write(0, 4, 0x8000_2810);
  t.equal(ports.describe(0xcfc), "PCI configuration ports 00:05.0 empty");
  t.equal(mmio.describe(0xe000_0004), "PCI ECAM 00:00.0 host bridge command");
  t.equal(mmio.describe(0xd000_0000), "no device");
});
