import type { Clock, Report } from "../../base/backends.ts";
import type { Bus, BusDevice } from "../../base/bus.ts";
import type { GuestRam } from "../../host/memory/guest-ram.ts";
import { CONFIG_PORTS_SIZE, ConfigPorts, Ecam } from "../../pci/host-bridge.ts";
import type { PciRoot } from "../../pci/root.ts";
import { ACPI_PM_SIZE, AcpiPm } from "../../platform/acpi-pm.ts";
import { PostCodePort } from "../../platform/debug-port.ts";
import { I8042, I8042_SIZE } from "../../platform/i8042.ts";
import { CMOS_SIZE, RtcCmos } from "../../platform/rtc-cmos.ts";
import { ECAM, GSIS, HIGH_RAM_BASE, PORTS } from "../shared/memory-map.ts";
import type { GuestEvent } from "../shared/messages.ts";
import type { MachineSpec } from "../spec/spec.ts";
import { attachDebugExit, attachTestDevice } from "./test-ports.ts";
import type { Wires } from "./wires.ts";

/** What every machine has beside the devices of its specification is wired to this. */
export interface PlatformParts {
  readonly ports: Bus;
  readonly mmio: Bus;
  readonly root: PciRoot;
  readonly wires: Wires;
  readonly memory: GuestRam;
  readonly report: Report;
  readonly onGuestEvent: (event: GuestEvent) => void;
  /** The guest lets go of a slot. */
  readonly ejectSlot: (slot: number) => void;
}

const clock: Clock = { monotonicNs: () => process.hrtime.bigint(), wallMs: () => Date.now() };

/** Keyboard controller, clock, ACPI and the ways into configuration space. */
export function attachPlatform(parts: PlatformParts): AcpiPm {
  const { ports, mmio, root, wires, memory, report, onGuestEvent, ejectSlot } = parts;
  const reset = (): void => onGuestEvent({ kind: "reset" });
  const attach = (base: number, size: number, device: BusDevice): void => void ports.attach(base, size, device);
  const [low] = memory.regions;
  const highBytes = memory.regions
    .filter(({ gpa }) => gpa >= HIGH_RAM_BASE)
    .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  attach(PORTS.keyboard, I8042_SIZE, new I8042(reset));
  attach(PORTS.rtc, CMOS_SIZE, new RtcCmos(clock, { lowBytes: low?.sizeBytes ?? 0, highBytes }));
  attach(PORTS.postCode, 1, new PostCodePort());
  const powerOff = (): void => onGuestEvent({ kind: "powerOff" });
  const line = wires.line(GSIS.acpiEvents, "ACPI events");
  const pm = new AcpiPm(clock, line, { powerOff, reset, ejectSlot }, report);
  attach(PORTS.acpi, ACPI_PM_SIZE, pm);
  attach(PORTS.pciConfig, CONFIG_PORTS_SIZE, new ConfigPorts(root));
  // Both only choose what the next access is about.
  wires.coalesced?.coalesce(PORTS.pciConfig, 4);
  wires.coalesced?.coalesce(PORTS.rtc, 1);
  mmio.attach(ECAM.base, ECAM.sizeBytes, new Ecam(root));
  return pm;
}

/**
 * The ports that test suites want; after all other devices, since the user chooses one of the ports.
 *
 * @throws SpecError when something is there.
 */
export function attachTestPorts(
  { hasTestDevice, debugExitPort }: Pick<MachineSpec, "hasTestDevice" | "debugExitPort">,
  parts: PlatformParts,
  print: (byte: number) => void,
): void {
  const { ports, mmio, memory, wires, report, onGuestEvent } = parts;
  if (hasTestDevice) attachTestDevice({ ports, mmio, memory, line: wires.line, print, report });
  if (debugExitPort !== undefined)
    attachDebugExit(ports, debugExitPort, (value) => onGuestEvent({ kind: "debugExit", value }));
}
