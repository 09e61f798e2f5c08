import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildInitramfs, staticBusybox } from "../guest-images/initramfs.ts";
import { debianKernel, type Kernel } from "../guest-images/kernel.ts";
import { bundleInitramfs } from "../guest-images/pvh-bundle.ts";
import type { Progress } from "../tools/apt.ts";
import { BUILD_VERSION, cached, fingerprint, projectRoot } from "../tools/cache.ts";
import type { Accelerator } from "./accelerator.ts";
import { type LabDevice, qemuDeviceArguments } from "./devices.ts";

/** What the nested host boots from. */
export interface NestedHostImage {
  readonly kernel: Kernel;
  /** Kernel with the initramfs that goes over to the outer machine's files. */
  readonly vmlinux: string;
}

/** Enough to mount the outer machine's files and to report; everything else is loaded from them. */
const NESTED_HOST_MODULES = ["virtio_pci", "9p", "9pnet_virtio", "overlay", "virtio_console"];

/** Reads a script of this folder's source, wherever the compiled program lies. */
export const readLabScript = (name: string): string => readFileSync(join(projectRoot(), "lab/scripts", name), "utf8");

/** Builds the nested host's kernel image when the cache has none. */
export async function nestedHostImage(progress: Progress): Promise<NestedHostImage> {
  const kernel = await debianKernel(progress);
  const busybox = await staticBusybox(progress);
  const init = readLabScript("nested-host-init.sh");
  const key = fingerprint(BUILD_VERSION, kernel.packageVersion, busybox.version, NESTED_HOST_MODULES.join(), init);
  const directory = await cached(join("images", `nested-host-${kernel.release}_${key}`), async (partial) => {
    progress(`building the nested host's kernel image for ${kernel.release}`);
    const initramfs = await buildInitramfs({ kernel, busybox, modules: NESTED_HOST_MODULES, init });
    writeFileSync(join(partial, "vmlinux"), bundleInitramfs(readFileSync(kernel.vmlinux), initramfs));
  });
  return { kernel, vmlinux: join(directory, "vmlinux") };
}

export interface NestedHostOptions {
  readonly accelerator: Accelerator;
  readonly cpus: number;
  readonly memoryMib: number;
  readonly devices: readonly LabDevice[];
  /** Path of the kernel image. */
  readonly vmlinux: string;
  /** Directory that both sides can write to; the nested host sees it as `/lab`. */
  readonly shareDirectory: string;
  /** Unix sockets we listen on: the serial console, and the port for reports and output. */
  readonly consoleSocket: string;
  readonly reportSocket: string;
}

/**
 * All that the translator can do, but of a family (Zen 2) later than its own choice. Linux expects an AGP aperture on
 * family 15 and looks for its bridge on all 256 buses. Those 16,000 trapped accesses cost a nested guest a minute.
 */
const EMULATED_CPU = "max,family=23,model=49,stepping=0";

/**
 * Answers QEMU's command line for a PC with an IOMMU, the outer machine's files as its root, and the given PCI
 * functions.
 */
export function qemuArguments(options: NestedHostOptions): readonly string[] {
  const kvm = options.accelerator === "kvm";
  return [
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-name", "tsvmm-lab"],
    // Interrupt remapping needs the I/O APIC in QEMU, which "split" does under KVM; the translator has it there anyway.
    ...["-machine", kvm ? "q35,kernel-irqchip=split" : "q35"],
    ...(kvm ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU]),
    ...["-smp", `${options.cpus}`, "-m", `${options.memoryMib}M`],
    ...["-device", "intel-iommu,intremap=on"],
    ...[
      "-kernel",
      options.vmlinux,
      "-append",
      "console=ttyS0 loglevel=5 panic=-1 mitigations=off intel_iommu=on iommu=pt",
    ],
    // The root ports come first on bus 0, so that bus 1 is the first device's.
    ...options.devices.flatMap(qemuDeviceArguments),
    ...["-chardev", `socket,id=console,path=${options.consoleSocket}`, "-serial", "chardev:console"],
    ...["-chardev", `socket,id=report,path=${options.reportSocket}`],
    ...["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=report,name=lab"],
    ...["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"],
    ...["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"],
    ...["-fsdev", `local,id=lab,path=${options.shareDirectory},security_model=none,multidevs=remap`],
    ...["-device", "virtio-9p-pci,fsdev=lab,mount_tag=lab"],
  ];
}
