import t from "tap";
import { fd, gsi } from "../../../src/base/units.ts";
import { IrqLines, ResampledIrqLines } from "../../../src/kvm/irq-lines.ts";

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

t.test("IrqLines.levels and ResampledIrqLines.driven tell who holds and who drives a pin", (t) => {
  const lines = new IrqLines({ setIrqLine: () => undefined });
  lines.line(gsi(16), "first");
  lines.line(gsi(16), "second").setLevel(true);
  t.same(lines.levels, [
    { name: "first", gsi: 16, isUp: false },
    { name: "second", gsi: 16, isUp: true },
  ]);
  const calls: string[] = [];
  const resampled = new ResampledIrqLines({
    assignIrqfd: (_trigger, pin) => calls.push(`assign ${pin}`),
    deassignIrqfd: (_trigger, pin) => calls.push(`deassign ${pin}`),
  });
  const [one, other] = [resampled.connect(gsi(20), fd(3), fd(4)), resampled.connect(gsi(20), fd(5), fd(6))];
  t.same(resampled.driven, [20, 20]);
  one.disconnect();
  one.disconnect();
  t.same(resampled.driven, [20]);
  other.disconnect();
  t.same(calls, ["assign 20", "assign 20", "deassign 20", "deassign 20"]);
  t.end();
});
