import { type Gpa, gpa } from "../base/units.ts";

/**
 * Where a processor of the PC begins after a reset, and where an operating system jumps that asks the BIOS for one:
 * f000:fff0.
 */
export const RESET_VECTOR: Gpa = gpa(0xf_fff0);

/**
 * The code at the reset vector of a machine without a BIOS: in real mode, it writes the reset register.
 *
 * Linux on hardware-reduced ACPI without EFI reboots through the reset vector. It ignores the FADT reset register,
 * tries EFI, then jumps to f000:fff0.
 */
export function resetVectorCode(port: number, value: number): Uint8Array {
  return Uint8Array.of(
    ...[0xb0, value & 0xff], // mov al, value
    ...[0xba, port & 0xff, port >>> 8], // mov dx, port
    0xee, // out dx, al
    0xf4, // hlt
    ...[0xeb, 0xfd], // jmp back to the hlt
  );
}
