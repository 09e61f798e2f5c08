import t from "tap";
import { RoutingTable } from "../../../src/kvm/routing-table.ts";

interface Entry {
  readonly gsi: number;
  readonly type: number;
  readonly words: readonly number[];
}

/** Reads struct kvm_irq_routing: a count, then entries of 48 bytes. */
function entriesOf(table: RoutingTable): Entry[] {
  const bytes = table.encode();
  const view = new DataView(bytes.buffer);
  const count = view.getUint32(0, true);
  if (bytes.length !== 8 + 48 * count) throw new Error(`${bytes.length} bytes for ${count} entries`);
  return Array.from({ length: count }, (_, index) => {
    const word = (offset: number): number => view.getUint32(8 + 48 * index + offset, true);
    return { gsi: word(0), type: word(4), words: [word(16), word(20), word(24)] };
  });
}

const MESSAGE = { addressLow: 0xfee0_1000, addressHigh: 0x100, data: 0x4041 };

t.test("RoutingTable.encode() wires the interrupt controllers as a PC does", (t) => {
  const entries = entriesOf(new RoutingTable(4096));
  t.equal(entries.length, 38, "PIC pins 0 to 15 and I/O APIC pins 0 to 23, but for the cascade");
  t.ok(entries.every(({ type }) => type === 1));
  const wires = (gsi: number): (readonly number[])[] =>
    entries.filter((entry) => entry.gsi === gsi).map(({ words }) => words.slice(0, 2));
  t.same(
    wires(0),
    [
      [0, 0],
      [2, 2],
    ],
    "the timer: PIC master pin 0, I/O APIC pin 2",
  );
  t.same(wires(2), [], "the cascade");
  t.same(
    wires(9),
    [
      [1, 1],
      [2, 9],
    ],
    "PIC slave pin 1",
  );
  t.same(wires(23), [[2, 23]]);
  t.end();
});

t.test("RoutingTable.encode() adds an entry for each message", (t) => {
  const table = new RoutingTable(4096);
  const first = table.takeGsi();
  const second = table.takeGsi();
  t.equal(first, 24, "the first GSI above the I/O APIC's pins");
  if (first === undefined || second === undefined) throw new Error("no GSI");
  table.setMessage(second, MESSAGE);
  t.same(entriesOf(table).slice(38), [{ gsi: 25, type: 2, words: [0xfee0_1000, 0x100, 0x4041] }]);
  t.end();
});

t.test("RoutingTable.isDirty tells a changed message from a repeated one", (t) => {
  const table = new RoutingTable(4096);
  const gsi = table.takeGsi();
  if (gsi === undefined) throw new Error("no GSI");
  t.equal(table.isDirty, true, "KVM has another table at first");
  table.markPushed();
  table.setMessage(gsi, MESSAGE);
  t.equal(table.isDirty, true);
  table.markPushed();
  table.setMessage(gsi, { ...MESSAGE });
  t.equal(table.isDirty, false, "the same message");
  table.setMessage(gsi, { ...MESSAGE, data: 0x4042 });
  t.equal(table.isDirty, true);
  table.markPushed();
  table.releaseGsi(gsi);
  t.equal(table.isDirty, false, "a released entry does no harm in KVM's table");
  t.equal(entriesOf(table).length, 38);
  t.end();
});

t.test("RoutingTable.takeGsi() reuses released GSIs and ends at KVM's limit of entries", (t) => {
  const table = new RoutingTable(41);
  const taken = [table.takeGsi(), table.takeGsi(), table.takeGsi()];
  t.same(taken, [24, 25, 26]);
  t.equal(table.takeGsi(), undefined, "38 entries and three are all that fit");
  if (taken[1] === undefined) throw new Error("no GSI");
  table.releaseGsi(taken[1]);
  t.equal(table.takeGsi(), 25);
  t.end();
});
