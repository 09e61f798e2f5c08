import { SpecError } from "../src/base/errors.ts";

/** One PCI function of the nested host, meant to be passed to a guest. */
export interface LabDevice {
  /** A name of the catalog below, or any PCI device that QEMU has. */
  readonly model: string;
  /** Raw disk image, for devices that store something; a guest's writes go into it. */
  readonly image?: string;
  /** Further properties in QEMU's spelling: `cmb_size_mb=16`. */
  readonly properties?: string;
}

interface Model {
  /** What it is good for. */
  readonly purpose: string;
  /** QEMU's name, when ours is another one. */
  readonly device?: string;
  /** Properties that QEMU needs; `ID` stands for a name that is unique in the machine. */
  readonly properties?: string;
  /** How the image is attached: as a property of the device itself, or as a second device on the bus it brings. */
  readonly drive?: string;
  /** A network behind it, with a DHCP server. */
  readonly hasNetwork?: true;
}

/** PCI functions worth passing to a guest. */
export const DEVICE_MODELS: Readonly<Record<string, Model>> = {
  "sdhci-pci": { purpose: "SD card reader: legacy interrupt only", drive: "sd-card" },
  nvme: { purpose: "NVMe disk: MSI-X, 64-bit BAR", properties: "serial=ID", drive: "required" },
  e1000e: { purpose: "network card: MSI-X, I/O BAR, ROM", hasNetwork: true },
  e1000: { purpose: "older network card: legacy interrupt, I/O BAR", hasNetwork: true },
  rtl8139: { purpose: "simple network card: I/O BAR, legacy interrupt", hasNetwork: true },
  edu: { purpose: "teaching device: MSI, DMA, a factorial" },
  "pci-testdev": { purpose: "I/O and memory BAR that take any access" },
  "qemu-xhci": { purpose: "USB controller with a stick: MSI-X", drive: "usb-storage,bus=ID.0" },
  "ich9-ahci": { purpose: "SATA controller with a disk: MSI", drive: "ide-hd,bus=ID.0" },
  "intel-hda": { purpose: "sound controller: MSI" },
  "virtio-rng-pci": { purpose: "random numbers, as a PCI function", properties: "disable-legacy=on,iommu_platform=on" },
};

/**
 * Reads `MODEL[,image=FILE][,PROPERTY=VALUE…]`.
 *
 * @throws SpecError when the model has no place for an image, or needs one.
 */
export function parseLabDevice(text: string): LabDevice {
  const [model = "", ...rest] = text.split(",");
  const image = rest.find((part) => part.startsWith("image="))?.slice("image=".length);
  const properties = rest.filter((part) => !part.startsWith("image=")).join(",");
  if (model === "") throw new SpecError("--device", "names no device");
  if (image?.includes(",")) throw new SpecError("--device", "the image's path holds a comma");
  return { model, ...(image !== undefined && { image }), ...(properties !== "" && { properties }) };
}

/** Answers the address of the device with this index in the nested host: each one has a root port, hence a bus, of its own. */
export const labDeviceBdf = (index: number): string => `0000:${(index + 1).toString(16).padStart(2, "0")}:00.0`;

/**
 * Answers QEMU's arguments for one device behind its own root port, so that it has an IOMMU group to itself.
 *
 * @throws SpecError when the device stores something and no image is given, or the other way round.
 */
export function qemuDeviceArguments(device: LabDevice, index: number): readonly string[] {
  const id = `dev${index}`;
  const model = DEVICE_MODELS[device.model];
  const port = ["-device", `pcie-root-port,id=port${index},chassis=${index + 1},slot=${index + 1},bus=pcie.0`];
  const properties = [
    model?.device ?? device.model,
    `id=${id}`,
    `bus=port${index}`,
    model?.properties?.replaceAll("ID", id),
    model?.hasNetwork && `netdev=net${index}`,
    model?.drive === "required" && `drive=drive${index}`,
    device.properties,
  ];
  const args = [...port];
  if (device.image !== undefined) {
    if (model?.drive === undefined) throw new SpecError("--device", `${device.model} takes no image`);
    args.push("-drive", `file=${device.image},format=raw,if=none,id=drive${index},cache=unsafe`);
  } else if (model?.drive === "required") {
    throw new SpecError("--device", `${device.model} needs an image (image=FILE)`);
  }
  if (model?.hasNetwork) args.push("-netdev", `user,id=net${index}`);
  args.push("-device", properties.filter(Boolean).join(","));
  if (device.image !== undefined && model?.drive !== undefined && model.drive !== "required") {
    args.push("-device", `${model.drive.replaceAll("ID", id)},drive=drive${index}`);
  }
  return args;
}
