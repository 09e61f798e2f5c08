import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { openError, SpecError } from "../../base/errors.ts";
import type { ImageFile, LoadPlan } from "../../base/load-plan.ts";
import { fd, gpa } from "../../base/units.ts";
import { planBoot } from "../../boot/plan-boot.ts";
import type { GuestRam } from "../../host/memory/guest-ram.ts";
import { ACPI_TABLES, type MemoryLayout } from "../shared/memory-map.ts";
import type { MachineSpec } from "../spec/spec.ts";

/** A file on the host as the boot code reads it. */
interface OpenImage extends ImageFile {
  readonly descriptor: number;
}

function openImage(option: string, path: string): OpenImage {
  let descriptor: number;
  try {
    // Nonblocking: what was a regular file when the command line was checked may be a named pipe by now.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    throw openError(option, path, error);
  }
  const status = fstatSync(descriptor);
  if (!status.isFile()) {
    closeSync(descriptor);
    throw new SpecError(
      "TSVMM_FILE_KIND",
      option,
      `Cannot read ${path}: it is ${status.isDirectory() ? "a directory" : "not a regular file"}`,
    );
  }
  return {
    name: path,
    descriptor,
    sizeBytes: status.size,
    read(offset, sizeBytes) {
      const bytes = new Uint8Array(Math.max(0, Math.min(sizeBytes, status.size - offset)));
      return bytes.subarray(0, readSync(descriptor, bytes, 0, bytes.length, offset));
    },
  };
}

/**
 * Puts kernel and initramfs into RAM, as the kernel's boot protocol wants them.
 *
 * @returns What was planned; its `start` is the boot processor's first state.
 * @throws SpecError when an image cannot be booted.
 */
export function loadImages(spec: MachineSpec, ram: GuestRam, layout: MemoryLayout): LoadPlan {
  const images = new Map<ImageFile, OpenImage>();
  const open = (option: string, path: string): OpenImage => {
    const image = openImage(option, path);
    images.set(image, image);
    return image;
  };
  try {
    const plan = planBoot({
      kernel: open("kernel", spec.kernel),
      ...(spec.initramfs === undefined ? {} : { initramfs: open("initramfs", spec.initramfs) }),
      cmdline: spec.cmdline,
      ramRegions: layout.ram,
      memoryMap: layout.map,
      rsdp: ACPI_TABLES.base,
    });
    for (const segment of plan.segments) {
      const image = images.get(segment.file);
      if (image === undefined) continue;
      ram.readFile(fd(image.descriptor), segment.fileOffset, segment.address, segment.sizeBytes);
      ram.fill(gpa(segment.address + segment.sizeBytes), segment.memoryBytes - segment.sizeBytes);
    }
    for (const write of plan.writes) ram.write(write.address, write.bytes);
    return plan;
  } finally {
    for (const image of images.values()) closeSync(image.descriptor);
  }
}
