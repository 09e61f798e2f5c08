import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MIB } from "../src/base/units.ts";
import type { Progress } from "../tools/apt.ts";
import { BUILD_VERSION, cached, fingerprint, projectRoot } from "../tools/cache.ts";
import { type DiskFile, writeGuestDisk } from "./disk.ts";
import { buildInitramfs, staticBusybox } from "./initramfs.ts";
import { debianKernel, type Kernel } from "./kernel.ts";
import { bundleInitramfs } from "./pvh-bundle.ts";

/** Everything a guest boots from, as paths. */
export interface GuestImages {
  readonly kernel: Kernel;
  /** Debian's kernel with our initramfs built in: boots from a disk without `--initramfs`. */
  readonly vmlinux: string;
  /** The initramfs alone, for `kernel.vmlinux` and `kernel.vmlinuz`. */
  readonly initramfs: string;
  /** A raw disk: MBR, one ext4 partition, busybox; a shell on the console. Copy it before a guest writes to it. */
  readonly disk: string;
}

/** Drivers and file systems in the guest's initramfs; the ones a machine has are loaded. */
export const GUEST_MODULES: readonly string[] = [
  ...["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "af_packet"],
  ...["ext4", "crc32c_generic", "crc32c_intel", "vfat", "nls_cp437", "nls_ascii", "nls_utf8"],
  ...["sdhci_pci", "mmc_block", "nvme", "ahci", "sd_mod", "xhci_pci", "usb_storage", "usbhid"],
  ...["e1000e", "e1000", "8139cp", "8139too", "igb", "uio_pci_generic", "snd_hda_intel"],
];

const DISK_BYTES: number = 64 * MIB;

const INITTAB = `::sysinit:/etc/init.d/start
::respawn:/bin/cttyhack /bin/sh -l
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/sync
::shutdown:/bin/umount -a -r
`;

/** Reads a script of this folder's source, wherever the compiled program lies. */
export function readScript(name: string): string {
  return readFileSync(join(projectRoot(), "guest-images/scripts", name), "utf8");
}

/** Builds what is missing in the cache and answers where everything lies. */
export async function guestImages(progress: Progress): Promise<GuestImages> {
  const kernel = await debianKernel(progress);
  const busybox = await staticBusybox(progress);
  const init = readScript("initramfs-init.sh");
  const files = diskFiles();
  const key = fingerprint(
    BUILD_VERSION,
    kernel.packageVersion,
    busybox.version,
    GUEST_MODULES.join(),
    init,
    JSON.stringify(files),
  );
  const directory = await cached(join("images", `${kernel.release}_${key}`), async (partial) => {
    progress(`building the guest's images for ${kernel.release}: initramfs, kernel with built-in initramfs, disk`);
    const initramfs = await buildInitramfs({ kernel, busybox, modules: GUEST_MODULES, init });
    writeFileSync(join(partial, "initramfs.cpio"), initramfs);
    writeFileSync(join(partial, "vmlinux"), bundleInitramfs(readFileSync(kernel.vmlinux), initramfs));
    await writeGuestDisk(join(partial, "disk.raw"), DISK_BYTES, busybox, files, join(partial, "tree"));
    copyFileSync(kernel.vmlinuz, join(partial, "vmlinuz"));
  });
  return {
    kernel,
    vmlinux: join(directory, "vmlinux"),
    initramfs: join(directory, "initramfs.cpio"),
    disk: join(directory, "disk.raw"),
  };
}

function diskFiles(): readonly DiskFile[] {
  return [
    { path: "etc/inittab", mode: 0o644, text: INITTAB },
    { path: "etc/init.d/start", mode: 0o755, text: readScript("disk-start.sh") },
    { path: "bin/pci", mode: 0o755, text: readScript("pci.sh") },
    { path: "bin/await", mode: 0o755, text: readScript("await.sh") },
    { path: "bin/interrupts", mode: 0o755, text: readScript("interrupts.sh") },
    { path: "usr/share/udhcpc/default.script", mode: 0o755, text: readScript("udhcpc.sh") },
    { path: "etc/hostname", mode: 0o644, text: "guest\n" },
    { path: "etc/passwd", mode: 0o644, text: "root::0:0:root:/root:/bin/sh\n" },
    { path: "etc/group", mode: 0o644, text: "root:x:0:\n" },
    {
      path: "etc/profile",
      mode: 0o644,
      text: "export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root PS1='guest:\\w# '\ncd /root\n",
    },
  ];
}
