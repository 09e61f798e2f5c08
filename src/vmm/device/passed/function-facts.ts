import type { Report } from "../../../base/backends.ts";
import type { Gsi } from "../../../base/units.ts";
import { hex } from "../../../base/units.ts";
import type { PassthroughFunction } from "../../../passthrough/function.ts";
import type { BarSummary } from "../../../passthrough/summary.ts";
import type { ConfigSpace } from "../../../pci/config-space.ts";
import { PCI_CAP_ID_MSI, PCI_CAP_ID_MSIX, PCI_INTERRUPT_PIN, PCI_MSIX_FLAGS } from "../../../pci/ids.ts";
import type { PlanBarPart } from "../../shared/plan.ts";

/** Mapped pieces are what is left between the trapped ones. */
export function barParts(bar: BarSummary): PlanBarPart[] {
  if (bar.kind === "io") return [{ offset: 0, sizeBytes: bar.sizeBytes, way: "trapped", reason: "I/O ports" }];
  if (bar.kind === "rom") return [{ offset: 0, sizeBytes: bar.sizeBytes, way: "trapped", reason: "expansion ROM" }];
  const parts: PlanBarPart[] = [];
  let offset = 0;
  for (const area of bar.trapped) {
    if (area.offset > offset) parts.push({ offset, sizeBytes: area.offset - offset, way: "mapped" });
    parts.push({ offset: area.offset, sizeBytes: area.sizeBytes, way: "trapped", reason: area.reason });
    offset = area.offset + area.sizeBytes;
  }
  if (offset < bar.sizeBytes) parts.push({ offset, sizeBytes: bar.sizeBytes - offset, way: "mapped" });
  return parts;
}

/**
 * Interrupts that a function shows the guest: "INTA → GSI 17", "MSI-X, 5 vectors".
 *
 * @param gsiOf Where a pin, 1 (A) to 4 (D), leads; without it the pin alone is named.
 */
export function interruptTexts(config: ConfigSpace, gsiOf?: (pin: number) => Gsi): string[] {
  const kinds: string[] = [];
  const pin = config.get8(PCI_INTERRUPT_PIN);
  if (pin >= 1 && pin <= 4) kinds.push(`INT${"ABCD"[pin - 1]}${gsiOf === undefined ? "" : ` → GSI ${gsiOf(pin)}`}`);
  const vectors = (count: number): string => (count === 1 ? "1 vector" : `${count} vectors`);
  const msi = config.findCapability(PCI_CAP_ID_MSI);
  if (msi !== undefined) kinds.push(`MSI, ${vectors(1 << ((config.get16(msi + 2) >>> 1) & 7))}`);
  const msix = config.findCapability(PCI_CAP_ID_MSIX);
  if (msix !== undefined) kinds.push(`MSI-X, ${vectors((config.get16(msix + PCI_MSIX_FLAGS) & 0x7ff) + 1)}`);
  return kinds;
}

/**
 * Tells how the guest will reach a passed-through function: a line for each piece of a BAR, and one for its interrupts.
 */
export function reportFunction(fn: PassthroughFunction, report: Report): void {
  for (const bar of fn.summary().bars) {
    const name = bar.kind === "rom" ? "the expansion ROM" : `BAR ${bar.index}`;
    for (const { offset, sizeBytes, way, reason } of barParts(bar)) {
      const details = { offset: hex(offset), bytes: sizeBytes, ...(reason === undefined ? {} : { reason }) };
      report("info", `${name} of ${fn.name}: ${way}`, details);
    }
  }
  report("info", `interrupts of ${fn.name}: ${interruptTexts(fn.config).join("; ") || "none"}`);
}
