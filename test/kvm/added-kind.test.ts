import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { mem32 } from "../../guests/assembler-encoding.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { exit, expect, openFunction, readConfig, tables, writeConfig } from "../../guests/pci-guest.ts";
import { formatOptions } from "../../src/cli/help.ts";
import { runOptions } from "../../src/cli/options/options.ts";
import { parseRun } from "../../src/cli/options/parse.ts";
import { styleFor } from "../../src/cli/output.ts";
import { startCompleted } from "../../src/vmm/machine.ts";
import { addKind } from "../../src/vmm/spec/kinds/list.ts";
import { machineSchema } from "../../src/vmm/spec/machine-schema.ts";
import { missingKvm } from "../support/kvm-guest.ts";
import { STAMP } from "../support/stamp-kind.ts";

/*
 * A kind of device that is not of this program, as docs/contributing/add-a-device.md tells: a description, a factory,
 * and `addKind`, which lists both.
 */

const folder = mkdtempSync(join(tmpdir(), "tsvmm-added-kind-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
t.teardown(addKind(STAMP));

/** Behind the host bridge and the entropy device. */
const FIRST_SLOT = 2;
const VALUES = [0x51a3_0001, 7];

const kernel = join(folder, "stamps.elf");
writeFileSync(
  kernel,
  multibootImage((a) => {
    openFunction(a, FIRST_SLOT); // segments too, which all of them need
    for (const [index, value] of VALUES.entries()) {
      const slot = FIRST_SLOT + index;
      expect(readConfig(a, slot, 0), 0x57a3_1234, 10 * slot);
      writeConfig(a, slot, 0x04, 0x2);
      readConfig(a, slot, 0x10).and("eax", -16).mov("ebx", "eax");
      expect(a.mov("eax", mem32("ebx")), value, 10 * slot + 1);
    }
    exit(a, 0);
    tables(a.label("handler").iret());
  }, 0x4000).bytes,
);
const parse = (...stamps: string[]): ReturnType<typeof parseRun> =>
  parseRun(["--kernel", kernel, "--memory", "16M", "--debug-exit", "0xf4", "--console", "off", ...stamps], folder);

t.test("An added kind has its option, help, checks and schema by its description alone", async (t) => {
  t.match(
    formatOptions(runOptions(), styleFor({ isTTY: false }, {})),
    /--stamp N\[,key=value\] \.\.\.\n +a register with a number\n +id=ID +name in messages\n +value=N /,
  );
  t.throws(() => parse("--stamp", "value=x"), { name: "SpecError", message: /^--stamp: 'x' is not a whole number$/ });
  t.throws(() => parse("--stamp", "id=a"), { message: "--stamp: 'id=a' has no value=" });
  t.throws(() => parse("--stamp", "value=1", "value=1"), { message: "--stamp: 1 is given to another stamp too" });
  t.match(machineSchema(), { properties: { stamps: { items: { required: ["value"] } } } });
});

t.test("A guest finds the devices of an added kind", { skip: missingKvm() }, async (t) => {
  const { spec } = parse("--stamp", ...VALUES.map((value) => `value=${value}`));
  await using machine = await startCompleted(spec);
  t.match(await machine.exited, { reason: "debugExit", status: 1 });
  const names = machine.plan?.functions.map(({ id }) => id);
  t.same(names?.slice(-VALUES.length), ["_stamp0", "_stamp1"]);
});
