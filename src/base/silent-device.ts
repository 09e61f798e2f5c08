/** What is said of a PCI function whose registers read as all ones. */
export const SILENT = "it does not answer: its registers read as all ones";

/** How the host looks again for a function that is off the bus, or asleep in D3cold with no way to wake. */
export const rescanCommands = (bdf: string): string =>
  `echo 1 > /sys/bus/pci/devices/${bdf}/remove, then echo 1 > /sys/bus/pci/rescan`;
