import { at } from "./assembler-encoding.ts";
import { multibootImage } from "./multiboot-image.ts";
import { fresh } from "./program.ts";

const COM1 = 0x3f8;
/** Line status of a 16550A; bit 0: a byte has come. PC16550D §8.4 */
const COM1_LINE_STATUS = 0x3fd;
const DEBUG_EXIT = 0xf4;
/** ACPI sleep control: SLP_EN with the sleep type of S5. ACPI 6.5 §4.8.3.7 */
const SLEEP_CONTROL = 0x600;
const POWER_OFF = 0x34;

/** How a dialogue ends: ACPI power off, or a byte for the debug exit port. */
export type DialogueEnd = "powerOff" | { readonly debugExit: number };

/**
 * A guest that plays a shell on COM1: it prints a text, waits for a line, prints the next, and so on; then it ends.
 *
 * @param texts What it prints, in order. It waits for a line between two of them, and after the last if `readsLast`.
 */
export function dialogueGuest(texts: readonly string[], end: DialogueEnd, readsLast = false): Uint8Array {
  return multibootImage((a) => {
    const labels = texts.map(() => fresh("text"));
    a.cli().cld();
    texts.forEach((text, index) => {
      a.mov("esi", at(labels[index] ?? ""))
        .mov("ecx", text.length)
        .mov("edx", COM1)
        .rep()
        .outs(8);
      if (index === texts.length - 1 && !readsLast) return;
      const wait = fresh("wait");
      a.label(wait).mov("edx", COM1_LINE_STATUS).in("al", "dx").test("al", 1).j("e", wait);
      a.mov("edx", COM1).in("al", "dx").cmp("al", 10).j("ne", wait);
    });
    if (end === "powerOff") a.mov("edx", SLEEP_CONTROL).mov("al", POWER_OFF).out("dx", "al");
    else a.mov("al", end.debugExit).out(DEBUG_EXIT, "al");
    a.label("end").hlt().jmp("end");
    texts.forEach((text, index) => void a.label(labels[index] ?? "").ascii(text));
  }).bytes;
}
