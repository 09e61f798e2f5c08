import { HostError } from "../../../base/errors.ts";
import type { DmaMapper, Mapping, PeerMapper, PeerMapping } from "../../../base/mappings.ts";
import { alignDown, GIB, type Hva, hva, type Iova, iova, MIB } from "../../../base/units.ts";

/** What the work is spread over. */
export interface PeerTurns {
  /** Runs work in the device thread's next turn. */
  readonly defer: (work: () => void) => void;
  /** Of a clock that never goes back. */
  readonly nowMs: () => number;
}

/** How long a turn, or a call of a guest's access, works on mappings; the last piece may take as long again. */
const BUDGET_MS = 5;
/** A piece that took less lets the next one be twice as large, one that took more than the budget half as large. */
const QUICK_MS = 2;
const SMALLEST_PIECE: number = 2 * MIB;
const FIRST_PIECE: number = 32 * MIB;
const LARGEST_PIECE: number = 64 * GIB;

interface Piece {
  readonly sizeBytes: number;
  readonly mapping: Mapping;
}

interface PeerRange {
  readonly name: string;
  readonly address: Iova;
  readonly host: Hva;
  readonly sizeBytes: number;
  /** From the range's start, in order. */
  readonly pieces: Piece[];
  mappedBytes: number;
  isWanted: boolean;
  onFailure: (error: HostError) => void;
}

/**
 * Maps BARs into the address space of DMA in pieces. Before Linux 6.14 the kernel walks device memory a page of 4 KiB
 * at a time, 67 million of them for 256 GiB. Each processor of the guest that touches a device waits meanwhile.
 *
 * Ranges are worked on in the order of their last change: what is at an address goes before something else comes there.
 * A range that is wanted again before it is gone keeps what is left of it. So peers may reach a BAR some turns longer
 * than the device decodes it; they get the error of a bus then. Device thread only.
 */
export class PeerDma implements PeerMapper {
  readonly #dma: DmaMapper;
  readonly #turns: PeerTurns;
  /** What is not as wanted yet. */
  readonly #queue: PeerRange[] = [];
  #pieceBytes: number = FIRST_PIECE;
  #isDeferred = false;

  constructor(dma: DmaMapper, turns: PeerTurns) {
    this.#dma = dma;
    this.#turns = turns;
  }

  mapPeer(
    name: string,
    address: Iova,
    host: Hva,
    sizeBytes: number,
    onFailure: (error: HostError) => void,
  ): PeerMapping {
    const left = this.#queue.find(
      (one) => !one.isWanted && one.address === address && one.host === host && one.sizeBytes === sizeBytes,
    );
    const range = left ?? { name, address, host, sizeBytes, pieces: [], mappedBytes: 0, isWanted: true, onFailure };
    range.isWanted = true;
    range.onFailure = onFailure;
    if (left === undefined) this.#queue.push(range);
    this.#work();
    let isOurs = true;
    const give = (how: () => void): void => {
      if (!isOurs) return;
      isOurs = false;
      range.isWanted = false;
      how();
    };
    return {
      get isGone() {
        return !isOurs && (range.isWanted || range.pieces.length === 0);
      },
      unmap: () =>
        give(() => {
          if (!this.#queue.includes(range)) this.#queue.push(range);
          this.#work();
        }),
      unmapNow: () => {
        give(() => undefined);
        if (range.isWanted) return; // another mapping has taken it over
        while (range.pieces.length > 0) this.#unmapPiece(range);
        this.#drop(range);
      },
    };
  }

  #work(): void {
    const end = this.#turns.nowMs() + BUDGET_MS;
    for (let range = this.#queue[0]; range !== undefined; range = this.#queue[0]) {
      if (range.isWanted ? range.mappedBytes === range.sizeBytes : range.pieces.length === 0) {
        this.#queue.shift();
        continue;
      }
      if (this.#turns.nowMs() >= end) return this.#goOnLater();
      if (range.isWanted) this.#mapPiece(range);
      else this.#unmapPiece(range);
    }
  }

  #goOnLater(): void {
    if (this.#isDeferred) return;
    this.#isDeferred = true;
    this.#turns.defer(() => {
      this.#isDeferred = false;
      this.#work();
    });
  }

  #mapPiece(range: PeerRange): void {
    const { mappedBytes } = range;
    const at = range.address + mappedBytes;
    // Up to a multiple of the piece's size, so that large pages of the IOMMU fit.
    const untilBoundary = alignDown(at, this.#pieceBytes) + this.#pieceBytes - at;
    const sizeBytes = Math.min(untilBoundary, range.sizeBytes - mappedBytes);
    const start = this.#turns.nowMs();
    try {
      const mapping = this.#dma.mapDma(range.name, iova(at), hva(range.host + mappedBytes), sizeBytes);
      range.pieces.push({ sizeBytes, mapping });
      range.mappedBytes += sizeBytes;
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      range.isWanted = false; // what is mapped of it goes
      range.onFailure(error);
      return;
    }
    const tookMs = this.#turns.nowMs() - start;
    if (tookMs < QUICK_MS) this.#pieceBytes = Math.min(this.#pieceBytes * 2, LARGEST_PIECE);
    else if (tookMs > BUDGET_MS) this.#pieceBytes = Math.max(this.#pieceBytes / 2, SMALLEST_PIECE);
  }

  #unmapPiece(range: PeerRange): void {
    const piece = range.pieces.pop();
    if (piece === undefined) return;
    range.mappedBytes -= piece.sizeBytes;
    piece.mapping.unmap();
  }

  #drop(range: PeerRange): void {
    const at = this.#queue.indexOf(range);
    if (at >= 0) this.#queue.splice(at, 1);
  }
}
