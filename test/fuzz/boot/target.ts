import type { LoadPlan } from "../../../src/base/load-plan.ts";
import { gpa } from "../../../src/base/units.ts";
import type { BootRequest } from "../../../src/boot/boot-request.ts";
import { planBoot } from "../../../src/boot/plan-boot.ts";
import { layoutMemory } from "../../../src/vmm/control/memory-layout.ts";
import { judgeRefusal } from "../../support/refusals.ts";
import { makeTarget, type Target } from "../engine/target.ts";
import { generate } from "./generator.ts";
import { counted, kernelFile } from "./images.ts";
import { judgePlan } from "./judge.ts";
import type { Operation } from "./operations.ts";

const KERNELS_A_RUN = 250;
/** A plan reads headers, tables and notes, and no kernel has more than this of them. */
const MOST_BYTES_READ = 8 * 2 ** 20;
const OPTIONS = ["kernel", "initramfs", "cmdline", "memory.sizeBytes"];

/** @returns What is wrong with how one start is planned or refused. */
function plan(operation: Operation): string | undefined {
  const kernel = kernelFile("kernel", operation);
  const { initramfsBytes, memoryBytes, addressBits } = operation;
  let layout: ReturnType<typeof layoutMemory>;
  try {
    layout = layoutMemory(memoryBytes, { bits: addressBits, isAmd: false });
  } catch (error) {
    return judgeRefusal(error, ["memory.sizeBytes"]);
  }
  const request: BootRequest = {
    kernel,
    cmdline: "c".repeat(operation.cmdlineBytes),
    ramRegions: layout.ram,
    memoryMap: layout.map,
    rsdp: gpa(0xe_0000),
    ...(initramfsBytes === undefined ? {} : { initramfs: counted("initramfs", new Uint8Array(0), initramfsBytes) }),
  };
  let planned: LoadPlan;
  try {
    planned = planBoot(request);
  } catch (error) {
    return judgeRefusal(error, OPTIONS);
  }
  if (kernel.readBytes() > MOST_BYTES_READ) return `${kernel.readBytes()} bytes of the kernel were read`;
  return judgePlan(planned, request);
}

/**
 * Damaged kernels with command lines and initramfs: planned within RAM and without overlaps, or refused in one line.
 */
export const bootTarget = (): Target =>
  makeTarget<Operation>({
    name: "boot",
    about: "damaged kernels: ELF, bzImage, multiboot, with command lines and initramfs",
    unit: "kernels",
    generate: (random) => generate(random, KERNELS_A_RUN),
    run: (operations) => {
      for (const [index, operation] of operations.entries()) {
        const wrong = plan(operation);
        if (wrong !== undefined) return `kernel ${index}: ${wrong}`;
      }
      return undefined;
    },
    kind: ({ image }) => image.kind,
  });
