import t from "tap";
import { parseLabArguments } from "../../../lab/arguments.ts";

t.test("parseLabArguments() ends its own options at the command", (t) => {
  const parsed = parseLabArguments([
    "--device",
    "edu",
    "--device=nvme,image=a",
    "--timeout",
    "60",
    "lspci",
    "--device",
  ]);
  t.same(parsed?.devices, [{ model: "edu" }, { model: "nvme", image: "a" }]);
  t.same(parsed?.command, ["lspci", "--device"], "what follows the command is the command's");
  t.equal(parsed?.timeoutMs, 60_000);
  t.same(parseLabArguments(["--tcg", "--", "--odd-program"])?.command, ["--odd-program"]);
  t.end();
});

t.test("parseLabArguments() has the documented defaults", (t) => {
  t.match(parseLabArguments(["true"]), {
    devices: [],
    timeoutMs: 600_000,
    cpus: 2,
    memoryMib: 4096,
    drivers: "vfio",
    accelerator: undefined,
  });
  t.equal(parseLabArguments(["--help"]), undefined);
  t.end();
});

t.test("parseLabArguments() refuses what it does not understand", (t) => {
  for (const args of [
    [],
    ["--nonsense", "x"],
    ["--cpus", "0", "x"],
    ["--tcg", "--kvm", "x"],
    ["--timeout", "soon", "x"],
  ]) {
    t.throws(() => parseLabArguments(args), { name: "SpecError" }, args.join(" "));
  }
  t.end();
});
