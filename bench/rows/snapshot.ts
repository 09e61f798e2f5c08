import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { Machine } from "../../src/index.ts";
import { missingKvm } from "../measure/contenders.ts";
import { compare, interleave, withAim } from "../measure/interleave.ts";
import type { Row } from "../measure/row.ts";
import { median } from "../measure/samples.ts";

/** Host bridge, random number generator, and these: ten functions. */
const DISKS = 8;
const SNAPSHOTS = 50;
const AIM_MS = 5;

/** Reads the UART's line status without end, so that the device thread has work meanwhile. */
function pollingGuest(): Uint8Array {
  return multibootImage((a) => a.mov("edx", 0x3fd).label("again").in("al", "dx").jmp("again"), 0x4000).bytes;
}

export const snapshot: Row = {
  name: "snapshot",
  meaning:
    "machine.snapshot() of a machine with ten functions, from the call to the answer, while its guest traps " +
    "without pause. It runs in this " +
    "process, by the typed API.",
  missing: missingKvm,
  async run(context) {
    const kernel = join(context.folder, "polling.elf");
    writeFileSync(kernel, pollingGuest());
    const disks = Array.from({ length: DISKS }, (_, index) => {
      const path = join(context.folder, `snapshot${index}.raw`);
      writeFileSync(path, Buffer.alloc(1 << 20));
      return { path };
    });
    await using machine = await Machine.start({ kernel, memory: { sizeBytes: 64 << 20 }, disks });
    const whole = async (): Promise<{ whole: number }> => {
      const times: number[] = [];
      for (let count = 0; count < SNAPSHOTS; count++) {
        const started = performance.now();
        await machine.snapshot();
        times.push(performance.now() - started);
      }
      return { whole: median(times) };
    };
    const samples = await interleave(context, { tsvmm: whole });
    const line = compare(samples, "tsvmm", "whole", { what: "snapshot of 10 functions", unit: "ms" });
    context.add(withAim(line, `under ${AIM_MS} ms`, line.value.median < AIM_MS));
  },
};
