/**
 * A line of /proc/interrupts: a count for each CPU, then chip and handlers; VFIO's are named in
 * drivers/vfio/pci/vfio_pci_intrs.c.
 */
const LINE = /^\s*\w+:((?:\s+\d+)+)\s.*\bvfio-(intx|msix?\[\d+\])\(([0-9a-f:.]+)\)/gm;

/**
 * How many interrupts of a passed-through function the host has had, by vector: `intx`, `msi[0]`, `msix[3]`. No thread
 * of ours sees them, so the kernel is asked. A vector is there while it is armed, and counts anew when it is armed
 * again.
 *
 * @param table The text of /proc/interrupts.
 * @param address Of the function on the host: `0000:01:00.0`.
 */
export function hostInterrupts(table: string, address: string): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const [, perCpu = "", vector = "", owner] of table.matchAll(LINE)) {
    if (owner !== address) continue;
    const numbers = perCpu.trim().split(/\s+/).map(Number);
    counts.set(
      vector,
      numbers.reduce((sum, count) => sum + count, 0),
    );
  }
  return counts;
}
