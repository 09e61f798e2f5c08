import { type CheckOutcome, failed } from "./check.ts";
import { textFile } from "./files.ts";
import { type HostFunction, isVfioFunction } from "./functions.ts";

/**
 * Names in /proc/iomem of the memory of the firmware's screen. BOOTFB is the platform device's resource
 * (drivers/firmware/sysfb_simplefb.c). The others are regions of the drivers that draw there.
 */
const HOLDERS: readonly string[] = [
  "BOOTFB",
  "efifb",
  "vesafb",
  "simplefb",
  "simple-framebuffer",
  "simpledrm",
  "efidrm",
  "vesadrm",
];

/**
 * Looks whether the host's boot framebuffer lies in a BAR. Its range is busy then, and vfio-pci can neither map nor
 * read the BAR. A kernel from 6.1 on lets go of it when vfio-pci takes the function.
 *
 * @returns `undefined` where there is none, or where this user is shown no addresses.
 */
export function framebufferState(pciFunction: HostFunction, proc: string): CheckOutcome | undefined {
  const { bdf, resources } = pciFunction;
  for (const line of (textFile(proc, "iomem") ?? "").split("\n")) {
    const [, from, to, owner] = /^\s*([0-9a-f]+)-([0-9a-f]+) : (.*)$/.exec(line) ?? [];
    const name = HOLDERS.find((holder) => owner === holder || owner?.startsWith(`${holder}.`) === true);
    if (from === undefined || to === undefined || name === undefined) continue;
    const start = Number.parseInt(from, 16);
    const end = Number.parseInt(to, 16);
    const held = resources.find(
      ({ kind, address, sizeBytes }) => kind === "memory" && start < address + sizeBytes && address <= end,
    );
    if (held === undefined || end === 0) continue;
    const found = `the host's boot framebuffer (${name} in /proc/iomem) holds BAR ${held.index}`;
    const remedy = remedyFor(name, bdf);
    if (isVfioFunction(pciFunction)) return failed("TSVMM_DEVICE_IN_USE", found, remedy);
    // The bind is still to come, and may free it.
    return { state: "warning", code: "TSVMM_DEVICE_IN_USE", found, remedy };
  }
  return undefined;
}

/** BOOTFB is a platform device's, which stays when its driver goes. */
function remedyFor(name: string, bdf: string): string {
  if (name === "efifb" || name === "vesafb") {
    const driver = name === "efifb" ? "efi-framebuffer" : "vesa-framebuffer";
    return `echo ${driver}.0 > /sys/bus/platform/drivers/${driver}/unbind, then tsvmm bind ${bdf}`;
  }
  return (
    "start the host with initcall_blacklist=sysfb_init (before Linux 5.15 video=efifb:off), or give it another " +
    "screen"
  );
}
