import { fstatSync } from "node:fs";
import { HostError } from "../../base/errors.ts";
import { alignUp, type Fd, type Halves, hex, PAGE_SIZE, type Width } from "../../base/units.ts";
import { MMAN } from "../../host/constants.ts";
import { closeAll, isMemoryFile } from "../../host/descriptor-socket.ts";
import { HostMapping } from "../../host/memory/mapping.ts";
import type { MappedRegion, RegionArea } from "../../passthrough/backend.ts";
import { REGION_INFO } from "../../vfio/abi.ts";
import { setU64, vfioStruct } from "../../vfio/calls.ts";
import { parseRegion, type VfioRegion } from "../../vfio/region.ts";
import {
  USER_REGION_ACCESS,
  VFIO_USER_DEVICE_GET_REGION_INFO,
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE,
} from "../protocol/abi.ts";
import type { UserChannel } from "./channel.ts";

/** A region and the file that it can be mapped from, where there is one. */
export interface UserRegion extends VfioRegion {
  readonly file: Fd | undefined;
}

/** More than any chain of sparse areas needs; a server must not make us ask for all there is. */
const MAX_INFO_BYTES = 65_536;

/**
 * Once for the fixed part, once more with room for the capability chain. A server that wants more room each time is not
 * asked on.
 */
const MAX_QUERIES = 2;

/**
 * VFIO_USER_DEVICE_GET_REGION_INFO: once for the size, once more where a capability chain follows. The caller closes
 * the file.
 *
 * @throws HostError
 */
export function queryUserRegion(channel: UserChannel, index: number): UserRegion {
  let sizeBytes: number = REGION_INFO.size;
  for (let query = 1; ; query++) {
    const { bytes, view } = vfioStruct(REGION_INFO.size);
    view.setUint32(REGION_INFO.argsz, sizeBytes, true);
    view.setUint32(REGION_INFO.index, index, true);
    const reply = channel.requestFiles(VFIO_USER_DEVICE_GET_REGION_INFO, bytes);
    const isWhole = reply.view.byteLength >= REGION_INFO.size;
    const needed = isWhole ? reply.view.getUint32(REGION_INFO.argsz, true) : 0;
    if (!isWhole || needed > MAX_INFO_BYTES) {
      closeAll(reply.descriptors);
      throw channel.lose(`its server answers DEVICE_GET_REGION_INFO with ${isWhole ? needed : "too few"} bytes`);
    }
    if (needed > sizeBytes && query === MAX_QUERIES) {
      closeAll(reply.descriptors);
      throw channel.lose(
        `its server wants ${needed} bytes for DEVICE_GET_REGION_INFO after it had wanted ${sizeBytes}`,
      );
    }
    if (needed > sizeBytes) {
      closeAll(reply.descriptors);
      sizeBytes = needed;
      continue;
    }
    const region = parseRegion(reply.view, index);
    const [file, ...others] = reply.descriptors;
    closeAll(others);
    // Without a file there is nothing to map, whatever the flags say.
    return {
      ...region,
      info: { ...region.info, mappableAreas: file === undefined ? [] : region.info.mappableAreas },
      file,
    };
  }
}

/**
 * Maps an area of a region from its file.
 *
 * @throws HostError when the file cannot be what the server says: touching memory beyond its end would be SIGBUS.
 */
export function mapUserRegion(name: string, region: UserRegion, area: RegionArea): MappedRegion {
  const sizeBytes = alignUp(area.sizeBytes, PAGE_SIZE);
  const offset = region.fileOffset + area.offset;
  if (region.file === undefined) throw new RangeError(`Cannot map ${name}: it has no file`);
  // Before anything is asked of its file system, whose server may be the device's. A fault on other files waits for
  // that, too.
  if (!isMemoryFile(region.file)) {
    throw new HostError(
      "TSVMM_USER_DEVICE_UNSUITABLE",
      `Cannot map ${name}: its server gave something else than memory (a memfd, tmpfs, hugetlbfs)`,
    );
  }
  const found = fstatSync(region.file);
  if (!Number.isSafeInteger(offset + sizeBytes) || offset % PAGE_SIZE !== 0 || offset + sizeBytes > found.size) {
    throw new HostError(
      "TSVMM_USER_DEVICE_PROTOCOL",
      `Cannot map ${name}: ${hex(offset)}+${hex(sizeBytes)} is not in its file of ${hex(found.size)}`,
    );
  }
  const { isReadable, isWritable } = region.info;
  const protection = (isReadable ? MMAN.PROT_READ : 0) | (isWritable ? MMAN.PROT_WRITE : 0);
  return HostMapping.ofFile(name, region.file, offset, sizeBytes, { protection });
}

/** VFIO_USER_REGION_READ; `count` is at most what the server takes. @throws HostError */
export function readUserBytes(channel: UserChannel, index: number, offset: number, count: number): Uint8Array {
  const reply = channel.request(VFIO_USER_REGION_READ, access(index, offset, count, 0));
  if (reply.byteLength < USER_REGION_ACCESS.size + count || reply.getUint32(USER_REGION_ACCESS.count, true) !== count) {
    throw channel.lose("its server answers REGION_READ with another width");
  }
  return new Uint8Array(reply.buffer, reply.byteOffset + USER_REGION_ACCESS.size, count);
}

/** VFIO_USER_REGION_WRITE of eight bytes in one message, posted as {@link writeUserRegion} has it. @throws HostError */
export function postUserWide(channel: UserChannel, index: number, offset: number, value: Halves): void {
  const bytes = access(index, offset, 8, 8);
  const view = new DataView(bytes.buffer);
  view.setUint32(USER_REGION_ACCESS.size, value.low, true);
  view.setUint32(USER_REGION_ACCESS.size + 4, value.high, true);
  channel.post(VFIO_USER_REGION_WRITE, bytes);
}

/**
 * VFIO_USER_REGION_WRITE of 1, 2 or 4 bytes.
 *
 * @param isPosted Goes on without waiting for the device, as a bus does with memory writes; a later read waits for it.
 * @throws HostError
 */
export function writeUserRegion(
  channel: UserChannel,
  index: number,
  offset: number,
  width: Width,
  value: number,
  isPosted: boolean,
): void {
  const bytes = access(index, offset, width, width);
  const view = new DataView(bytes.buffer);
  if (width === 4) view.setUint32(USER_REGION_ACCESS.size, value, true);
  else if (width === 2) view.setUint16(USER_REGION_ACCESS.size, value, true);
  else view.setUint8(USER_REGION_ACCESS.size, value);
  if (isPosted) channel.post(VFIO_USER_REGION_WRITE, bytes);
  else channel.request(VFIO_USER_REGION_WRITE, bytes);
}

function access(index: number, offset: number, count: number, dataBytes: number): Uint8Array {
  const bytes = new Uint8Array(USER_REGION_ACCESS.size + dataBytes);
  const view = new DataView(bytes.buffer);
  setU64(view, USER_REGION_ACCESS.offset, offset);
  view.setUint32(USER_REGION_ACCESS.region, index, true);
  view.setUint32(USER_REGION_ACCESS.count, count, true);
  return bytes;
}
