import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { mem32 } from "../../guests/assembler-encoding.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { MSI_VECTOR, openFunction, tables, writeConfig } from "../../guests/pci-guest.ts";
import { Machine } from "../../src/vmm/machine.ts";
import { missingKvm } from "../support/kvm-guest.ts";
import { startServer } from "../support/user-server.ts";

const skip = missingKvm();
const folder = mkdtempSync(join(tmpdir(), "tsvmm-snapshot-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

t.test(
  "Machine.snapshot() shows a running machine as its guest has set it up, and leaves it alone",
  { skip },
  async (t) => {
    const { socket } = await startServer(t, "edu");
    const disk = join(folder, "disk.img");
    writeFileSync(disk, new Uint8Array(1 << 20));
    const kernel = join(folder, "guest.elf");
    const { bytes } = multibootImage((a) => {
      // edu is in slot 3: the disk and the random number generator come before it.
      openFunction(a, 3);
      writeConfig(a, 3, 0x44, 0xfee0_0000);
      writeConfig(a, 3, 0x48, 0);
      writeConfig(a, 3, 0x4c, MSI_VECTOR);
      writeConfig(a, 3, 0x40, 0x0001_0000);
      a.mov("eax", mem32("ebx", 0));
      a.mov("edx", 0x3f8).mov("al", 0x72).out("dx", "al");
      a.label("wait").mov("edx", 0x3fd).in("al", "dx").test("al", 1).j("e", "wait");
      a.mov("al", 0).out(0xf4, "al").label("end").hlt().jmp("end");
      tables(a.label("handler"));
    });
    writeFileSync(kernel, bytes);
    const machine = await Machine.start({
      kernel,
      memory: { sizeBytes: 16 << 20 },
      debugExitPort: 0xf4,
      disks: [{ path: disk, id: "root" }],
      userDevices: [{ socket, id: "thing" }],
    });
    t.teardown(() => machine.stop());
    await machine.serial.waitFor("r");
    const snapshot = await machine.snapshot();
    const [bridge, block, rng, edu] = snapshot.functions;
    t.match(
      [bridge, block, rng, edu].map((one) => [one?.bdf, one?.name]),
      [
        ["00:00.0", "host bridge"],
        ["00:01.0", "root"],
        ["00:02.0", "rng"],
        ["00:03.0", `vfio-user ${socket}`],
      ],
    );
    t.match(block, {
      vendorId: 0x1af4,
      classCode: 0x018000,
      bars: [{ index: 0, kind: "mem64", sizeBytes: 0x8000, isDecoded: false, slots: [] }],
      intx: { pin: 1 },
      vectors: { msix: { isEnabled: false, count: 2, vectors: [] } },
      virtio: { deviceId: 2, status: 0, queues: [{ index: 0, isEnabled: false }] },
    });
    t.match(edu, {
      id: "thing",
      vendorId: 0x1234,
      deviceId: 0x11e8,
      bars: [{ index: 0, sizeBytes: 0x10_0000, isDecoded: true, slots: [], trapped: [{ offset: 0 }] }],
      capabilities: [{ id: 5, name: "MSI", offset: 0x40, isExtended: false }],
      vectors: {
        msi: {
          isEnabled: true,
          vectors: [
            { index: 0, isMasked: false, isPending: false, message: { addressLow: 0xfee0_0000, data: MSI_VECTOR } },
          ],
        },
      },
      passthrough: { interrupts: { kind: "msi", armed: 1 }, armedVectors: [0] },
    });
    t.equal(edu?.config.length, 256);
    t.equal(new DataView(edu?.config.buffer ?? new ArrayBuffer(4)).getUint32(0, true), 0x11e8_1234);
    const route = edu?.vectors.msi?.vectors[0]?.route;
    const found = snapshot.routes.find(({ name }) => name === route);
    t.match(found, { isConnected: true, hasEventFd: true });
    t.match(
      snapshot.routing.find(({ kind, gsi }) => kind === "message" && gsi === found?.gsi),
      { message: { addressLow: 0xfee0_0000, addressHigh: 0, data: MSI_VECTOR } },
    );
    t.match(snapshot.slots, [{ name: "RAM", address: 0, sizeBytes: 16 << 20 }]);
    const com1 = snapshot.ports.find(({ name }) => name === "COM1");
    t.match(com1, { address: 0x3f8, sizeBytes: 8 });
    t.ok((com1?.accesses ?? 0) > 0);
    t.match(snapshot.characters, [
      { channel: "serial", kind: "api" },
      { channel: "console", kind: "off" },
    ]);
    t.match(snapshot.disks, [{ id: "root", path: disk, sizeBytes: 1 << 20, isReadOnly: false }]);
    t.equal(snapshot.vcpus.length, 1);
    t.ok((snapshot.vcpus[0]?.exits.portWrite ?? 0) > 0);
    t.doesNotThrow(() => JSON.stringify(snapshot), "it can be stored");
    const accesses = (all: typeof snapshot): number => all.mmio.find(({ name }) => /BAR 0$/.test(name))?.accesses ?? 0;
    t.equal(accesses(await machine.snapshot()), accesses(snapshot), "looking is no access");
    machine.serial.write("x");
    t.equal((await machine.exited).status, 1);
    await t.rejects(machine.snapshot(), { name: "HostError", message: "Cannot look into the machine: it is off" });
  },
);
