import t from "tap";
import {
  alignDown,
  alignUp,
  allOnes,
  gpaFromHalves,
  hex,
  highHalf,
  isPowerOfTwo,
  lowHalf,
  u64FromHalves,
} from "../../../src/base/units.ts";

t.test("u64FromHalves() is exact up to 2^53 and undefined above", async (t) => {
  t.equal(u64FromHalves(0x89ab_cdef, 0x1234), 0x1234_89ab_cdef);
  t.equal(u64FromHalves(0xffff_ffff, 0x1f_ffff), 2 ** 53 - 1);
  t.equal(u64FromHalves(0, 0x20_0000), undefined);
  t.equal(u64FromHalves(-1, 0), 0xffff_ffff, "a signed half is taken as unsigned");
  t.equal(u64FromHalves(0, -1), undefined);
  t.equal(gpaFromHalves(0xfee0_0000, 0), 0xfee0_0000);
  t.equal(gpaFromHalves(0, 0xffff_ffff), undefined);
});

t.test("lowHalf() and highHalf() take a number apart", async (t) => {
  t.equal(lowHalf(0x1_2345_89ab_cdef), 0x89ab_cdef);
  t.equal(highHalf(0x1_2345_89ab_cdef), 0x1_2345);
  t.equal(highHalf(2 ** 53 - 1), 0x1f_ffff);
  t.equal(highHalf(0xffff_ffff), 0);
});

t.test("alignUp() and alignDown() go to the next multiple, beyond 32 bits too", async (t) => {
  t.equal(alignUp(0x1001, 0x1000), 0x2000);
  t.equal(alignUp(0x1000, 0x1000), 0x1000);
  t.equal(alignUp(0, 16), 0);
  t.equal(alignUp(2 ** 46 + 1, 2 ** 32), 2 ** 46 + 2 ** 32);
  t.equal(alignDown(2 ** 46 - 1, 2 ** 32), 2 ** 46 - 2 ** 32);
  t.equal(alignDown(0xfff, 0x1000), 0);
  t.equal(alignUp(2 ** 53 - 4, 3), 2 ** 53 - 2, "an alignment that is not a power of two");
});

t.test("isPowerOfTwo() knows powers from their neighbours", async (t) => {
  for (let exponent = 0; exponent <= 52; exponent++) {
    const power = 2 ** exponent;
    t.ok(isPowerOfTwo(power), `2^${exponent}`);
    if (exponent >= 2) t.notOk(isPowerOfTwo(power + 1) || isPowerOfTwo(power - 1), `beside 2^${exponent}`);
  }
  for (const value of [0, -4, 0.5, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) t.notOk(isPowerOfTwo(value), `${value}`);
});

t.test("allOnes() and hex() speak of widths and addresses", async (t) => {
  t.same([allOnes(1), allOnes(2), allOnes(4)], [0xff, 0xffff, 0xffff_ffff]);
  t.equal(hex(0xfee0_0000), "0xfee00000");
  t.equal(hex(0xffff_8000_0000_0000n), "0xffff800000000000");
});
