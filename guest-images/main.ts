/**
 * `npm run images [-- --update]`: builds the guest's kernel, initramfs and disk, and says where they are.
 * `--update` looks for newer Debian packages first.
 */
import { HostError } from "../src/base/errors.ts";
import { refreshLists } from "../tools/apt.ts";
import { ensurePrerequisites, IMAGE_PREREQUISITES } from "../tools/prerequisites.ts";
import { debianPackage } from "./debian-package.ts";
import { guestImages } from "./images.ts";
import { updateKernel } from "./kernel.ts";

const progress = (text: string): void => {
  process.stderr.write(`images: ${text}\n`);
};

try {
  await ensurePrerequisites(IMAGE_PREREQUISITES, progress);
  if (process.argv.includes("--update")) {
    await refreshLists(progress);
    await updateKernel(progress);
    await debianPackage("busybox-static", progress);
  }
  const images = await guestImages(progress);
  console.log(`kernel with built-in initramfs  ${images.vmlinux}`);
  console.log(`kernel, ELF                     ${images.kernel.vmlinux}`);
  console.log(`kernel, bzImage                 ${images.kernel.vmlinuz}`);
  console.log(`initramfs                       ${images.initramfs}`);
  console.log(`disk (copy it before use)       ${images.disk}`);
} catch (error) {
  if (!(error instanceof HostError)) throw error;
  console.error(`images: ${error.message}`);
  process.exitCode = 1;
}
