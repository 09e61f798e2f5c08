import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { bind, unbind } from "../../../src/cli/binding.ts";
import { devices } from "../../../src/cli/devices.ts";
import { doctor } from "../../../src/cli/doctor.ts";
import { parseRun } from "../../../src/cli/options/parse.ts";
import { keysOf } from "../../../src/cli/options/part-options.ts";
import { describeError, styleFor } from "../../../src/cli/output.ts";
import { PASSED_FUNCTION } from "../../../src/vmm/spec/kinds/passed-function.ts";
import { USER_DEVICE } from "../../../src/vmm/spec/kinds/user-device.ts";
import { projectRoot } from "../../../tools/cache.ts";
import { fakeSurroundings } from "../../support/fake-surroundings.ts";
import { HOSTILE_WORDS } from "../../support/hostile-words.ts";
import { deadSocket } from "../../support/socket-pair.ts";

/*
 * Bad input of users, scripts and attackers. The answer is one line of printable characters and status 2, or 1 for a
 * failure of the host. The first test goes through all combinations in this process; the second types the most telling
 * ones into the program that is installed.
 */

/** One line of characters that print, of a readable length, without a stack. */
function isClearLine(text: string): boolean {
  const isOurs = text.startsWith("tsvmm: ") && !text.includes("internal error");
  return isOurs && text.length < 700 && !/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(text);
}

t.test("Every key and word with every hostile value is refused in one clear line", async (t) => {
  const home = mkdtempSync(join(tmpdir(), "tsvmm-bad-input-"));
  t.teardown(() => rmSync(home, { recursive: true, force: true }));
  writeFileSync(join(home, "vmlinux"), "kernel");
  const around = fakeSurroundings(t, [{ bdf: "0000:01:00.0", driver: "nvme", group: 1 }]);
  const socket = deadSocket(t);
  const neverWrites = { write: () => t.fail("it writes"), loadModule: () => t.fail("it loads a module") };
  const accepted: string[] = [];
  const check = async (what: string, work: () => unknown): Promise<void> => {
    try {
      await work();
      accepted.push(what);
    } catch (error) {
      const { text, status } = describeError(error, styleFor({}, {}));
      if (status !== 2 || !isClearLine(text))
        t.fail(`${what}: status ${status}, ${JSON.stringify(text.slice(0, 300))}`);
    }
  };
  const run = (...argv: string[]): unknown => parseRun(["--kernel", "~/vmlinux", ...argv], home);
  for (const value of HOSTILE_WORDS) {
    const shown = JSON.stringify(value.slice(0, 30));
    // No function is 0000:ff:1f.7: a value that is harmless is refused for that.
    for (const { name, aliases = [] } of keysOf("--device", PASSED_FUNCTION.fields)) {
      for (const key of [name, ...aliases]) {
        await check(`--device ${key}=${shown}`, () => run("--device", `0000:ff:1f.7,${key}=${value}`));
      }
    }
    for (const { name } of keysOf("--user-device", USER_DEVICE.fields)) {
      await check(`--user-device ${name}=${shown}`, () => run("--user-device", `${socket},${name}=${value}`));
    }
    await check(`--device ${shown}`, () => run("--device", value));
    await check(`--device=${shown}`, () => run(`--device=${value}`));
    await check(`--user-device=${shown}`, () => run(`--user-device=${value}`));
    await check(`devices ${shown}`, () => devices([value, "0000:ff:1f.7"], around));
    await check(`devices --record ${shown}`, () => devices(["--record", value, "/dev/null"], around));
    await check(`devices --record BDF ${shown} too`, () =>
      devices(["--record", "0000:01:00.0", "/dev/null", value], around),
    );
    await check(`bind ${shown}`, () => bind([value, "0000:ff:1f.7"], around, neverWrites));
    await check(`unbind ${shown}`, () => unbind([value, "0000:ff:1f.7"], around, neverWrites));
    await check(`doctor ${shown}`, () => doctor([value, "0000:ff:1f.7"], around));
    await check(`doctor --memory ${shown}`, () => doctor(["--memory", value, "0000:ff:1f.7"], around));
  }
  // Words that name a device well enough; standard input may be a socket here.
  const isSocket = statSync("/proc/self/fd/0").isSocket();
  const inputs = isSocket ? ['--user-device="/proc/self/fd/0"'] : [];
  t.same(
    accepted.filter((what) => !what.startsWith("--user-device id=")),
    inputs,
  );
});

interface Typed {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the program as it is installed. */
function tsvmm(argv: readonly string[]): Promise<Typed> {
  const main = join(projectRoot(), "dist", "bundle", "main.js");
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [main, ...argv], { encoding: "utf8" }, (error, stdout, stderr) => {
      resolve({ status: typeof error?.code === "number" ? error.code : error === null ? 0 : -1, stdout, stderr });
    });
    child.stdin?.end();
  });
}

