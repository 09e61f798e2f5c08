const EINVAL = 22;

/** VFIO_DEVICE_SET_IRQS, read and written down: flags, index, start, count and eventfds of each call. */
export class VfioIrqs {
  /** "0x24 2 0 2: 5 6": flags, index, start, count, data. */
  readonly calls: string[] = [];
  /** What the next calls answer: how many vectors there would be. */
  granted = 0;

  /** @returns The ioctl's result; negative for an errno. */
  set(view: DataView): number {
    const [argsz, flags, index, start, count] = [0, 4, 8, 12, 16].map((at) => view.getUint32(at, true));
    if (argsz !== view.byteLength || flags === undefined || count === undefined) return -EINVAL;
    const hasData = (flags & 4) !== 0;
    if (argsz !== 20 + (hasData ? 4 * count : 0)) return -EINVAL;
    const data = hasData ? Array.from({ length: count }, (_, at) => view.getInt32(20 + 4 * at, true)) : [];
    this.calls.push(`0x${flags.toString(16)} ${index} ${start} ${count}${hasData ? `: ${data.join(" ")}` : ""}`);
    return this.granted;
  }
}
