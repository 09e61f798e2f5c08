import { SpecError } from "../base/errors.ts";
import type { LoadPlan } from "../base/load-plan.ts";
import type { BootRequest } from "./boot-request.ts";
import { isBzImage, planBzImage } from "./bzimage.ts";
import { isElf, readElf } from "./elf.ts";
import { findMultibootHeader, planMultiboot } from "./multiboot.ts";
import { planPvh, pvhEntry } from "./pvh.ts";
import { unsupportedKernel } from "./unsupported.ts";

/**
 * Decides by its content how a kernel is booted, and plans it: what goes where, and how the boot processor starts.
 *
 * In this order: an ELF file with a PVH note, a Linux bzImage, a multiboot kernel (flat or ELF). Nothing is loaded yet.
 *
 * @throws SpecError with the path `kernel`, `initramfs`, `cmdline` or `memory.sizeBytes`: the file is not a kernel, is
 *   damaged, or something does not fit into memory.
 */
export function planBoot(request: BootRequest): LoadPlan {
  const { kernel } = request;
  if (kernel.sizeBytes === 0) throw new SpecError("TSVMM_FILE_EMPTY", "kernel", `${kernel.name} is empty`);
  if (isElf(kernel)) {
    const elf = readElf(kernel);
    const entry = pvhEntry(elf);
    if (entry !== undefined) return planPvh(request, elf, entry);
    const header = findMultibootHeader(kernel);
    if (header !== undefined) return planMultiboot(request, header, elf);
    throw new SpecError(
      "TSVMM_KERNEL_UNSUPPORTED",
      "kernel",
      `${kernel.name} has no PVH entry point: take a kernel built with CONFIG_PVH=y (distributions' kernels are), ` +
        "or its bzImage",
    );
  }
  if (isBzImage(kernel)) return planBzImage(request);
  const header = findMultibootHeader(kernel);
  if (header !== undefined) return planMultiboot(request, header, undefined);
  throw unsupportedKernel(kernel);
}
