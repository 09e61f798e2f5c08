import type { MachineStatistics } from "../../src/vmm/machine-api.ts";
import type { MachinePlan } from "../../src/vmm/shared/plan.ts";

/** What both halves of the demo know: the one that drives the guest, and the one that tells the story. */

/** What the guest does with a card reader; other devices are only looked at. */
export interface CardResult {
  /** The card's file as the guest printed it. */
  readonly helloText: string;
  /** SHA-256 of the card's other file, as the guest computed it. */
  readonly randomSha256: string;
}

/** The parts of tsvmm's summary that the demo shows. */
export interface MachineSummary {
  readonly statistics: Pick<MachineStatistics, "accesses" | "exits" | "functions">;
  readonly plan: Pick<MachinePlan, "functions">;
}

/** What the demo saw of the guest. */
export interface DemoResult {
  readonly commandLine: string;
  readonly cpus: number;
  /** The guest's driver of the device; empty when it has none. */
  readonly driver: string;
  /** The guest's PCI functions: address, vendor:device, driver. */
  readonly functions: readonly string[];
  /** Lines of the guest's /proc/interrupts that belong to the device. */
  readonly interrupts: readonly string[];
  readonly card: CardResult | undefined;
  readonly status: number;
  readonly bootSeconds: number;
  readonly totalSeconds: number;
  /** What tsvmm wrote down by its option --summary; absent under another VMM. */
  readonly summary: MachineSummary | undefined;
  /** What the VMM said on its standard error. */
  readonly vmmLog: string;
}

/** The line of the documentation, to the letter; a shell expands the `~`. */
export const tsvmmCommandLine = (bdf: string): string =>
  "tsvmm --kernel ~/vmlinux --disk path=~/focal-server-cloudimg-amd64.raw --console off --serial tty --cmdline " +
  '"console=ttyS0 root=/dev/vda1 rw" ' +
  `--cpus 4 --memory size=512M --device path=/sys/bus/pci/devices/${bdf}/`;

/** What the card's file will hold that the guest writes. */
export const GUEST_TEXT = "Written by the guest through its own SD card driver";