t.test("tsvmm answers bad input with one line on standard error and the right status", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-bad-input-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const kernel = join(folder, "vmlinux");
  writeFileSync(kernel, "kernel");
  mkdirSync(join(folder, "0000:ff:1f.7"));
  const socket = deadSocket(t);
  const other = deadSocket(t);
  const nowhere = "0000:ff:1f.7";
  const device = (value: string): string[] => ["--kernel", kernel, "--device", value];
  const user = (...values: string[]): string[] => ["--kernel", kernel, "--user-device", ...values];
  const rows: (readonly [argv: readonly string[], line: RegExp, status?: number])[] = [
    [device(""), /^--device: a value is needed$/],
    [device("path="), /^--device: path needs a value: path=PATH$/],
    [device(nowhere), /^--device: this machine has no PCI function 0000:ff:1f\.7/],
    [device(`host=${nowhere}`), /^--device: this machine has no PCI function/],
    [device(`sysfsdev=${folder}/${nowhere}`), /^--device: .* is not a PCI function: give a directory like/],
    [device("../no/such"), /^--device: there is no directory \.\.\/no\/such$/],
    [device("/etc/passwd"), /^--device: \/etc\/passwd is not a PCI function/],
    [device("a\nb"), /^--device: there is no directory a\\nb$/],
    [device("\x1b[2J]"), /^--device: there is no directory \\x1b\[2J\]$/],
    [device("x".repeat(9000)), /^--device: cannot look at x+… \(\d+ more characters\) …x+: ENAMETOOLONG$/],
    [device(`${nowhere},id=ü`), /^--device: /],
    [device(`${nowhere},bars=`), /^--device: bars needs a value: bars=map\|trap$/],
    [device(`${nowhere},bars=all`), /^--device bars: 'all' is none of map, trap$/],
    [device(`${nowhere},bars=map,bars=map`), /^--device: bars is given twice$/],
    [device(`${nowhere},exclude_mmap_bars=[0`), /^--device: .* has a bracket that is not closed$/],
    [device(`${nowhere},exclude_mmap_bars=[0;1]`), /^--device exclude_mmap_bars: '0;1' is not a whole number$/],
    [device(`${nowhere},exclude_mmap_bars=0,x_exclude_mmap_bars=1`), /^--device: exclude_mmap_bars is given twice$/],
    [device(`${nowhere},rom=file=`), /^--device rom: a path is needed/],
    [device(`${nowhere},rom=maybe`), /^--device rom: 'maybe' is none of on, off, file=PATH$/],
    [device(`${nowhere},rom=on,romfile=/x`), /^--device: rom and romfile mean the same: give one of them$/],
    [device(`${nowhere},rombar=2`), /^--device rombar: '2' is none of 0, 1/],
    [device(`${nowhere},x-no-mmap=1`), /^--device x-no-mmap: '1' is neither on nor off$/],
    [device(`${nowhere},pci_device_id=1.5`), /^--device pci_device_id: '1\.5' is not a whole number$/],
    [device(`${nowhere},iommu=on`), /^--device iommu: guests have no IOMMU of their own here/],
    [device(`${nowhere},pci_segment=1`), /^--device pci_segment: guests have segment 0 only$/],
    [device(`${nowhere},colour=red`), /^--device: unknown key 'colour' \(keys: path, host, sysfsdev, id, bars/],
    [device(`${nowhere},trap`), /^--device: 'trap' is not of the form key=value$/],
    [["--kernel", kernel, "--device"], /^--device: needs a value: --device PATH$/],
    ...["--log-file", "--summary"].flatMap((option): typeof rows => [
      [["--kernel", kernel, option, ""], /^--[a-z-]+: a path is needed$/],
      [["--kernel", kernel, option, "/none/such"], /^--[a-z-]+: there is no directory \/none$/],
      [["--kernel", kernel, option, `${kernel}/x`], /^--[a-z-]+: .*vmlinux is not a directory$/],
      [["--kernel", kernel, option, folder], /^--[a-z-]+: .* is a directory: a file is needed$/],
    ]),
    [user(""), /^--user-device: a value is needed$/],
    [user("/none/such"), /^--user-device: there is no file \/none\/such$/],
    [user(kernel), /^--user-device: .*vmlinux is not a socket$/],
    [user(folder), /^--user-device: .* is not a socket$/],
    [user(`socket=${socket},socket=${other}`), /^--user-device: socket is given twice$/],
    [user(socket, `socket=${socket}`), /^--user-device: .* is given twice$/],
    [user(`${socket},id=a`, `${other},id=a`), /^--user-device: 'a' is given twice$/],
    [user(`${socket},id=a b`), /^--user-device: 'a b' may have letters/],
    [user(`${socket},id=${"x".repeat(999)}\n`), /^--user-device: 'x+… .* may have letters/],
    [user(`${socket},id=${"x".repeat(65)}`), /^--user-device: 'x{65}' has more than 64 characters$/],
    [["devices", "--json", "--json"], /^--json: is given twice$/],
    [["devices", "--json=yes"], /^--json: takes no value$/],
    [["devices", "--jsn"], /^unknown option '--jsn'; did you mean '--json'\?$/],
    [["devices", nowhere], /^this machine has no PCI function 0000:ff:1f\.7/],
    [["devices", folder], /^.* is not a PCI function: give a directory like/],
    [["devices", ""], /^a PCI function is needed: its sysfs directory, or its address/],
    [["devices", "--record"], /^--record: needs a value: --record BDF$/],
    [["devices", "--record", nowhere], /^--record: needs a file behind the address: --record BDF FILE$/],
    [["devices", "--record", nowhere, "-"], /^this machine has no PCI function/],
    [["devices", "--record", nowhere, "a", "b"], /^--record: takes one address and one file: 'b' is too many$/],
    [["devices", "--record", nowhere, "--record", nowhere], /^--record: is given twice$/],
    [["devices", "--record", nowhere, "--json", "-"], /^--json: a recording is JSON in any case$/],
    [["bind"], /^no PCI function is named: tsvmm bind 0000:01:00\.0; tsvmm devices lists them$/],
    [["bind", nowhere], /^this machine has no PCI function/],
    [["bind", "--dry-run", "--dry-run", nowhere], /^--dry-run: is given twice$/],
    [["bind", "--group=7", nowhere], /^--group: takes no value$/],
    [["bind", "--new-id", nowhere], /^unknown option '--new-id'; tsvmm bind --help lists them$/],
    [["bind", "../../../../etc"], /^there is no directory|is not a PCI function/],
    [["unbind"], /^no PCI function is named: tsvmm unbind/],
    [["unbind", "--force", "nonsense"], /^there is no directory nonsense$/],
    [["doctor", nowhere], /^this machine has no PCI function/],
    [["doctor", "--memory", "much"], /^--memory: 'much' is not a size/],
    [["doctor", "--memory", "1M"], /^--memory: 1048576 bytes are too few/],
    [["doctor", "--memory", "1G", "--memory", "2G"], /^--memory: is given twice$/],
    [["doctor", "--memory", "1G,size=2G"], /^--memory: size is given twice$/],
    [["doctor", "--fix"], /^unknown option '--fix'/],
    [["dvices"], /^unknown command 'dvices'; did you mean 'devices'\?$/],
    [["help", "devics"], /^unknown command 'devics'; did you mean 'devices'\?$/],
    [["help", "devices", "bind"], /^help takes one command: 'bind' is too many$/],
    [["\x1b]0;x\x07"], /^unknown command '\\x1b\]0;x\\x07'/],
  ];
  const [real] = readdirSync("/sys/bus/pci/devices").sort();
  if (real !== undefined) {
    rows.push(
      [["devices", real, `/sys/bus/pci/devices/${real}/`], / is given twice$/],
      [["doctor", real, real], / is given twice$/],
      [["bind", "--dry-run", real, real], / is given twice$/],
      [["devices", "--record", real, ""], /^--record: a file is needed, or - for standard output$/],
      [["devices", "--record", real, folder], /^--record: .* is a directory: a file is needed$/],
      [["devices", "--record", real, `${folder}/none/x`], /^--record: there is no directory .*\/none$/],
      [["devices", "--record", real, `${kernel}/x`], /^--record: .*vmlinux is not a directory$/],
      [["devices", "--record", real, `${folder}/${"y".repeat(300)}`], /^--record: cannot look at .*: ENAMETOOLONG$/],
      [["devices", "--record", real, "/dev/full"], /^Cannot write the recording to \/dev\/full: ENOSPC$/, 1],
    );
  }
  // Two at a time, as most of it is waiting for processes.
  const waiting = rows.values();
  const work = async (): Promise<void> => {
    for (const [argv, line, status = 2] of waiting) {
      const what = `tsvmm ${argv.map((word) => (word.length > 60 ? `${word.slice(0, 60)}…` : word)).join(" ")}`;
      const typed = await tsvmm(argv);
      const last = typed.stderr.replace(/\n$/, "").split("\n").at(-1) ?? "";
      // A remark may stand before the error of a recording; nothing else does.
      const isOneLine = /^(tsvmm: [^\n]*recorded from sysfs[^\n]*\n)?[^\n]+\n$/.test(typed.stderr);
      t.match({ ...typed, stderr: last.replace(/^tsvmm: /, "") }, { status, stdout: "", stderr: line }, what);
      t.ok(isOneLine && isClearLine(last), `one clear line: ${what}`);
    }
  };
  await Promise.all([work(), work()]);
});
