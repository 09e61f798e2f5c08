/** Where a function sits: PCI segment, bus, device and function number. */
export interface Bdf {
  /** 0 to 0xffff in hardware; domains that Linux makes for the functions behind Intel VMD begin at 0x10000. */
  readonly segment: number;
  /** 0 to 0xff. */
  readonly bus: number;
  /** 0 to 31. */
  readonly device: number;
  /** 0 to 7. */
  readonly function: number;
}

const TEXT = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/i;

/** Reads "0000:01:00.0", "10000:e1:00.0" or, for segment 0, "01:00.0"; `undefined` when it is none of them. */
export function parseBdf(text: string): Bdf | undefined {
  const match = TEXT.exec(text);
  if (match === null) return undefined;
  const [segment, bus, device, fn] = match.slice(1).map((digits) => Number.parseInt(digits ?? "0", 16));
  if (segment === undefined || bus === undefined || device === undefined || fn === undefined) return undefined;
  return device > 31 ? undefined : { segment, bus, device, function: fn };
}

/** Writes the long form, as sysfs and VFIO spell it: "0000:01:00.0". */
export function formatBdf(bdf: Bdf): string {
  const digits = (value: number, count: number): string => value.toString(16).padStart(count, "0");
  return `${digits(bdf.segment, 4)}:${digits(bdf.bus, 2)}:${digits(bdf.device, 2)}.${bdf.function}`;
}
