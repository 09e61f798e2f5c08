/** A capability with its bytes after id and next pointer. */
export interface ImageCapability {
  readonly id: number;
  readonly at: number;
  readonly body: readonly number[];
}

/** An extended capability with its bytes after the header dword. */
export interface ImageExtendedCapability extends ImageCapability {
  readonly version?: number;
}

/** Configuration space of a device as its maker built it: the raw bytes a test starts from. */
export interface ImageDescription {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly classCode: number;
  /** Low flag bits of BAR 0 to 5: 0 mem32, 4 mem64, 8 prefetchable, 1 I/O. */
  readonly barFlags?: readonly number[];
  readonly interruptPin?: number;
  readonly capabilities?: readonly ImageCapability[];
  readonly extended?: readonly ImageExtendedCapability[];
  readonly sizeBytes?: 256 | 4096;
}

/** Builds the bytes; capabilities are linked in the order given. */
export function pciImage(description: ImageDescription): Uint8Array {
  const bytes = new Uint8Array(description.sizeBytes ?? 256);
  const view = new DataView(bytes.buffer);
  view.setUint16(0x00, description.vendorId, true);
  view.setUint16(0x02, description.deviceId, true);
  view.setUint32(0x08, (description.classCode << 8) >>> 0, true);
  for (const [index, flags] of (description.barFlags ?? []).entries()) {
    view.setUint32(0x10 + 4 * index, (0xe000_0000 + index * 0x100_0000 + flags) >>> 0, true);
  }
  bytes[0x3d] = description.interruptPin ?? 0;
  let link = 0x34;
  for (const { id, at, body } of description.capabilities ?? []) {
    view.setUint16(0x06, view.getUint16(0x06, true) | 0x10, true);
    bytes[link] = at;
    bytes[at] = id;
    bytes.set(body, at + 2);
    link = at + 1;
  }
  let previous: number | undefined;
  for (const { id, at, body, version } of description.extended ?? []) {
    if (previous !== undefined) view.setUint32(previous, (view.getUint32(previous, true) | (at << 20)) >>> 0, true);
    view.setUint32(at, (id | ((version ?? 1) << 16)) >>> 0, true);
    bytes.set(body, at + 4);
    previous = at;
  }
  return bytes;
}

/** Bytes of numbers of two and four bytes, little endian. */
export const u16 = (...values: readonly number[]): number[] =>
  values.flatMap((value) => [value & 0xff, (value >>> 8) & 0xff]);
export const u32 = (...values: readonly number[]): number[] =>
  values.flatMap((value) => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]);

/** PM 1.2 capability of 8 bytes, in D0. */
export const pmCapability = (at: number): ImageCapability => ({
  id: 0x01,
  at,
  body: [...u16(0x0003), ...u16(0x0008), 0, 0],
});
/** MSI-X capability; tables are "offset + BAR index". */
export const msixCapability = (at: number, vectors: number, table: number, pba: number): ImageCapability => ({
  id: 0x11,
  at,
  body: [...u16(vectors - 1), ...u32(table), ...u32(pba)],
});
/** PCI Express capability, version 2, an endpoint with function-level reset and an 8 GT/s x4 link. */
export const expressCapability = (at: number): ImageCapability => ({
  id: 0x10,
  at,
  body: [
    ...u16(0x0002),
    ...u32(0x1000_8fe2, 0x0000_2810, 0x0041_0843), // device capabilities, control and status; link capabilities
    ...u16(0x0040, 0x1043), // link control and status
    ...u32(0, 0, 0, 0), // slot and root
    ...u32(0x000c_0812, 0, 0x0000_000e, 0x0000_0003, 0, 0), // the second set
  ],
});
