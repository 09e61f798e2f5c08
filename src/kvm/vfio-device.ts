import type { VfioFiles } from "../base/mappings.ts";
import type { Fd } from "../base/units.ts";
import { check } from "../host/errors.ts";
import { libc } from "../host/libc.ts";
import { IOCTL, KVM_DEV_TYPE_VFIO, KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL } from "./abi.ts";
import { DEVICE_ATTR } from "./abi-structs.ts";
import type { Vm } from "./vm.ts";

/**
 * The KVM VFIO device: tells KVM which groups or device files the machine holds. KVM then knows whether their DMA is
 * coherent with the CPU caches. Drivers that need the machine find it there. A machine has at most one. Linux
 * Documentation/virt/kvm/devices/vfio.rst
 */
export class KvmVfioDevice implements VfioFiles, Disposable {
  readonly #fd: Fd;
  readonly #attribute: DataView = new DataView(new ArrayBuffer(DEVICE_ATTR.size));
  // KVM reads the descriptor through a pointer in the struct, so its memory must stay where it is: that of an explicit
  // ArrayBuffer does.
  readonly #file: Int32Array = new Int32Array(new ArrayBuffer(4));

  /** @throws SyscallError, for instance when the host kernel has no VFIO support in KVM. */
  constructor(vm: Pick<Vm, "createDevice">) {
    this.#fd = vm.createDevice(KVM_DEV_TYPE_VFIO, "VFIO");
    this.#attribute.setUint32(DEVICE_ATTR.group, KVM_DEV_VFIO_FILE, true);
    this.#attribute.setBigUint64(DEVICE_ATTR.addr, BigInt(libc.addressOf(this.#file)), true);
  }

  /** @param file A VFIO group, or a device file of the cdev interface (Linux 6.6). */
  addFile(file: Fd): void {
    this.#set(KVM_DEV_VFIO_FILE_ADD, file, `tell KVM about VFIO file ${file}`);
  }

  removeFile(file: Fd): void {
    this.#set(KVM_DEV_VFIO_FILE_DEL, file, `take VFIO file ${file} from KVM`);
  }

  #set(attr: number, file: Fd, action: string): void {
    this.#file[0] = file;
    this.#attribute.setBigUint64(DEVICE_ATTR.attr, BigInt(attr), true);
    const bytes = new Uint8Array(this.#attribute.buffer);
    check(
      libc.ioctlStruct(this.#fd, IOCTL.KVM_SET_DEVICE_ATTR, bytes),
      action,
      "KVM_SET_DEVICE_ATTR",
      "TSVMM_KVM_REFUSED",
    );
  }

  close(): void {
    libc.close(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
