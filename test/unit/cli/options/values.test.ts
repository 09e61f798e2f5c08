import t from "tap";
import {
  readChoice,
  readInteger,
  readIntegers,
  readPath,
  readSize,
  readSwitch,
} from "../../../../src/cli/options/values.ts";

t.test("readSize() reads bytes and powers of 1024", async (t) => {
  t.equal(readSize("--memory", "4096"), 4096);
  t.equal(readSize("--memory", "64K"), 65_536);
  t.equal(readSize("--memory", "512M"), 536_870_912);
  t.equal(readSize("--memory", "4g"), 4_294_967_296);
  t.equal(readSize("--memory", "2T"), 2_199_023_255_552);
});

t.test("readSize() refuses everything else in one line", async (t) => {
  t.throws(() => readSize("--memory", "1.5G"), {
    message: "--memory: '1.5G' is not a size: it has to be whole, write 1536M",
  });
  for (const text of ["", "512X", "512MB", "512MiB", "-1", "M", "0x100", "1e9", "1.1G", "5 M"]) {
    t.throws(
      () => readSize("--memory", text),
      { message: /^--memory: '.*' is not a size: write a whole number/ },
      text,
    );
  }
  t.throws(() => readSize("--memory", "9999999T"), { message: "--memory: '9999999T' is too large" });
});

t.test("readInteger() and readIntegers() read decimal and hexadecimal numbers", async (t) => {
  t.equal(readInteger("--debug-exit", "0xf4"), 244);
  t.equal(readInteger("--debug-exit", "244"), 244);
  for (const text of ["", "f4", "1.5", "-1", "0x", "1 "]) {
    t.throws(() => readInteger("--debug-exit", text), { message: `--debug-exit: '${text}' is not a whole number` });
  }
  t.same(readIntegers("--device", "[0, 2]"), [0, 2]);
  t.same(readIntegers("--device", "3"), [3]);
  t.same(readIntegers("--device", "[]"), []);
  t.throws(() => readIntegers("--device", "[0,x]"), { message: "--device: 'x' is not a whole number" });
});

t.test("readSwitch() reads on and off", async (t) => {
  t.equal(readSwitch("--disk readonly", "on"), true);
  t.equal(readSwitch("--disk readonly", "true"), true);
  t.equal(readSwitch("--disk readonly", "off"), false);
  t.equal(readSwitch("--disk readonly", "false"), false);
  t.throws(() => readSwitch("--disk readonly", "yes"), { message: "--disk readonly: 'yes' is neither on nor off" });
});

t.test("readChoice() guesses what was meant", async (t) => {
  t.equal(readChoice("--device bars", "trap", ["map", "trap"]), "trap");
  t.throws(() => readChoice("--device bars", "trpa", ["map", "trap"]), {
    message: /^--device bars: 'trpa' is none of map, trap/,
  });
  t.throws(() => readChoice("--device bars", "maps", ["map", "trap"]), { message: /did you mean 'map'\?$/ });
});

t.test("readPath() expands the home directory at the start, as shells do not do after path=", async (t) => {
  t.equal(readPath("~/vmlinux", "/home/me"), "/home/me/vmlinux");
  t.equal(readPath("~/vmlinux", "/"), "/vmlinux");
  t.equal(readPath("~", "/home/me"), "/home/me");
  t.equal(readPath("/a/~/b", "/home/me"), "/a/~/b");
  t.equal(readPath("~other/b", "/home/me"), "~other/b");
});
