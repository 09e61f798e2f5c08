/**
 * Devices for virtual machines, written in TypeScript and run as processes of their own: a vfio-user 0.1 server
 * library.
 *
 * ```ts
 * import { DeviceServer, type UserPciDevice } from "tsvmm/vfio-user";
 *
 * const server = DeviceServer.listen({ socket: "/tmp/my.sock", device: (host) => new MyDevice(host) });
 * ```
 *
 * @module
 */
export type { Report } from "../base/backends.ts";
export { HostError } from "../base/errors.ts";
export { type RegisterAccess, RegisterBank, type RegisterHandler, type RegisterRow } from "../base/registers.ts";
export { type Branded, type Fd, type Gpa, gpa, type Width } from "../base/units.ts";
export type { PciIdentity } from "../pci/config-space.ts";
export { type BarIndex, type BarRequest, ROM_BAR } from "../pci/function.ts";
export type { BarOffset } from "../pci/msix.ts";
export { EduDevice, type EduRegister } from "./devices/edu.ts";
export { NvmeDevice, type NvmeRegister } from "./devices/nvme.ts";
export { NvmeStore } from "./devices/nvme-store.ts";
export type {
  BarRegisters,
  DeviceBar,
  DeviceHost,
  DeviceInterrupts,
  DeviceMemory,
  UserPciDevice,
} from "./server/device.ts";
export { MemoryBlock } from "./server/memory-block.ts";
export { DeviceServer, type ServeOptions } from "./server/server.ts";
