import t from "tap";
import { HostError, SpecError } from "../../../src/base/errors.ts";
import { commandRows, findCommand } from "../../../src/cli/commands.ts";
import { runHelp } from "../../../src/cli/help.ts";
import { runOptions } from "../../../src/cli/options/options.ts";
import { describeError, formatSize, formatTable, styleFor } from "../../../src/cli/output.ts";
import { formatPlan } from "../../../src/cli/plan-view.ts";

const plain = styleFor({}, {});

t.test("styleFor() colours terminals only, and not where NO_COLOR is set", async (t) => {
  t.equal(styleFor({ isTTY: true }, {}).red("x"), "\x1b[31mx\x1b[0m");
  t.equal(styleFor({ isTTY: true }, { NO_COLOR: "1" }).red("x"), "x");
  t.equal(styleFor({ isTTY: true }, { NO_COLOR: "" }).red("x"), "\x1b[31mx\x1b[0m", "an empty NO_COLOR means nothing");
  t.equal(styleFor({ isTTY: true }, { TERM: "dumb" }).bold("x"), "x");
  t.equal(styleFor({}, {}).bold("x"), "x");
});

t.test(
  "describeError() shows one line for what the user or the host did, and a stack for our own errors",
  async (t) => {
    t.same(describeError(new SpecError("TSVMM_VALUE_INVALID", "--memory", "too few"), plain), {
      text: "tsvmm: --memory: too few",
      status: 2,
    });
    t.same(describeError(new HostError("TSVMM_HOST_CALL", "Cannot open /dev/kvm", "load the module"), plain), {
      text: "tsvmm: Cannot open /dev/kvm (load the module)",
      status: 1,
    });
    const limited = Object.assign(new Error("too many"), { code: "EMFILE", syscall: "open", path: "/x" });
    t.same(describeError(limited, plain), {
      text: "tsvmm: Cannot open /x: EMFILE (raise the limit of open files: ulimit -n)",
      status: 1,
    });
    const ours = describeError(new TypeError("oops"), plain);
    t.match(ours.text, /^tsvmm: internal error, please report it\nTypeError: oops\n {4}at /);
    t.equal(ours.status, 1);
    t.match(describeError("text", plain).text, /text$/);
  },
);

t.test(
  "describeError() keeps what a user typed on one line, of a length to read, away from the terminal",
  async (t) => {
    const text = (message: string): string =>
      describeError(new SpecError("TSVMM_VALUE_INVALID", "--device", message), plain).text;
    t.equal(text("no a\nb"), "tsvmm: --device: no a\\nb");
    t.equal(text("no \x1b[2J\x07\u009b\r\t"), "tsvmm: --device: no \\x1b[2J\\x07\\x9b\\r\\t");
    t.equal(text("no \u202e\u2028\ud800"), "tsvmm: --device: no \\u{202e}\\u{2028}\\u{d800}");
    t.equal(text("no ü✓𝄞"), "tsvmm: --device: no ü✓𝄞");
    const long = text("y".repeat(491));
    t.equal(long, `tsvmm: --device: ${"y".repeat(290)}… (51 more characters) …${"y".repeat(150)}`);
    t.equal(text("y".repeat(490)), `tsvmm: --device: ${"y".repeat(490)}`);
  },
);

