/** Where a character device goes. `tty` is this process's terminal (or its standard streams). */
export type CharSpec =
  | { readonly kind: "off" } // no device at all
  | { readonly kind: "null" }
  | { readonly kind: "tty" }
  | { readonly kind: "pty" }
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "socket"; readonly path: string }
  | { readonly kind: "api" }; // bytes go to and come from the typed API

/** One virtio-blk disk. */
export interface DiskSpec {
  readonly path: string;
  readonly id: string;
  readonly isReadOnly: boolean;
  /** O_DIRECT: past the host's page cache. */
  readonly isDirect: boolean;
  /** At most 20 bytes, what the guest reads as the disk's serial number. */
  readonly serial?: string;
}

/** What the guest sees as a function's expansion ROM: the device's own, none, or a file's content. */
export type RomSpec =
  | { readonly kind: "on" }
  | { readonly kind: "off" }
  | { readonly kind: "file"; readonly path: string };

/** One passed-through PCI function. */
export interface DeviceSpec {
  /** sysfs directory of the function, by real path. */
  readonly path: string;
  readonly id: string;
  /** `trap` makes every BAR access exit and be passed through, for teaching and debugging. */
  readonly bars: "map" | "trap";
  /** BARs left trapped although they could be mapped. */
  readonly excludedMmapBars: readonly number[];
  /** The device's own expansion ROM when absent. */
  readonly rom?: RomSpec;
  /** Guest slot on bus 0; the first free one when absent. */
  readonly pciSlot?: number;
}

/** One PCI device that is a process of its own, reached by vfio-user. */
export interface UserDeviceSpec {
  /** The unix socket where its server listens. */
  readonly socket: string;
  readonly id: string;
  /**
   * How long the machine waits for the server, in seconds, before the device counts as lost: for all that one access of
   * the guest makes it wait, and for slow accesses within a minute. 5 when absent; `off` for as long as the server
   * likes, as when it is debugged.
   */
  readonly timeoutSeconds?: number | "off";
}

/** Guest RAM. */
export interface MemorySpec {
  readonly sizeBytes: number;
  readonly hugepages: boolean;
  /** MAP_SHARED on the memfd. RAM is always a shared memfd mapping; `false` is accepted and means the same. */
  readonly shared: boolean;
  /** Touches every page before start. */
  readonly prefault: boolean;
}

/** Everything that defines a machine; plain data, checked by `spec-check.ts`, passed to the workers as it is. */
export interface MachineSpec {
  readonly kernel: string;
  readonly initramfs?: string;
  readonly cmdline: string;
  readonly cpus: { readonly count: number };
  readonly memory: MemorySpec;
  readonly disks: readonly DiskSpec[];
  readonly devices: readonly DeviceSpec[];
  readonly userDevices: readonly UserDeviceSpec[];
  readonly serial: CharSpec;
  readonly console: CharSpec;
  readonly rng: { readonly source: string };
  /** Port whose writes end the machine with status `(value << 1) | 1`. */
  readonly debugExitPort?: number;
  /** The ports and the memory of QEMU's pc-testdev. */
  readonly hasTestDevice: boolean;
  /** What a guest reset does: `false` ends the machine. */
  readonly allowReboot: boolean;
  /** How long the device thread polls before it sleeps, in microseconds; absent for adaptive. */
  readonly pollMicroseconds?: number;
}
