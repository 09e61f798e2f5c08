import { printable } from "../base/printable.ts";
import { hex } from "../base/units.ts";
import type { MachinePlan, PlanBar, PlanBarPart, PlanFunction, PlanRange } from "../vmm/shared/plan.ts";
import { formatSize, formatTable, type Style } from "./output.ts";

const hexWide = (value: number, digits: number): string => `0x${value.toString(16).padStart(digits, "0")}`;

function rangeRows(ranges: readonly PlanRange[], digits: number): readonly (readonly string[])[] {
  return ranges.map(({ name, address, sizeBytes }) => [
    `${hexWide(address, digits)}-${hexWide(address + sizeBytes - 1, digits)}`,
    formatSize(sizeBytes),
    name,
  ]);
}

const describePart = ({ way, reason }: PlanBarPart): string => (reason === undefined ? way : `${way}: ${reason}`);

function barRows(bar: PlanBar): readonly (readonly string[])[] {
  const title = bar.kind === "rom" ? "ROM" : `BAR ${bar.index}`;
  const place = bar.address === undefined ? "" : ` at ${hex(bar.address)}`;
  const size = `${bar.kind} ${formatSize(bar.sizeBytes)}${place}`;
  if (bar.parts.length === 0) return [[title, size]];
  return bar.parts.map((part, index) => [
    index === 0 ? title : "",
    index === 0 ? size : "",
    `+${hexWide(part.offset, 4)} ${formatSize(part.sizeBytes)} ${describePart(part)}`,
  ]);
}

function formatFunction(pciFunction: PlanFunction, style: Style): string {
  const { bdf, id, title, interrupts, bars } = pciFunction;
  const head = `  ${style.bold(bdf)}  ${printable(title)} (${id}), interrupts: ${interrupts}\n`;
  return head + formatTable(bars.flatMap(barRows), "    ");
}

/** A machine's description as text: what a dry run prints. */
export function formatPlan(plan: MachinePlan, style: Style): string {
  const summary = [
    ["Kernel", plan.bootProtocol === undefined ? plan.kernel : `${plan.kernel} (${plan.bootProtocol})`],
    ...(plan.initramfs === undefined ? [] : [["Initramfs", plan.initramfs]]),
    ["Command line", plan.cmdline === "" ? "(empty)" : plan.cmdline],
    ["CPUs", String(plan.cpuCount)],
    ["Memory", formatSize(plan.memoryBytes)],
    ...(plan.dma === undefined
      ? []
      : [["DMA", `${formatSize(plan.dma.sizeBytes)} pinned and mapped in ${plan.dma.ms} ms`]]),
  ];
  const interrupts = plan.interrupts.map(({ gsi, name }) => [`GSI ${gsi}`, name]);
  return [
    formatTable(summary),
    `\n${style.bold("Memory map")}\n${formatTable(rangeRows(plan.memoryMap, 10), "  ")}`,
    `\n${style.bold("I/O ports")}\n${formatTable(rangeRows(plan.ports, 4), "  ")}`,
    `\n${style.bold("Interrupt lines")}\n${formatTable(interrupts, "  ")}`,
    `\n${style.bold("PCI functions")}\n${plan.functions.map((one) => formatFunction(one, style)).join("")}`,
  ].join("");
}
