import { DEVICE_ERRORS, type DeviceErrorCode } from "./devices.ts";
import type { ErrorEntry } from "./entry.ts";
import { HOST_ERRORS, type HostErrorCode } from "./host.ts";
import { INPUT_ERRORS, type InputErrorCode } from "./input.ts";

/**
 * The cause of an error, for programs: the same in all versions. Texts of errors may change. docs/reference/errors.md
 * explains each.
 */
export type ErrorCode = InputErrorCode | HostErrorCode | DeviceErrorCode;

/** Each code with what is said of it. */
export const ERRORS: Readonly<Record<ErrorCode, ErrorEntry>> = { ...INPUT_ERRORS, ...HOST_ERRORS, ...DEVICE_ERRORS };

/** True for the text of a code. */
export const isErrorCode = (text: string): text is ErrorCode => Object.hasOwn(ERRORS, text);

/** The sections of docs/reference/errors.md. */
export const ERROR_SECTIONS: readonly (readonly [title: string, codes: readonly ErrorCode[]])[] = [
  ["Command line, specification and images", codesOf(INPUT_ERRORS)],
  ["Host, disks and KVM", codesOf(HOST_ERRORS)],
  ["Passed-through devices", codesOf(DEVICE_ERRORS)],
];

// Cast: the tables have these keys and no others, by their type.
function codesOf(table: Readonly<Partial<Record<ErrorCode, ErrorEntry>>>): readonly ErrorCode[] {
  return Object.keys(table) as ErrorCode[];
}
