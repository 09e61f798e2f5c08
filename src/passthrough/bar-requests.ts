import { HostError } from "../base/errors.ts";
import { hex, TWO_POW_32 } from "../base/units.ts";
import { MAX_BAR_BYTES } from "../pci/bar.ts";
import { type BarIndex, type BarRequest, ROM_BAR } from "../pci/function.ts";
import {
  barOffset,
  PCI_BASE_ADDRESS_MEM_PREFETCH,
  PCI_BASE_ADDRESS_MEM_TYPE_64,
  PCI_BASE_ADDRESS_MEM_TYPE_MASK,
  PCI_BASE_ADDRESS_SPACE_IO,
} from "../pci/ids.ts";
import { type DeviceBackend, VFIO_PCI_ROM_REGION_INDEX } from "./backend.ts";

const BAR_INDICES: readonly BarIndex[] = [0, 1, 2, 3, 4, 5];

/**
 * What a device's BARs ask of the guest's address space. Kinds come from its base address registers, sizes from its
 * regions. So the registers need not be written to learn the sizes.
 *
 * @param image The device's configuration space.
 * @throws HostError for a size that no BAR of its kind has.
 */
export function barRequests(image: Uint8Array, backend: DeviceBackend): readonly BarRequest[] {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const requests: BarRequest[] = [];
  let upperHalf: number | undefined;
  for (const index of BAR_INDICES) {
    const sizeBytes = backend.region(index)?.sizeBytes ?? 0;
    if (index === upperHalf || sizeBytes === 0) continue;
    const register = view.getUint32(barOffset(index), true);
    if ((register & PCI_BASE_ADDRESS_SPACE_IO) !== 0) {
      requests.push({ kind: "io", index, sizeBytes: powerOfTwo(sizeBytes, 4) });
      continue;
    }
    const isPrefetchable = (register & PCI_BASE_ADDRESS_MEM_PREFETCH) !== 0;
    const is64Bit = (register & PCI_BASE_ADDRESS_MEM_TYPE_MASK) === PCI_BASE_ADDRESS_MEM_TYPE_64 && index < 5;
    if (is64Bit) upperHalf = index + 1;
    else if (sizeBytes >= TWO_POW_32) continue; // no register could hold its address
    requests.push({ kind: is64Bit ? "mem64" : "mem32", index, sizeBytes: powerOfTwo(sizeBytes, 16), isPrefetchable });
  }
  const romBytes = backend.region(VFIO_PCI_ROM_REGION_INDEX)?.sizeBytes ?? 0;
  if (romBytes > 0) requests.push({ kind: "rom", index: ROM_BAR, sizeBytes: powerOfTwo(romBytes, 2048) });
  for (const request of requests) checkSize(backend.name, request);
  return requests;
}

function checkSize(name: string, { kind, index, sizeBytes }: BarRequest): void {
  if (sizeBytes <= MAX_BAR_BYTES[kind]) return;
  const bar = kind === "rom" ? "expansion ROM" : `BAR ${index} (${kind})`;
  const limit = `${hex(sizeBytes)} bytes, and ${hex(MAX_BAR_BYTES[kind])} are the most`;
  throw new HostError("TSVMM_DEVICE_UNUSABLE", `Cannot use ${name}: its ${bar} has an impossible size: ${limit}`);
}

/** PCI regions are powers of two; those of mediated devices need not be. */
function powerOfTwo(sizeBytes: number, minimum: number): number {
  return Math.max(minimum, 2 ** Math.ceil(Math.log2(sizeBytes)));
}
