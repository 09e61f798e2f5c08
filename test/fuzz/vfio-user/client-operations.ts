import type { Width } from "../../../src/base/units.ts";

/** What a message of the played client brings along. */
export type FileKind = "ram" | "short" | "event" | "pipe" | "null" | "folder";

/** What the played client does when the server asks for its memory. */
export type AnswerKind = "well" | "short" | "long" | "error" | "other" | "commands" | "silence" | "hangUp";

/** One step of a client of the device server. Numbers of 64 bits are two words, the low one first. */
export type Operation =
  /** The device that is served; NVMe where none is named. At the start of a run only. */
  | { readonly op: "device"; readonly kind: "nvme" | "edu" }
  /** A whole message. */
  | {
      readonly op: "send";
      readonly command: number;
      readonly words: readonly number[];
      readonly text?: string;
      readonly files?: readonly FileKind[];
      readonly noReply?: true;
      /** A reply to nothing. */
      readonly reply?: true;
    }
  /** REGION_WRITE of one register, which is what clients send most. */
  | {
      readonly op: "write";
      readonly region: number;
      readonly offset: number;
      readonly width: Width;
      readonly value: number;
      readonly noReply: boolean;
    }
  /** Bytes that are no message, or some of one. */
  | { readonly op: "raw"; readonly words: readonly number[]; readonly count: number }
  /** The guest stores words to its memory. */
  | { readonly op: "ram"; readonly at: number; readonly words: readonly number[] }
  | { readonly op: "answers"; readonly how: AnswerKind }
  /** The event loop of the server comes round. */
  | { readonly op: "turn" }
  /** The client hangs up, and another one comes. */
  | { readonly op: "reconnect" };

/** What an operation is counted under: messages only. */
export function kindOf(operation: Operation): string | undefined {
  if (operation.op === "write") return "register writes";
  if (operation.op === "raw") return "fragments";
  return operation.op === "send" ? "commands" : undefined;
}
