import t from "tap";
import { Bus, type BusDevice } from "../../../src/base/bus.ts";
import type { Width } from "../../../src/base/units.ts";

/** Bytes that remember each access as `r4@0` or `w1@3=7f`. */
class Bytes implements BusDevice {
  readonly name: string;
  readonly accesses: string[] = [];
  readonly #bytes: DataView;

  constructor(name: string, values: readonly number[]) {
    this.name = name;
    this.#bytes = new DataView(Uint8Array.from(values).buffer);
  }

  read(offset: number, width: Width): number {
    this.accesses.push(`r${width}@${offset}`);
    if (width === 1) return this.#bytes.getUint8(offset);
    return width === 2 ? this.#bytes.getUint16(offset, true) : this.#bytes.getInt32(offset, true);
  }

  write(offset: number, width: Width, value: number): void {
    this.accesses.push(`w${width}@${offset}=${value.toString(16)}`);
  }
}

function build() {
  const unclaimed: string[] = [];
  const bus = new Bus("port", (name, address, width, value) =>
    unclaimed.push(`${name} ${address.toString(16)} ${width} ${value === undefined ? "r" : value.toString(16)}`),
  );
  return { bus, unclaimed };
}

t.test("Bus gives accesses to the holder, relative to its base", async (t) => {
  const { bus } = build();
  const device = new Bytes("a", [0x11, 0x22, 0x33, 0x84]);
  bus.attach(0x100, 4, device);
  t.equal(bus.read(0x100, 4), 0x8433_2211, "unsigned");
  t.equal(bus.read(0x102, 2), 0x8433);
  bus.write(0x103, 1, 0x7f);
  t.same(device.accesses, ["r4@0", "r2@2", "w1@3=7f"]);
});

t.test("Bus answers all ones and reports unclaimed addresses", async (t) => {
  const { bus, unclaimed } = build();
  t.equal(bus.read(0x80, 1), 0xff);
  t.equal(bus.read(0x80, 2), 0xffff);
  t.equal(bus.read(0x80, 4), 0xffff_ffff);
  bus.write(0x80, 2, 0x1234);
  t.same(unclaimed, ["port 80 1 r", "port 80 2 r", "port 80 4 r", "port 80 2 1234"]);
});

t.test("Bus splits an access that crosses the end of a range into bytes", async (t) => {
  const { bus, unclaimed } = build();
  const low = new Bytes("low", [0x11, 0x22]);
  const high = new Bytes("high", [0x33, 0x44]);
  bus.attach(0x10, 2, low);
  bus.attach(0x13, 2, high);
  t.equal(bus.read(0x11, 4), 0x4433_ff22);
  t.same([low.accesses, high.accesses], [["r1@1"], ["r1@0", "r1@1"]]);
  t.same(unclaimed, ["port 12 1 r"]);
  bus.write(0x0f, 4, 0xaabb_ccdd);
  t.same(low.accesses.slice(1), ["w1@0=cc", "w1@1=bb"]);
  t.same(unclaimed.slice(1), ["port f 1 dd", "port 12 1 aa"]);
});

t.test("Bus.attach() refuses overlaps and empty ranges, and names the holder", async (t) => {
  const { bus } = build();
  bus.attach(0x3f8, 8, new Bytes("COM1", []));
  for (const [base, size] of [
    [0x3f0, 9],
    [0x3ff, 1],
    [0x3f0, 0x100],
    [0x3fa, 2],
  ] as const) {
    t.throws(() => bus.attach(base, size, new Bytes("other", [])), { message: /COM1 is there/ });
  }
  t.throws(() => bus.attach(0x10, 0, new Bytes("empty", [])), RangeError);
  t.throws(() => bus.attach(-1, 4, new Bytes("below", [])), RangeError);
  bus.attach(0x400, 1, new Bytes("next", []));
  bus.attach(0x3f7, 1, new Bytes("before", []));
  t.same(
    bus.ranges.map((range) => range.device.name),
    ["before", "COM1", "next"],
  );
});

t.test("Bus.detach() frees the range at once, also after it was used last", async (t) => {
  const { bus } = build();
  const range = bus.attach(0x100, 4, new Bytes("a", [1, 2, 3, 4]));
  t.equal(bus.read(0x100, 1), 1);
  bus.detach(range);
  bus.detach(range);
  t.equal(bus.read(0x100, 1), 0xff);
  t.equal(bus.holder(0x100, 4), undefined);
});

t.test("Bus.find() finds each of many ranges, and addresses above 4 GiB", async (t) => {
  const { bus } = build();
  const base = 0x40_0000_0000;
  for (let index = 0; index < 50; index++) {
    const at = base + 0x2000 * ((index * 7) % 50);
    bus.attach(at, 0x1000, new Bytes(at.toString(16), []));
  }
  for (let index = 0; index < 50; index++) {
    const at = base + 0x2000 * index;
    t.equal(bus.find(at + 0xfff)?.device.name, at.toString(16));
    t.equal(bus.find(at + 0x1000), undefined);
  }
});

t.test("Bus.accesses() counts by device, over all its ranges and after they are gone", async (t) => {
  const { bus } = build();
  const range = bus.attach(0x10, 4, new Bytes("a", [1, 2, 3, 4]));
  bus.attach(0x20, 4, new Bytes("a", [1, 2, 3, 4]));
  bus.attach(0x30, 4, new Bytes("idle", []));
  bus.read(0x10, 4);
  bus.write(0x20, 1, 0);
  bus.read(0x12, 4); // two of its bytes are in the range
  bus.detach(range);
  bus.read(0x10, 4);
  t.same([...bus.accesses()], [["a", 4]]);
});

t.test("Bus hands eight bytes whole to a device that takes them so, and halves to others, low first", async (t) => {
  const { bus } = build();
  const halves = new Bytes("halves", [1, 0, 0, 0, 2, 0, 0, 0]);
  const whole: string[] = [];
  const other = new Bytes("whole", [0, 0, 0, 0, 0, 0, 0, 0]);
  bus.attach(0x100, 8, halves);
  bus.attach(0x200, 16, {
    name: "whole",
    read: (offset, width) => other.read(offset % 8, width),
    write: (offset, width, value) => other.write(offset, width, value),
    readWide: (offset) => {
      whole.push(`r@${offset}`);
      return { low: 5, high: 6 };
    },
    writeWide: (offset, { low, high }) => whole.push(`w@${offset}=${high}:${low}`),
  });
  t.same(bus.readWide(0x100), { low: 1, high: 2 });
  bus.writeWide(0x100, { low: 3, high: 4 });
  t.same(halves.accesses, ["r4@0", "r4@4", "w4@0=3", "w4@4=4"]);
  t.same(bus.readWide(0x208), { low: 5, high: 6 });
  bus.writeWide(0x204, { low: 7, high: 8 });
  t.same(whole, ["r@8", "w@4=8:7"]);
  t.same(bus.readWide(0x300), { low: 0xffff_ffff, high: 0xffff_ffff }, "no device");
  bus.writeWide(0x20c, { low: 9, high: 10 });
  t.same(other.accesses, ["w4@12=9"], "the half that is on the bus");
});
