import { hex, type Width } from "../base/units.ts";
import {
  KVM_EXIT,
  KVM_INTERNAL_ERROR,
  KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES,
  KVM_SYSTEM_EVENT,
  RUN,
} from "./abi-run.ts";
import type { RunPage } from "./run-page.ts";

/** Why KVM_RUN came back, as an object for logs and tests; the run loop uses {@link RunPage}'s getters. KVM API §5 */
export type VcpuExit =
  | { readonly kind: "portRead"; readonly port: number; readonly width: Width; readonly count: number }
  | { readonly kind: "portWrite"; readonly port: number; readonly width: Width; readonly values: readonly number[] }
  | { readonly kind: "mmioRead"; readonly address: number; readonly length: number }
  | {
      readonly kind: "mmioWrite";
      readonly address: number;
      readonly length: number;
      readonly low: number;
      readonly high: number;
    }
  | { readonly kind: "halt" }
  | { readonly kind: "shutdown" } // triple fault
  | { readonly kind: "systemEvent"; readonly type: number }
  | { readonly kind: "failEntry"; readonly reason: bigint }
  | {
      readonly kind: "internalError";
      readonly suberror: number;
      readonly data: readonly bigint[];
      /** What KVM could not emulate, where it says. */
      readonly instruction: Uint8Array | undefined;
    }
  | { readonly kind: "unhandled"; readonly reason: number };

/** The exit reason's C name. */
export function exitName(reason: number): string {
  return nameOf(KVM_EXIT, "KVM_EXIT_", reason);
}

/** Copies the exit out of the run page. */
export function decodeExit(page: RunPage): VcpuExit {
  const reason = page.exitReason;
  switch (reason) {
    case KVM_EXIT.IO: {
      const { ioPort: port, ioWidth: width, ioCount: count } = page;
      if (!page.ioIsWrite) return { kind: "portRead", port, width, count };
      return { kind: "portWrite", port, width, values: Array.from({ length: count }, (_, i) => page.ioData(i)) };
    }
    case KVM_EXIT.MMIO: {
      const { mmioAddress: address, mmioLength: length } = page;
      if (!page.mmioIsWrite) return { kind: "mmioRead", address, length };
      return { kind: "mmioWrite", address, length, low: page.mmioDataLow, high: page.mmioDataHigh };
    }
    case KVM_EXIT.HLT:
      return { kind: "halt" };
    case KVM_EXIT.SHUTDOWN:
      return { kind: "shutdown" };
    case KVM_EXIT.SYSTEM_EVENT:
      return { kind: "systemEvent", type: page.systemEventType };
    case KVM_EXIT.FAIL_ENTRY:
      return { kind: "failEntry", reason: page.failEntryReason };
    case KVM_EXIT.INTERNAL_ERROR:
      return {
        kind: "internalError",
        suberror: page.internalSuberror,
        data: page.internalData(),
        instruction: failedInstruction(page),
      };
    default:
      return { kind: "unhandled", reason };
  }
}

/** An exit as one line of text: what the guest did, or KVM's error. */
export function describeExit(page: RunPage): string {
  const exit = decodeExit(page);
  switch (exit.kind) {
    case "portRead":
      return `read of ${exit.count} × ${exit.width} bytes from port ${hex(exit.port)}`;
    case "portWrite":
      return `write of ${exit.values.map(hex).join(", ")} (${exit.width} bytes each) to port ${hex(exit.port)}`;
    case "mmioRead":
      return `read of ${exit.length} bytes at ${hex(exit.address)}`;
    case "mmioWrite":
      return `write of ${exit.length} bytes at ${hex(exit.address)}: low ${hex(exit.low)}, high ${hex(exit.high)}`;
    case "halt":
      return "halt (KVM_EXIT_HLT)";
    case "shutdown":
      return "triple fault (KVM_EXIT_SHUTDOWN)";
    case "systemEvent":
      return `system event ${nameOf(KVM_SYSTEM_EVENT, "KVM_SYSTEM_EVENT_", exit.type)}`;
    case "failEntry":
      return `the processor refused to enter the guest (KVM_EXIT_FAIL_ENTRY, hardware reason ${hex(exit.reason)})`;
    case "internalError": {
      const name = nameOf(KVM_INTERNAL_ERROR, "KVM_INTERNAL_ERROR_", exit.suberror);
      const detail =
        exit.instruction !== undefined
          ? `, instruction ${[...exit.instruction].map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}`
          : `, data ${exit.data.map(hex).join(" ") || "none"}`;
      return `KVM could not go on (KVM_EXIT_INTERNAL_ERROR, ${name}${detail})`;
    }
    case "unhandled":
      return `exit ${exitName(exit.reason)}`;
    default:
      return exit satisfies never;
  }
}

/** Bytes at the guest's instruction pointer; kernels before 5.15 do not give them. */
function failedInstruction(page: RunPage): Uint8Array | undefined {
  if (page.internalSuberror !== KVM_INTERNAL_ERROR.EMULATION) return undefined;
  const [flags = 0n, sizeWord = 0n] = page.internalData();
  if ((flags & BigInt(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) === 0n) return undefined;
  const size = Math.min(Number(sizeWord & 0xffn), 15); // the struct has room for 15
  return page.bytes(RUN["emulation_failure.insn_bytes"], size);
}

function nameOf(table: Readonly<Record<string, number>>, prefix: string, value: number): string {
  for (const [name, number] of Object.entries(table)) if (number === value) return prefix + name;
  return `${prefix}${value}`;
}
