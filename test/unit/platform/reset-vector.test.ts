import t from "tap";
import { RESET_VECTOR, resetVectorCode } from "../../../src/platform/reset-vector.ts";

t.test("resetVectorCode() writes the reset register in 16-bit code that fits behind f000:fff0", async (t) => {
  t.equal(RESET_VECTOR, 0xf000 * 16 + 0xfff0);
  const code = resetVectorCode(0x602, 1);
  // mov al, 1; mov dx, 0x602; out dx, al; hlt; jmp $-1
  t.same([...code], [0xb0, 0x01, 0xba, 0x02, 0x06, 0xee, 0xf4, 0xeb, 0xfd]);
  t.ok(code.length <= 16, "before the first megabyte ends");
});
