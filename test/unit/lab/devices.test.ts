import t from "tap";
import { labDeviceBdf, parseLabDevice, qemuDeviceArguments } from "../../../lab/devices.ts";

t.test("parseLabDevice() reads a model, an image and properties in QEMU's spelling", (t) => {
  t.same(parseLabDevice("edu"), { model: "edu" });
  t.same(parseLabDevice("nvme,image=/tmp/a.img,cmb_size_mb=16,x=y"), {
    model: "nvme",
    image: "/tmp/a.img",
    properties: "cmb_size_mb=16,x=y",
  });
  t.throws(() => parseLabDevice(",image=x"), { path: "--device", message: "--device: names no device" });
  t.end();
});

t.test("qemuDeviceArguments() gives each device a root port and names nothing twice", (t) => {
  t.same(qemuDeviceArguments({ model: "nvme", image: "/disk" }, 1), [
    ...["-device", "pcie-root-port,id=port1,chassis=2,slot=2,bus=pcie.0"],
    ...["-drive", "file=/disk,format=raw,if=none,id=drive1,cache=unsafe"],
    ...["-device", "nvme,id=dev1,bus=port1,serial=dev1,drive=drive1"],
  ]);
  t.same(qemuDeviceArguments({ model: "sdhci-pci", image: "/card" }, 0).slice(-4), [
    ...["-device", "sdhci-pci,id=dev0,bus=port0"],
    ...["-device", "sd-card,drive=drive0"],
  ]);
  t.same(qemuDeviceArguments({ model: "e1000e", properties: "mac=52:54:00:12:34:56" }, 2).slice(-4), [
    ...["-netdev", "user,id=net2"],
    ...["-device", "e1000e,id=dev2,bus=port2,netdev=net2,mac=52:54:00:12:34:56"],
  ]);
  t.end();
});

t.test("qemuDeviceArguments() says when an image is missing or has no place", (t) => {
  t.throws(() => qemuDeviceArguments({ model: "nvme" }, 0), { message: /needs an image/ });
  t.throws(() => qemuDeviceArguments({ model: "edu", image: "/x" }, 0), { message: /takes no image/ });
  t.end();
});

t.test("labDeviceBdf() counts buses from 1, in hexadecimal", (t) => {
  t.same([0, 1, 15].map(labDeviceBdf), ["0000:01:00.0", "0000:02:00.0", "0000:10:00.0"]);
  t.end();
});
