import type { Bus } from "../../base/bus.ts";
import { hex } from "../../base/units.ts";
import { EXTENDED_RULES, STANDARD_RULES } from "../../passthrough/capability-table.ts";
import type { PassthroughSummary } from "../../passthrough/summary.ts";
import { formatBdf } from "../../pci/bdf.ts";
import type { ConfigSpace } from "../../pci/config-space.ts";
import { PCI_CLASS_REVISION, PCI_DEVICE_ID, PCI_INTERRUPT_PIN, PCI_VENDOR_ID } from "../../pci/ids.ts";
import type { PciRoot, PluggedFunction } from "../../pci/root.ts";
import { VirtioPciFunction } from "../../virtio/pci-transport.ts";
import type { PlanBarPart } from "../shared/plan.ts";
import type { ResolvedMachine } from "../shared/resolved-machine.ts";
import type {
  BarSnapshot,
  BusRangeSnapshot,
  CapabilitySnapshot,
  CharSnapshot,
  DeviceSnapshot,
  FunctionSnapshot,
  PassthroughSnapshot,
} from "../shared/snapshot.ts";
import type { CharDevices } from "./char-devices.ts";
import type { Disks } from "./disks.ts";
import { barParts } from "./passed/function-facts.ts";
import type { PassedFunction, PassedFunctions } from "./passed/passed-functions.ts";
import type { Wires } from "./wires.ts";

/** What a snapshot looks at. */
export interface SnapshotParts {
  readonly machine: ResolvedMachine;
  readonly root: PciRoot;
  readonly ports: Bus;
  readonly mmio: Bus;
  readonly wires: Pick<Wires, "inspect">;
  readonly passed: Pick<PassedFunctions, "of">;
  readonly characters: Pick<CharDevices, "ptyPaths">;
  readonly disks: Pick<Disks, "backend">;
}

/** Takes a snapshot of everything on the device thread. Nothing that it reads has an effect, and no device is asked. */
export function takeSnapshot(parts: SnapshotParts): DeviceSnapshot {
  const { machine, root, ports, mmio, wires, passed, characters, disks } = parts;
  return {
    functions: root.functions.map((plugged) => functionSnapshot(plugged, root, passed.of(plugged.function))),
    ports: rangesOf(ports),
    mmio: rangesOf(mmio),
    ...wires.inspect(),
    characters: (["serial", "console"] as const).map((channel): CharSnapshot => {
      const spec = machine[channel];
      const path = "path" in spec ? spec.path : characters.ptyPaths.get(channel);
      return { channel, kind: spec.kind, ...(path === undefined ? {} : { path }) };
    }),
    disks: machine.disks.map((disk) => {
      const { sizeBytes, blockSizeBytes, supportsDiscard } = disks.backend(disk.id);
      return { ...disk, sizeBytes, blockSizeBytes, supportsDiscard };
    }),
  };
}

const rangesOf = (bus: Bus): readonly BusRangeSnapshot[] =>
  bus.ranges.map(({ base, sizeBytes, device, accesses }) => ({
    name: device.name,
    address: base,
    sizeBytes,
    accesses,
  }));

function functionSnapshot(
  plugged: PluggedFunction,
  root: PciRoot,
  passed: PassedFunction | undefined,
): FunctionSnapshot {
  const { bdf, function: fn } = plugged;
  const { config } = fn;
  const classAndRevision = config.get32(PCI_CLASS_REVISION);
  const pin = config.get8(PCI_INTERRUPT_PIN);
  const summary = passed?.function.summary();
  return {
    bdf: formatBdf(bdf).replace(/^0000:/, ""),
    name: fn.name,
    ...(passed === undefined ? {} : { id: passed.id }),
    vendorId: config.get16(PCI_VENDOR_ID),
    deviceId: config.get16(PCI_DEVICE_ID),
    classCode: classAndRevision >>> 8,
    revision: classAndRevision & 0xff,
    bars: barsOf(plugged, summary),
    config: config.peek(),
    capabilities: capabilitiesOf(config),
    ...(pin >= 1 && pin <= 4 ? { intx: { pin, gsi: root.interruptGsi(bdf.device, pin) } } : {}),
    vectors: fn.inspectVectors?.() ?? {},
    ...(fn instanceof VirtioPciFunction ? { virtio: fn.inspect() } : {}),
    ...(summary === undefined ? {} : { passthrough: withoutBars(summary) }),
  };
}

function withoutBars({ bars: _, ...rest }: PassthroughSummary): PassthroughSnapshot {
  return rest;
}

function barsOf({ bars, isDecoded }: PluggedFunction, summary: PassthroughSummary | undefined): readonly BarSnapshot[] {
  return bars.requests.map((request): BarSnapshot => {
    const { index, kind, sizeBytes } = request;
    const address = bars.address(request);
    const passed = summary?.bars.find((bar) => bar.index === index);
    const parts = passed === undefined ? [emulated(sizeBytes)] : barParts(passed);
    return {
      index,
      kind,
      sizeBytes,
      ...(address === undefined ? {} : { address }),
      isDecoded: isDecoded(index),
      slots: passed?.slots ?? [],
      trapped: parts
        .filter(({ way }) => way === "trapped")
        .map(({ offset, sizeBytes: bytes, reason = "" }) => ({ offset, sizeBytes: bytes, reason })),
    };
  });
}

const emulated = (sizeBytes: number): PlanBarPart => ({
  offset: 0,
  sizeBytes,
  way: "trapped",
  reason: "an emulated device",
});

function capabilitiesOf(config: ConfigSpace): readonly CapabilitySnapshot[] {
  const standard = config.capabilities().map((offset): CapabilitySnapshot => {
    const id = config.get8(offset);
    return { id, name: STANDARD_RULES.get(id)?.name ?? `capability ${hex(id)}`, offset, isExtended: false };
  });
  const extended = config.extendedCapabilities().map((offset): CapabilitySnapshot => {
    const id = config.get16(offset);
    const name = EXTENDED_RULES.get(id)?.name ?? `extended capability ${hex(id)}`;
    return { id, name, offset, isExtended: true };
  });
  return [...standard, ...extended];
}
