import type { Bus } from "../../base/bus.ts";
import { formatBdf } from "../../pci/bdf.ts";
import { dumpRoot } from "../../pci/dump.ts";
import { PCI_DEVICE_ID, PCI_VENDOR_ID } from "../../pci/ids.ts";
import type { PciRoot, PluggedFunction } from "../../pci/root.ts";
import { GSIS, type MemoryLayout, pciPortWindows } from "../shared/memory-map.ts";
import type { MachinePlan, PlanDma, PlanFunction, PlanRange } from "../shared/plan.ts";
import type { MachineSpec } from "../spec/spec.ts";
import { interruptTexts } from "./passed/function-facts.ts";
import type { PassthroughDescription } from "./passed/passed-functions.ts";

export interface BoardDescription {
  readonly spec: MachineSpec;
  readonly layout: MemoryLayout;
  readonly ports: Bus;
  readonly mmio: Bus;
  readonly root: PciRoot;
  readonly passthrough: (plugged: PluggedFunction) => PassthroughDescription | undefined;
  readonly dma: PlanDma | undefined;
}

/** Describes a board for a dry run; the control thread adds the boot protocol, since it loads the kernel. */
export function describeBoard(board: BoardDescription): MachinePlan {
  const { spec, layout, ports, mmio, root, dma } = board;
  const ranges = (bus: Bus): PlanRange[] =>
    bus.ranges.map(({ base, sizeBytes, device }) => ({ name: device.name, address: base, sizeBytes }));
  const window = (name: string, { base, sizeBytes }: { base: number; sizeBytes: number }): PlanRange => ({
    name,
    address: base,
    sizeBytes,
  });
  const memoryMap = [
    ...layout.map.map(({ address, sizeBytes, kind }) => ({ name: kind === "ram" ? "RAM" : kind, address, sizeBytes })),
    window("PCI window, 32-bit", layout.pciWindow32),
    ...layout.pciWindows64.map((one) => window("PCI window, 64-bit", one)),
    ...ranges(mmio),
  ];
  const byAddress = (a: PlanRange, b: PlanRange): number => a.address - b.address || b.sizeBytes - a.sizeBytes;
  return {
    cpuCount: spec.cpus.count,
    memoryBytes: spec.memory.sizeBytes,
    kernel: spec.kernel,
    ...(spec.initramfs === undefined ? {} : { initramfs: spec.initramfs }),
    cmdline: spec.cmdline,
    memoryMap: memoryMap.sort(byAddress),
    ports: [
      ...ranges(ports),
      ...pciPortWindows(spec.hasTestDevice).map((range) => window("PCI window, ports", range)),
    ].sort(byAddress),
    functions: root.functions.map((plugged) => describeFunction(plugged, root, board.passthrough(plugged))),
    interrupts: [
      ...(spec.serial.kind === "off" ? [] : [{ gsi: GSIS.com1, name: "COM1" }]),
      { gsi: GSIS.acpiEvents, name: "ACPI events" },
    ],
    ...(dma === undefined ? {} : { dma }),
    configDump: dumpRoot(root),
  };
}

function describeFunction(
  plugged: PluggedFunction,
  root: PciRoot,
  passed: PassthroughDescription | undefined,
): PlanFunction {
  const { bdf, function: fn, bars } = plugged;
  const id = (offset: number): string => fn.config.get16(offset).toString(16).padStart(4, "0");
  const identity = `[${id(PCI_VENDOR_ID)}:${id(PCI_DEVICE_ID)}]`;
  return {
    bdf: formatBdf(bdf).replace(/^0000:/, ""),
    id: fn.name,
    title: passed === undefined ? identity : `host ${passed.hostAddress} ${identity}`,
    interrupts: interruptTexts(fn.config, (pin) => root.interruptGsi(bdf.device, pin)).join("; ") || "none",
    bars: bars.requests.map((request) => {
      const address = bars.address(request);
      return {
        index: request.index,
        kind: request.kind,
        sizeBytes: request.sizeBytes,
        ...(address === undefined ? {} : { address }),
        parts: passed?.parts(request.index) ?? [
          { offset: 0, sizeBytes: request.sizeBytes, way: "trapped", reason: "an emulated device" },
        ],
      };
    }),
  };
}
