import { GuestSession } from "../lab/guest-session.ts";
import { shellQuote } from "../lab/run.ts";
import { Machine, type MachineStatistics } from "../src/index.ts";

/**
 * A Linux guest that one of the VMMs runs. Paths are files of the host; `devices` addresses of functions that vfio-pci
 * has.
 */
export interface LinuxGuestSpec {
  readonly kernel: string;
  readonly initramfs: string | undefined;
  readonly disk: string | undefined;
  readonly cmdline: string;
  readonly cpus: number;
  readonly devices: readonly string[];
  /** Takes what the serial console shows. */
  readonly onConsole: (text: string) => void;
}

/** It runs, and somebody is at its serial console. */
export interface LinuxGuest {
  /** The process whose threads run it: our own, where tsvmm does. */
  readonly pid: number;
  write(text: string): void;
  /** Resolves when the console shows it, behind what was waited for before. */
  waitFor(pattern: RegExp): Promise<unknown>;
  /** Counters of the VMM itself; QEMU has none. */
  statistics(): Promise<MachineStatistics | undefined>;
  end(): Promise<unknown>;
}

/** Memory of each guest, in MiB. */
const MEMORY_MIB = 512;
const TIMEOUT_MS = 600_000;

export async function startTsvmm(spec: LinuxGuestSpec): Promise<LinuxGuest> {
  const machine = await Machine.start({
    kernel: spec.kernel,
    cmdline: spec.cmdline,
    cpus: { count: spec.cpus },
    memory: { sizeBytes: MEMORY_MIB * 1024 ** 2 },
    disks: spec.disk === undefined ? [] : [{ path: spec.disk }],
    devices: spec.devices.map((path) => ({ path })),
    ...(spec.initramfs === undefined ? {} : { initramfs: spec.initramfs }),
  });
  machine.serial.onOutput(spec.onConsole);
  return {
    pid: process.pid,
    write: (text) => machine.serial.write(text),
    waitFor: (pattern) => machine.serial.waitFor(pattern, { timeoutMs: TIMEOUT_MS }),
    statistics: () => machine.statistics(),
    end: () => machine.stop(),
  };
}

/**
 * The same machine, as far as QEMU has it: a PC with PCI Express, its firmware left out by PVH, virtio disk, no
 * display.
 */
export function qemuCommand(spec: LinuxGuestSpec): readonly string[] {
  return [
    ...["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-M", "q35"],
    ...["-smp", `${spec.cpus}`, "-m", `${MEMORY_MIB}M`],
    ...["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-name", "guest,debug-threads=on"],
    ...["-kernel", spec.kernel, "-append", spec.cmdline],
    ...(spec.initramfs === undefined ? [] : ["-initrd", spec.initramfs]),
    ...(spec.disk === undefined
      ? []
      : ["-drive", `file=${spec.disk},format=raw,if=none,id=disk`, "-device", "virtio-blk-pci,drive=disk"]),
    ...spec.devices.flatMap((bdf) => ["-device", `vfio-pci,host=${bdf}`]),
  ];
}

export function startQemu(spec: LinuxGuestSpec): Promise<LinuxGuest> {
  const session = new GuestSession(qemuCommand(spec).map(shellQuote).join(" "), spec.onConsole);
  return Promise.resolve({
    pid: session.pid ?? 0,
    write: (text) => session.type(text),
    waitFor: (pattern) => session.waitFor(pattern, `${pattern}`, TIMEOUT_MS),
    statistics: async () => undefined,
    end: () => {
      session.kill();
      return session.ended(TIMEOUT_MS);
    },
  });
}
