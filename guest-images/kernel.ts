import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { dependencyOf, type Progress, refreshLists } from "../tools/apt.ts";
import { cached } from "../tools/cache.ts";
import { runProgram } from "../tools/program.ts";
import { ToolError } from "../tools/tool-error.ts";
import { debianPackage, newestCachedPackage, type UnpackedPackage } from "./debian-package.ts";

/** A stock Debian kernel, ready to be given to a VMM. */
export interface Kernel {
  /** As `uname -r` says it. */
  readonly release: string;
  readonly packageVersion: string;
  /** The bzImage as Debian ships it. */
  readonly vmlinuz: string;
  /** The ELF inside: a PVH kernel that needs no decompression in the guest. */
  readonly vmlinux: string;
  /** The directory `lib/modules/<release>`, with `modules.dep` and `modules.alias`. */
  readonly modules: string;
}

const KERNEL_PACKAGE = /^linux-image-\d[\d.+~-]*-amd64$/;

/**
 * Answers Debian's kernel for 64-bit PCs: the cache's newest. An empty cache gets the current one, downloaded and
 * unpacked (70 MB, half a minute).
 *
 * @throws ToolError when the cache holds none and apt knows none.
 */
export async function debianKernel(progress: Progress): Promise<Kernel> {
  const unpacked = newestCachedPackage(KERNEL_PACKAGE) ?? (await updateKernel(progress));
  const release = readdirSync(join(unpacked.directory, "boot"))
    .find((entry) => entry.startsWith("vmlinuz-"))
    ?.slice("vmlinuz-".length);
  if (release === undefined) throw new ToolError(`Cannot use ${unpacked.name}: it holds no boot/vmlinuz`);
  const vmlinuz = join(unpacked.directory, "boot", `vmlinuz-${release}`);
  const prepared = await cached(join("kernels", `${release}_${unpacked.version}`), async (partial) => {
    progress(`unpacking the kernel ${release}: the ELF inside the bzImage, and the list of module dependencies`);
    writeFileSync(join(partial, "vmlinux"), await unpackBzImage(readFileSync(vmlinuz)));
    // depmod writes beside the modules; the package's own directory stays as it came.
    await runProgram("cp", ["-al", join(unpacked.directory, "lib"), partial]);
    await runProgram("depmod", ["-b", partial, release]);
  });
  return {
    release,
    packageVersion: unpacked.version,
    vmlinuz,
    vmlinux: join(prepared, "vmlinux"),
    modules: join(prepared, "lib/modules", release),
  };
}

/** Downloads the current kernel unless the cache has it. */
export async function updateKernel(progress: Progress): Promise<UnpackedPackage> {
  const current = (): Promise<string | undefined> => dependencyOf("linux-image-amd64", KERNEL_PACKAGE);
  // A fresh machine has no lists yet.
  const name = (await current()) ?? ((await refreshLists(progress)) ? await current() : undefined);
  if (name === undefined) {
    throw new ToolError("Cannot find a Debian kernel: apt knows no linux-image-amd64", "run apt-get update as root");
  }
  return await debianPackage(name, progress);
}

/** Fields of the bzImage's setup header. Linux Documentation/arch/x86/boot.rst, boot protocol 2.08 and later. */
const SETUP_HEADER = {
  setup_sects: 0x1f1,
  header: 0x202,
  version: 0x206,
  payload_offset: 0x248,
  payload_length: 0x24c,
};

/**
 * Answers the ELF kernel that a bzImage carries compressed.
 *
 * @throws ToolError when the bytes are no bzImage, or compressed in a way that is not understood here.
 */
export async function unpackBzImage(image: Buffer): Promise<Buffer> {
  const isBzImage =
    image.length > 0x250 && image.toString("latin1", SETUP_HEADER.header, SETUP_HEADER.header + 4) === "HdrS";
  if (!isBzImage || image.readUInt16LE(SETUP_HEADER.version) < 0x208) {
    throw new ToolError("Cannot unpack the kernel: it is no bzImage of boot protocol 2.08 or later");
  }
  // 0 stands for 4 for the sake of very old kernels; one more sector is the boot sector itself.
  const setupSectors = (image.readUInt8(SETUP_HEADER.setup_sects) || 4) + 1;
  const start = setupSectors * 512 + image.readUInt32LE(SETUP_HEADER.payload_offset);
  // The last four bytes are the unpacked length, appended by the kernel's build.
  const payload = image.subarray(start, start + image.readUInt32LE(SETUP_HEADER.payload_length) - 4);
  const magic = payload.toString("hex", 0, 4);
  const elf =
    magic === "fd377a58"
      ? await runProgram("xz", ["-dc", "--single-stream"], { input: payload })
      : magic === "28b52ffd"
        ? await runProgram("zstd", ["-dcq"], { input: payload })
        : magic.startsWith("1f8b")
          ? gunzipSync(payload)
          : undefined;
  if (elf === undefined) throw new ToolError(`Cannot unpack the kernel: compression with magic ${magic} is not known`);
  if (elf.toString("latin1", 0, 4) !== "\x7fELF")
    throw new ToolError("Cannot unpack the kernel: its payload is no ELF");
  return elf;
}
