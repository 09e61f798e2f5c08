import t from "tap";
import { labDeviceBdf, labFunctions, parseLabDevice, qemuDeviceArguments } from "../../../lab/devices.ts";

t.test("parseLabDevice() reads a model, an image and properties in QEMU's spelling", (t) => {
  t.same(parseLabDevice("edu"), { model: "edu" });
  t.same(parseLabDevice("nvme,image=/tmp/a.img,cmb_size_mb=16,x=y"), {
    model: "nvme",
    image: "/tmp/a.img",
    properties: "cmb_size_mb=16,x=y",
  });
  t.same(parseLabDevice("edu+nvme,image=/a"), { model: "edu", further: [{ model: "nvme", image: "/a" }] });
  t.throws(() => parseLabDevice("edu+"), { message: "--device: names no device" });
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
  t.same(
    [0, 1, 15].map((index) => labDeviceBdf(index)),
    ["0000:01:00.0", "0000:02:00.0", "0000:10:00.0"],
  );
  t.end();
});

t.test("qemuDeviceArguments() puts further functions into the same slot, with names of their own", (t) => {
  const device = { model: "edu", further: [{ model: "nvme", image: "/disk" }] };
  t.same(qemuDeviceArguments(device, 2), [
    ...["-device", "pcie-root-port,id=port2,chassis=3,slot=3,bus=pcie.0"],
    ...["-device", "edu,id=dev2,bus=port2,addr=0.0,multifunction=on"],
    ...["-drive", "file=/disk,format=raw,if=none,id=drive2f1,cache=unsafe"],
    ...["-device", "nvme,id=dev2f1,bus=port2,addr=0.1,serial=dev2f1,drive=drive2f1"],
  ]);
  t.same(labFunctions([{ model: "e1000e" }, device]), [
    { bdf: "0000:01:00.0", model: "e1000e" },
    { bdf: "0000:02:00.0", model: "edu" },
    { bdf: "0000:02:00.1", model: "nvme" },
  ]);
  t.end();
});