t.test(
  "describeError() keeps what files are called away from the terminal, and details on lines of their own",
  async (t) => {
    const path = "/tmp/\x1b[2J\nx";
    t.equal(
      describeError(new HostError("TSVMM_HOST_CALL", `Cannot open ${path}`, "remove it"), plain).text,
      "tsvmm: Cannot open /tmp/\\x1b[2J\\nx (remove it)",
    );
    t.equal(
      describeError(new HostError("TSVMM_HOST_CALL", "Cannot go on", undefined, "at 8:0\n   rax 0\x1b"), plain).text,
      "tsvmm: Cannot go on\nat 8:0\n   rax 0\\x1b",
    );
    const ours = new Error(`oops ${path}`);
    t.match(
      describeError(ours, plain).text,
      /^tsvmm: internal error, please report it\nError: oops \/tmp\/\\x1b\[2J\nx\n {4}at /,
    );
  },
);

t.test("formatSize() writes sizes as the command line takes them", async (t) => {
  t.equal(formatSize(536_870_912), "512M");
  t.equal(formatSize(4096), "4K");
  t.equal(formatSize(2 ** 40), "1T");
  t.equal(formatSize(8), "8");
  t.equal(formatSize(0), "0");
});

t.test("formatTable() aligns columns", async (t) => {
  t.equal(
    formatTable(
      [
        ["a", "bb", "c"],
        ["aaa", "b", "cc"],
      ],
      " ",
    ),
    " a    bb  c\n aaa  b   cc\n",
  );
  t.equal(
    formatTable([
      ["/\x1b[2J", "x"],
      ["123456789", "y"],
    ]),
    "/\\x1b[2J   x\n123456789  y\n",
    "as wide as it is shown",
  );
  t.equal(formatTable([]), "");
});

t.test("runHelp() begins with examples and names every option, key and command", async (t) => {
  const help = runHelp(runOptions(), commandRows(), plain);
  const at = (text: string): number => help.indexOf(text);
  t.ok(at("Examples:") > 0 && at("Examples:") < at("Usage:") && at("Usage:") < at("What to boot:"));
  t.match(help, "--cpus 4 --memory size=512M --device path=/sys/bus/pci/devices/0000:01:00.0/");
  for (const row of runOptions()) {
    const start = at(`\n  ${row.short === undefined ? "" : `${row.short}, `}${row.name}`);
    t.ok(start > 0, row.name);
    const ofOption = help.slice(start, help.indexOf("\n  -", start + 1)); // until the next one
    for (const key of "keys" in row.form ? row.form.keys : []) {
      const isTaught = ofOption.includes(`        ${key.name}=`);
      t.equal(isTaught, key.isHidden !== true, `${key.name}: another VMM's spelling is taken, not taught`);
    }
  }
  t.match(help, "\n  run  ");
  t.ok(
    help.split("\n").every((line) => line.length <= 125),
    "lines fit a terminal",
  );
});

t.test("findCommand() takes run when none is named, and guesses", async (t) => {
  t.match(findCommand(["--kernel", "x"]), { command: { name: "run" }, rest: ["--kernel", "x"] });
  t.match(findCommand([]), { command: { name: "run" }, rest: [] });
  t.match(findCommand(["run", "--kernel", "x"]), { command: { name: "run" }, rest: ["--kernel", "x"] });
  t.match(findCommand(["help"]), { rest: ["--help"] });
  t.throws(() => findCommand(["rnu"]), { name: "SpecError" });
  t.throws(() => findCommand(["runn"]), { message: "unknown command 'runn'; did you mean 'run'?" });
  t.throws(() => findCommand(["vmlinux"]), { message: /^unknown command 'vmlinux'.*a kernel goes after --kernel$/ });
});

t.test("formatPlan() shows memory, ports, interrupts, and how each part of a BAR is reached", async (t) => {
  const text = formatPlan(
    {
      cpuCount: 4,
      memoryBytes: 536_870_912,
      kernel: "vmlinux",
      bootProtocol: "PVH",
      cmdline: "console=ttyS0",
      configDump: "",
      memoryMap: [{ name: "RAM", address: 0, sizeBytes: 0xa_0000 }],
      ports: [{ name: "COM1", address: 0x3f8, sizeBytes: 8 }],
      interrupts: [{ gsi: 4, name: "COM1" }],
      functions: [
        {
          bdf: "00:03.0",
          id: "_vfio0",
          title: "host 0000:01:00.0 [8086:10d3]",
          interrupts: "MSI-X, 5 vectors",
          bars: [
            {
              index: 3,
              kind: "mem32",
              sizeBytes: 0x4000,
              address: 0xc000_0000,
              parts: [
                { offset: 0, sizeBytes: 0x1000, way: "trapped", reason: "MSI-X table" },
                { offset: 0x1000, sizeBytes: 0x3000, way: "mapped" },
              ],
            },
          ],
        },
      ],
    },
    plain,
  );
  t.equal(
    text,
    [
      "Kernel        vmlinux (PVH)",
      "Command line  console=ttyS0",
      "CPUs          4",
      "Memory        512M",
      "",
      "Memory map",
      "  0x0000000000-0x000009ffff  640K  RAM",
      "",
      "I/O ports",
      "  0x03f8-0x03ff  8  COM1",
      "",
      "Interrupt lines",
      "  GSI 4  COM1",
      "",
      "PCI functions",
      "  00:03.0  host 0000:01:00.0 [8086:10d3] (_vfio0), interrupts: MSI-X, 5 vectors",
      "    BAR 3  mem32 16K at 0xc0000000  +0x0000 4K trapped: MSI-X table",
      "                                    +0x1000 12K mapped",
      "",
    ].join("\n"),
  );
});
