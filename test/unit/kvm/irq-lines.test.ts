import t from "tap";
import { gsi } from "../../../src/base/units.ts";
import { IrqLines } from "../../../src/kvm/irq-lines.ts";

t.test("IrqLines makes lines on one pin a wired OR and tells KVM of changes only", (t) => {
  const calls: string[] = [];
  const lines = new IrqLines({ setIrqLine: (pin, isHigh) => calls.push(`${pin} ${isHigh ? "high" : "low"}`) });
  const first = lines.line(gsi(16), "first");
  const second = lines.line(gsi(16), "second");
  const elsewhere = lines.line(gsi(4), "elsewhere");
  first.setLevel(false);
  first.setLevel(true);
  first.setLevel(true);
  second.setLevel(true);
  elsewhere.setLevel(true);
  first.setLevel(false);
  first.setLevel(false);
  t.same(calls, ["16 high", "4 high"]);
  second.setLevel(false);
  t.same(calls, ["16 high", "4 high", "16 low"]);
  t.same([first.name, first.gsi], ["first", 16]);
  t.end();
});
