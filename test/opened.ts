import { fileURLToPath } from "node:url";

/** Where something was made: its stack, written out only for a report. */
interface Maker {
  readonly what: string;
  readonly at: Error;
}

interface MappedRange extends Maker {
  readonly address: number;
  readonly end: number;
}

/** The project's folder. Stacks name the sources, or what was compiled of them: source maps may be off. */
const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** Deepest stack that is remembered. */
const FRAMES = 40;
/** Most frames that a report shows. */
const SHOWN_FRAMES = 6;

/**
 * What a thread has made by way of src and not closed yet: file descriptors, mappings, contexts of asynchronous I/O,
 * threads. The suite keeps one a thread (`track-opened.ts`); no program of the package does.
 */
export class Opened {
  readonly #things: Map<string, Maker> = new Map();
  #ranges: MappedRange[] = [];

  /** @param key What {@link closed} is called with later, such as `descriptor 7`. */
  opened(key: string, what: string): void {
    this.#things.set(key, { what, at: here() });
  }

  closed(key: string): void {
    this.#things.delete(key);
  }

  /** A mapping takes the place of what was at its addresses before. mmap(2), MAP_FIXED */
  mapped(address: number, sizeBytes: number, what: string): void {
    this.unmapped(address, sizeBytes);
    this.#ranges.push({ address, end: address + wholePages(sizeBytes), what, at: here() });
  }

  /** Parts of mappings may go, and several at once. munmap(2) */
  unmapped(address: number, sizeBytes: number): void {
    const end = address + wholePages(sizeBytes);
    this.#ranges = this.#ranges.flatMap((range) =>
      [
        { ...range, end: Math.min(range.end, address) },
        { ...range, address: Math.max(range.address, end) },
      ].filter((rest) => rest.address < rest.end),
    );
  }

  /**
   * A line for each place in src whose things are still there: what they are, and which lines led to it.
   *
   * @param isOpen Whether the process still has a descriptor.
   */
  left(isOpen: (descriptor: number) => boolean): readonly string[] {
    const things = [...this.#things].filter(([key]) => !key.startsWith("descriptor ") || isOpen(Number(key.slice(11))));
    const byPlace = new Map<string, string[]>();
    for (const { what, at } of [...things.map(([, thing]) => thing), ...this.#ranges]) {
      const place = placeOf(at);
      if (place !== undefined) byPlace.set(place, [...(byPlace.get(place) ?? []), what]);
    }
    return [...byPlace].map(([place, [first = "", ...others]]) => {
      const more = others.length > 0 ? ` and ${others.length} more` : "";
      return `not closed: ${first}${more}, made at ${place}`;
    });
  }
}

/** The lines of the project that led to it; `undefined` for what a test opens by itself, which is not src's. */
function placeOf(at: Error): string | undefined {
  const frames = (at.stack ?? "").split("\n").filter((frame) => frame.includes(ROOT));
  const lines = frames.map((frame) => frame.trim().replace(/^at /, "").replace(ROOT, "").replace("dist/", ""));
  const shown = lines.filter((line) => !/\btest\/(track-)?opened\./.test(line)).slice(0, SHOWN_FRAMES);
  return /(^|\()src\//.test(shown[0] ?? "") ? shown.join(" < ") : undefined;
}

const wholePages = (sizeBytes: number): number => Math.ceil(sizeBytes / 4096) * 4096;

function here(): Error {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = FRAMES;
  const error = new Error("made here");
  Error.stackTraceLimit = limit;
  return error;
}
