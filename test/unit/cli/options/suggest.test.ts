import t from "tap";
import { didYouMean, editDistance, nearest } from "../../../../src/cli/options/suggest.ts";

t.test("editDistance() counts inserted, deleted and replaced characters", async (t) => {
  t.equal(editDistance("kernel", "kernel"), 0);
  t.equal(editDistance("kernl", "kernel"), 1);
  t.equal(editDistance("kernels", "kernel"), 1);
  t.equal(editDistance("kitten", "sitting"), 3);
  t.equal(editDistance("", "abc"), 3);
});

t.test("nearest() finds the word that was probably meant, whatever its case", async (t) => {
  t.equal(nearest("memroy", ["kernel", "memory", "disk"]), "memory");
  t.equal(nearest("READONLY", ["readonly", "direct"]), "readonly");
  t.equal(nearest("ful", ["null", "off"]), undefined);
  t.equal(nearest("onn", ["on", "off"]), "on");
});

t.test("nearest() does not guess wildly", async (t) => {
  t.equal(nearest("firmware", ["kernel", "memory", "disk"]), undefined);
  t.equal(nearest("x", ["path", "id"]), undefined);
  t.equal(didYouMean("firmware", ["kernel"]), "");
  t.equal(didYouMean("siz", ["size"]), "; did you mean 'size'?");
});
