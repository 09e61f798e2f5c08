import type { Progress } from "../tools/apt.ts";
import type { Accelerator } from "./accelerator.ts";
import type { LabDevice } from "./devices.ts";

/** Statuses of a scenario behind which no other is run in the same nested host: EX_TEMPFAIL, and timeout(1)'s. */
export const LOST_STATUSES: readonly number[] = [75, 124, 137];

/** One thing to do in the nested host. */
export interface Scenario {
  /** Letters, digits, dots and hyphens. */
  readonly name: string;
  /** A bash script; `/lab` is the shared directory. Whatever it leaves running is killed at its end. */
  readonly script: string;
  readonly timeoutMs: number;
}

export interface LabOptions {
  readonly scenarios: readonly Scenario[];
  readonly devices: readonly LabDevice[];
  /** Directory both sides can write to, made when absent; `/lab` in the nested host. It is kept. */
  readonly shareDirectory: string;
  /** For everything: boot, scenarios, power off. */
  readonly timeoutMs: number;
  /** Chosen by what this machine can do when absent. */
  readonly accelerator?: Accelerator;
  /** 2 when absent. */
  readonly cpus?: number;
  /** 4096 when absent. */
  readonly memoryMib?: number;
  /** `vfio` (the default) gives each device to vfio-pci before the first scenario. */
  readonly drivers?: "vfio" | "none";
  /** Takes what a scenario prints, as it comes. */
  readonly onOutput?: (bytes: Buffer, scenario: string) => void;
  readonly onProgress?: Progress;
  /** Ends the run: the nested host is switched off at once. */
  readonly signal?: AbortSignal;
}

export interface ScenarioResult {
  readonly name: string;
  /** Exit status; 124 and 137 when its time was up. */
  readonly status: number;
  /** What it printed, standard output and standard error in order. */
  readonly output: string;
  readonly seconds: number;
}

export interface LabResult {
  readonly accelerator: Accelerator;
  /** From QEMU's start until the first scenario. */
  readonly bootSeconds: number;
  readonly totalSeconds: number;
  readonly scenarios: readonly ScenarioResult[];
  /** The nested host's kernel messages. */
  readonly consoleLog: string;
}
