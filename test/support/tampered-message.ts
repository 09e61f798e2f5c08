import type { Fd } from "../../src/base/units.ts";

/** Bytes and descriptors as they go over a socket in one piece. */
export interface Piece {
  readonly bytes: Uint8Array;
  readonly descriptors: readonly Fd[];
}

/**
 * What a process that is broken, or means harm, sends instead of a message. `spare` is a descriptor that can be sent
 * along.
 */
export function tamper(message: Piece, random: (below: number) => number, spare: Fd): readonly Piece[] {
  const { bytes, descriptors } = message;
  const changed = (offset: number, value: number): Piece => {
    const copy = bytes.slice();
    new DataView(copy.buffer).setUint32(offset, value >>> 0, true);
    return { bytes: copy, descriptors };
  };
  switch (random(10)) {
    case 0: {
      const copy = bytes.slice();
      for (let flips = 0; flips <= random(4); flips++) copy[random(copy.length)] = random(256);
      return [{ bytes: copy, descriptors }];
    }
    case 1:
      return [{ bytes: bytes.subarray(0, 1 + random(bytes.length)), descriptors }];
    case 2:
      return [message, { bytes: Uint8Array.from({ length: 1 + random(64) }, () => random(256)), descriptors: [] }];
    case 3:
      return [changed(4, random(2) === 0 ? random(64) : random(0xffff_ffff))]; // its size
    case 4:
      return []; // silence
    case 5:
      return [message, message];
    case 6:
      return [{ bytes, descriptors: [...descriptors, ...new Array<Fd>(1 + random(250)).fill(spare)].slice(0, 253) }];
    case 7:
      return [{ bytes, descriptors: [] }];
    case 8:
      return [dmaCommand(random), message];
    default:
      // Behind the header: numbers that say how much and where.
      return bytes.length < 24
        ? [changed(8, random(64))]
        : [changed(16 + 4 * random((bytes.length - 16) >> 2), -random(3))];
  }
}

/** A DMA_READ or DMA_WRITE of any address and size. */
function dmaCommand(random: (below: number) => number): Piece {
  const data = random(2) === 0 ? 0 : random(100);
  const view = new DataView(new ArrayBuffer(32 + data));
  view.setUint16(0, random(0x1_0000), true);
  view.setUint16(2, 11 + random(2), true);
  view.setUint32(4, view.byteLength, true);
  view.setUint32(16, random(0x20_0000), true);
  view.setUint32(20, random(8) === 0 ? random(0xffff_ffff) : 0, true);
  view.setUint32(24, random(3) === 0 ? random(0xffff_ffff) : data, true);
  view.setUint32(28, random(8) === 0 ? random(0xffff_ffff) : 0, true);
  return { bytes: new Uint8Array(view.buffer), descriptors: [] };
}
