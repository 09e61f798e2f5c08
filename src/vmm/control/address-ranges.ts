/** A stretch of addresses; `end` is the first one behind it. */
export interface AddressRange {
  readonly start: number;
  readonly end: number;
}

/** What both lists cover, in order. Each list is in order and without overlaps. */
export function intersect(a: readonly AddressRange[], b: readonly AddressRange[]): readonly AddressRange[] {
  return a.flatMap((one) =>
    b
      .map((other) => ({ start: Math.max(one.start, other.start), end: Math.min(one.end, other.end) }))
      .filter((range) => range.start < range.end),
  );
}

/** The list without a hole. */
export function without(ranges: readonly AddressRange[], hole: AddressRange): readonly AddressRange[] {
  return intersect(ranges, [
    { start: 0, end: hole.start },
    { start: hole.end, end: Number.POSITIVE_INFINITY },
  ]);
}

export const sizeOf = (range: AddressRange): number => range.end - range.start;
export const totalSize = (ranges: readonly AddressRange[]): number =>
  ranges.reduce((sum, range) => sum + sizeOf(range), 0);
