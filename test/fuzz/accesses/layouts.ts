import { recordedConfig } from "../../../src/passthrough/recording.ts";
import { REPLAYED_RECORDINGS, VIRTIO_NAMES } from "./world.ts";

/** Where a function's structures are, so that a fuzzed guest hits them more often than by chance. */
export interface FunctionLayout {
  readonly isBar0Wide: boolean;
  readonly powerAt: number | undefined;
  readonly msixAt: number | undefined;
  readonly msix:
    | {
        readonly bar: number;
        readonly table: number;
        readonly pbaBar: number;
        readonly pba: number;
        readonly count: number;
      }
    | undefined;
  readonly msi: { readonly at: number; readonly dataAt: number; readonly masksAt: number | undefined } | undefined;
}

/** Of all functions, in the world's order. */
export function functionLayouts(): readonly FunctionLayout[] {
  const virtio = VIRTIO_NAMES.map((name): FunctionLayout => {
    const count = name === "virtio-console" ? 3 : 2;
    return {
      isBar0Wide: true,
      powerAt: undefined,
      msixAt: 0x40,
      msix: { bar: 0, table: 0x4000, pbaBar: 0, pba: 0x5000, count },
      msi: undefined,
    };
  });
  return [...virtio, ...REPLAYED_RECORDINGS.map((recording) => layoutOf(recordedConfig(recording)))];
}

function layoutOf(image: Uint8Array): FunctionLayout {
  const view = new DataView(image.buffer);
  const at = new Map<number, number>();
  for (let offset = view.getUint8(0x34); offset >= 0x40 && at.size < 48; offset = view.getUint8(offset + 1)) {
    at.set(view.getUint8(offset), offset);
  }
  const msixAt = at.get(0x11);
  const msiAt = at.get(0x05);
  return {
    isBar0Wide: (view.getUint8(0x10) & 7) === 4,
    powerAt: at.get(0x01),
    msixAt,
    msix: msixAt === undefined ? undefined : msixLayout(view, msixAt),
    msi: msiAt === undefined ? undefined : msiLayout(view, msiAt),
  };
}

function msixLayout(view: DataView, at: number): NonNullable<FunctionLayout["msix"]> {
  const table = view.getUint32(at + 4, true);
  const pba = view.getUint32(at + 8, true);
  return {
    bar: table & 7,
    table: (table & ~7) >>> 0,
    pbaBar: pba & 7,
    pba: (pba & ~7) >>> 0,
    count: (view.getUint16(at + 2, true) & 0x7ff) + 1,
  };
}

function msiLayout(view: DataView, at: number): NonNullable<FunctionLayout["msi"]> {
  const control = view.getUint16(at + 2, true);
  const dataAt = at + ((control & 0x80) !== 0 ? 12 : 8);
  return { at, dataAt, masksAt: (control & 0x100) !== 0 ? dataAt + 4 : undefined };
}
