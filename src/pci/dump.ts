import { formatBdf } from "./bdf.ts";
import type { ConfigSpace } from "./config-space.ts";
import { PCI_CLASS_DEVICE, PCI_CLASS_REVISION, PCI_DEVICE_ID, PCI_VENDOR_ID } from "./ids.ts";
import type { PciRoot } from "./root.ts";

const digits = (value: number, count: number): string => value.toString(16).padStart(count, "0");

/**
 * A function's configuration space as `lspci -xxxx` prints it, so that `lspci -F file -vvv` decodes it on any machine.
 *
 * @param slot "0000:00:01.0".
 */
export function dumpConfigSpace(slot: string, config: ConfigSpace): string {
  const image = config.image();
  const id = `${digits(config.get16(PCI_VENDOR_ID), 4)}:${digits(config.get16(PCI_DEVICE_ID), 4)}`;
  const revision = digits(config.get8(PCI_CLASS_REVISION), 2);
  const lines = [`${slot} ${digits(config.get16(PCI_CLASS_DEVICE), 4)}: ${id} (rev ${revision})`];
  for (let row = 0; row < image.length; row += 16) {
    const bytes = Array.from(image.subarray(row, row + 16), (byte) => digits(byte, 2));
    lines.push(`${digits(row, 2)}: ${bytes.join(" ")}`);
  }
  return `${lines.join("\n")}\n`;
}

/** Every function of a root, one after another with an empty line between. */
export function dumpRoot(root: PciRoot): string {
  return root.functions.map((plugged) => dumpConfigSpace(formatBdf(plugged.bdf), plugged.function.config)).join("\n");
}
