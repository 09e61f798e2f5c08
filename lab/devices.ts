import { SpecError } from "../src/base/errors.ts";

/** One PCI function of the nested host, meant to be passed to a guest. */
export interface LabDevice {
  /** A name of the catalog below, or any PCI device that QEMU has. */
  readonly model: string;
  /** Raw disk image, for devices that store something; a guest's writes go into it. */
  readonly image?: string;
  /** Further properties in QEMU's spelling: `cmb_size_mb=16`. */
  readonly properties?: string;
  /** Functions 1, 2, … of the same slot; they share its IOMMU group. */
  readonly further?: readonly LabDevice[];
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
 * Reads `MODEL[,image=FILE][,PROPERTY=VALUE…]`, and after a `+` a further function of the same slot.
 *
 * @throws SpecError when the model has no place for an image, or needs one.
 */
export function parseLabDevice(text: string): LabDevice {
  const [first = "", ...others] = text.split("+");
  const further = others.map(parseFunction);
  return { ...parseFunction(first), ...(further.length > 0 && { further }) };
}

function parseFunction(text: string): LabDevice {
  const [model = "", ...rest] = text.split(",");
  const image = rest.find((part) => part.startsWith("image="))?.slice("image=".length);
  const properties = rest.filter((part) => !part.startsWith("image=")).join(",");
  if (model === "") throw new SpecError("TSVMM_VALUE_INVALID", "--device", "names no device");
  if (image?.includes(",")) throw new SpecError("TSVMM_VALUE_INVALID", "--device", "the image's path holds a comma");
  return { model, ...(image !== undefined && { image }), ...(properties !== "" && { properties }) };
}

/** Answers a function's address in the nested host: each device has a root port, hence a bus, of its own. */
export const labDeviceBdf = (index: number, number = 0): string =>
  `0000:${(index + 1).toString(16).padStart(2, "0")}:00.${number}`;

/** The functions of all devices, with their addresses. */
export const labFunctions = (
  devices: readonly LabDevice[],
): readonly { readonly bdf: string; readonly model: string }[] =>
  devices.flatMap((device, index) =>
    [device, ...(device.further ?? [])].map(({ model }, number) => ({ bdf: labDeviceBdf(index, number), model })),
  );

/**
 * Answers QEMU's arguments for one device behind its own root port, so that it has an IOMMU group to itself.
 *
 * @throws SpecError when the device stores something and no image is given, or the other way round.
 */
export function qemuDeviceArguments(device: LabDevice, index: number): readonly string[] {
  const further = device.further ?? [];
  const port = ["-device", `pcie-root-port,id=port${index},chassis=${index + 1},slot=${index + 1},bus=pcie.0`];
  const functions = [device, ...further].flatMap((one, number) => {
    const place = further.length === 0 ? "" : `addr=0.${number}${number === 0 ? ",multifunction=on" : ""}`;
    return functionArguments(one, number === 0 ? `${index}` : `${index}f${number}`, `port${index}`, place);
  });
  return [...port, ...functions];
}

/**
 * @param key Unique in the machine. @param place Properties that say where on the bus; empty for the only function of a
 *   slot.
 */
function functionArguments(device: LabDevice, key: string, bus: string, place: string): readonly string[] {
  const id = `dev${key}`;
  const model = DEVICE_MODELS[device.model];
  const properties = [
    model?.device ?? device.model,
    `id=${id}`,
    `bus=${bus}`,
    place,
    model?.properties?.replaceAll("ID", id),
    model?.hasNetwork && `netdev=net${key}`,
    model?.drive === "required" && `drive=drive${key}`,
    device.properties,
  ];
  const args: string[] = [];
  if (device.image !== undefined) {
    if (model?.drive === undefined)
      throw new SpecError("TSVMM_VALUE_INVALID", "--device", `${device.model} takes no image`);
    args.push("-drive", `file=${device.image},format=raw,if=none,id=drive${key},cache=unsafe`);
  } else if (model?.drive === "required") {
    throw new SpecError("TSVMM_VALUE_INVALID", "--device", `${device.model} needs an image (image=FILE)`);
  }
  if (model?.hasNetwork) args.push("-netdev", `user,id=net${key}`);
  args.push("-device", properties.filter(Boolean).join(","));
  if (device.image !== undefined && model?.drive !== undefined && model.drive !== "required") {
    args.push("-device", `${model.drive.replaceAll("ID", id)},drive=drive${key}`);
  }
  return args;
}
