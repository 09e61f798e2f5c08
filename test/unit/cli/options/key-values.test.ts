import t from "tap";
import { readKeys, splitList } from "../../../../src/cli/options/key-values.ts";

const KEYS = [
  { name: "path", value: "PATH", help: "" },
  { name: "readonly", value: "on|off", help: "" },
  { name: "bars", aliases: ["x_bars"], value: "[N]", help: "" },
];
const read = (text: string): Record<string, string> => Object.fromEntries(readKeys("--disk", text, KEYS, "path"));

t.test("readKeys() reads comma-separated keys, the first one's name optional", async (t) => {
  t.same(read("path=/a,readonly=on"), { path: "/a", readonly: "on" });
  t.same(read("/a,readonly=on"), { path: "/a", readonly: "on" });
  t.same(read("readonly=on,path=/a=b"), { readonly: "on", path: "/a=b" });
  t.same(read("/a=b"), { path: "/a=b" }, "what is before the equals sign is no key");
});

t.test("readKeys() keeps commas in quotes and brackets", async (t) => {
  t.same(read('path="/a,b",readonly=on'), { path: "/a,b", readonly: "on" });
  t.same(read("/a,bars=[0,2],readonly=off"), { path: "/a", bars: "[0,2]", readonly: "off" });
  t.same(splitList("--x", 'a,"[",b'), ["a", '"["', "b"]);
});

t.test("readKeys() takes other spellings of a key as the same key", async (t) => {
  t.same(read("/a,x_bars=[1]"), { path: "/a", bars: "[1]" });
  t.throws(() => read("/a,bars=[0],x_bars=[1]"), { message: "--disk: bars is given twice" });
});

t.test("readKeys() refuses what it does not understand, with a guess", async (t) => {
  const messages: readonly (readonly [string, string | RegExp])[] = [
    ["/a,redonly=on", "--disk: unknown key 'redonly' (keys: path, readonly, bars, x_bars); did you mean 'readonly'?"],
    ["/a,num_queues=4", /^--disk: unknown key 'num_queues' \(keys: path, readonly, bars, x_bars\)$/],
    ["path=/a,path=/b", "--disk: path is given twice"],
    ["/a,path=/b", "--disk: path is given twice"],
    ["/a,readonly", "--disk: 'readonly' is not of the form key=value: write readonly=…"],
    ["/a,readonyl", "--disk: 'readonyl' is not of the form key=value; did you mean 'readonly'?"],
    ["/a,readonly=", "--disk: readonly needs a value: readonly=on|off"],
    ["/a,,readonly=on", "--disk: '/a,,readonly=on' has an empty item"],
    ["/a,", "--disk: '/a,' has an empty item"],
    ["", "--disk: a value is needed"],
    ['path="/a', "--disk: 'path=\"/a' has a quote that is not closed"],
    ["/a,bars=[0", "--disk: '/a,bars=[0' has a bracket that is not closed"],
    ["/a,bars=0]", "--disk: '/a,bars=0]' closes a bracket that was not opened"],
  ];
  for (const [text, message] of messages) t.throws(() => read(text), { path: "--disk", message }, text);
});
