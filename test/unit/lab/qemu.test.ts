import t from "tap";
import { nestsSoundly, parseQemuVersion } from "../../../lab/qemu.ts";

t.test("parseQemuVersion() reads what QEMU says of itself, and nestsSoundly() compares both parts", async (t) => {
  const old = parseQemuVersion("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c)");
  t.same(old, [7, 2]);
  t.same(parseQemuVersion("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), [10, 0]);
  t.equal(parseQemuVersion("no such program"), undefined);
  const judged = [
    [7, 2],
    [9, 0],
    [9, 1],
    [10, 0],
  ] as const;
  t.same(
    judged.map((version) => nestsSoundly(version)),
    [false, false, true, true],
  );
});
