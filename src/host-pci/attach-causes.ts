import { join } from "node:path";
import { adviceOf, type Cause } from "../base/errors.ts";
import { HOST_ROOT, type HostRoot, textFile } from "./files.ts";

type ProcAndSys = Pick<HostRoot, "proc" | "sys">;

/** `unknown`: a container may hide the file. */
export type Remapping = "on" | "off" | "unknown";

/** What the errnos mean of a group's way into an address space. */
export interface AttachCauses {
  readonly EPERM: Cause;
  readonly EINVAL: Cause;
}

const SEE_LOG: Cause = ["TSVMM_VFIO_REFUSED", "the kernel's log says why: dmesg | grep -iE 'iommu|dmar|vfio'"];

/**
 * Memory that the firmware wants mapped for a group's devices at all times (Intel's RMRR, AMD's unity maps), as
 * "0x7b800000-0x7fffffff". The kernel gives no such device away; those it calls `direct-relaxable` it does.
 */
export function firmwareRanges(
  group: number | undefined,
  { sys }: Pick<HostRoot, "sys"> = HOST_ROOT,
): readonly string[] {
  const text = textFile(join(sys, "kernel/iommu_groups", String(group)), "reserved_regions") ?? "";
  return text.split("\n").flatMap((line) => {
    const [, start, end] = /^0x([0-9a-f]+) 0x([0-9a-f]+) direct$/i.exec(line.trim()) ?? [];
    return start === undefined || end === undefined ? [] : [`0x${shortHex(start)}-0x${shortHex(end)}`];
  });
}

const shortHex = (digits: string): string => digits.replace(/^0+(?=.)/, "");

/** The I/O APIC's interrupts go through remapping where it is on; /proc/interrupts, which all may read, says so. */
export function interruptRemapping({ proc }: Pick<HostRoot, "proc"> = HOST_ROOT): Remapping {
  const interrupts = textFile(proc, "interrupts") ?? "";
  if (/\bIR-/.test(interrupts)) return "on";
  return /\bIO-APIC/.test(interrupts) ? "off" : "unknown";
}

/** What the user can do about firmware's ranges, in the same words at preflight and when the kernel refuses. */
export const FIRMWARE_ADVICE: string = adviceOf("TSVMM_FIRMWARE_RANGES");

/**
 * The cause, for an errno that says none. Linux up to 6.4 answers EPERM for a device with firmware's ranges,
 * later ones EINVAL; EPERM is the answer to missing interrupt remapping too.
 *
 * @param hasOthers The address space has other groups in it already.
 */
export function attachCauses(group: number, hasOthers: boolean, root: ProcAndSys = HOST_ROOT): AttachCauses {
  const ranges = firmwareRanges(group, root);
  if (ranges.length > 0) {
    const cause = `the firmware reserves ${ranges.join(", ")} for the group's devices, which the kernel then keeps`;
    const firmware: Cause = ["TSVMM_FIRMWARE_RANGES", `${cause}: ${FIRMWARE_ADVICE}`];
    return { EPERM: firmware, EINVAL: firmware };
  }
  return {
    EPERM: interruptRemapping(root) === "off" ? "TSVMM_NO_INTERRUPT_REMAPPING" : SEE_LOG,
    EINVAL: hasOthers ? "TSVMM_IOMMU_MISMATCH" : SEE_LOG,
  };
}
