/** `pci_ext_cap_length` of Linux' drivers/vfio/pci/vfio_pci_config.c */
const KEPT_LENGTHS: ReadonlyMap<number, number> = new Map([
  [0x01, 44],
  [0x03, 12],
  [0x0e, 8],
  [0x0f, 8],
  [0x10, 64],
  [0x13, 16],
  [0x18, 8],
]);

interface ExtendedCapability {
  readonly id: number;
  readonly at: number;
  readonly end: number;
}

/** A device's extended capabilities with the bytes that must be kept from a guest or are the capability's own. */
export function extendedCapabilities(device: DataView): readonly ExtendedCapability[] {
  const starts: number[] = [];
  if (device.byteLength < 4096) return [];
  for (let at = 0x100; at >= 0x100 && starts.length < 960; at = device.getUint32(at, true) >>> 20) {
    if (device.getUint32(at, true) === 0) break;
    starts.push(at);
  }
  return starts.map((at) => {
    const id = device.getUint16(at, true);
    const next = Math.min(4096, ...starts.filter((start) => start > at));
    return { id, at, end: Math.min(next, at + (KEPT_LENGTHS.get(id) ?? 4)) };
  });
}
