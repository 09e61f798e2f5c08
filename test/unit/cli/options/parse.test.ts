import t from "tap";
import { SpecError } from "../../../../src/base/errors.ts";
import { FOREIGN_OPTIONS } from "../../../../src/cli/options/foreign-options.ts";
import { runOptions } from "../../../../src/cli/options/options.ts";
import { parseRun, type RunRequest } from "../../../../src/cli/options/parse.ts";
import { deadSocket } from "../../../support/socket-pair.ts";

const MIB = 1024 * 1024;
const home = t.testdir({
  vmlinux: "kernel",
  initramfs: "archive",
  "a.raw": "disk a",
  "b,c.raw": "disk b",
  empty: "",
  large: Buffer.alloc(16 * 1024 * 1024 + 1),
  directory: {},
  "0000:01:00.0": { vendor: "0x8086", config: "c" },
  "0000:01:00.1": { vendor: "0x8086", config: "c" },
});
const kernel = ["--kernel", `${home}/vmlinux`];
const parse = (...argv: string[]): RunRequest => parseRun([...kernel, ...argv], home);

/** The one line a command line is refused with. */
function refusal(...argv: string[]): string {
  try {
    parseRun(argv, home);
  } catch (error) {
    if (error instanceof SpecError) return error.message;
    throw error;
  }
  return "accepted";
}
const refused = (...argv: string[]): string => refusal(...kernel, ...argv);

t.test("parseRun() fills in the defaults", async (t) => {
  const { spec, log, isDryRun } = parse();
  t.same(spec, {
    kernel: `${home}/vmlinux`,
    cmdline: "",
    cpus: { count: 1 },
    memory: { sizeBytes: 512 * MIB, hugepages: false, shared: true, prefault: false },
    platform: { vfioP2pDma: true },
    disks: [],
    devices: [],
    userDevices: [],
    serial: { kind: "tty" },
    console: { kind: "off" },
    rng: { source: "/dev/urandom" },
    hasTestDevice: false,
    allowReboot: true,
  });
  t.same(log, { level: "warn", format: "auto" });
  t.equal(isDryRun, false);
});

t.test("parseRun() reads the command of the passthrough how-to, with and without boot=", async (t) => {
  const howto = [
    ...["--kernel", "~/vmlinux", "--disk", "path=~/a.raw", "--console", "off", "--serial", "tty"],
    ...["--cmdline", "console=ttyS0 root=/dev/vda1 rw", "--cpus", "4", "--memory", "size=512M"],
    ...["--device", `path=${home}/0000:01:00.0/`],
  ];
  const { spec } = parseRun(howto, home);
  t.match(spec, {
    kernel: `${home}/vmlinux`,
    cmdline: "console=ttyS0 root=/dev/vda1 rw",
    cpus: { count: 4 },
    memory: { sizeBytes: 512 * MIB },
    disks: [{ path: `${home}/a.raw`, id: "_disk0", isReadOnly: false, isDirect: false }],
    devices: [{ path: `${home}/0000:01:00.0`, id: "_vfio0", bars: "map", excludedMmapBars: [] }],
    serial: { kind: "tty" },
    console: { kind: "off" },
  });
  t.same(
    parseRun(
      howto.map((word) => (word === "4" ? "boot=4" : word)),
      home,
    ).spec,
    spec,
  );
  t.same(
    parseRun(
      howto.map((word) => (word === "size=512M" ? "512M" : word)),
      home,
    ).spec,
    spec,
  );
});

t.test("parseRun() reads every key of --memory", async (t) => {
  const { memory } = parse("--memory", "size=1G,hugepages=on,prefault=on,shared=off").spec;
  t.same(memory, { sizeBytes: 1024 * MIB, hugepages: true, prefault: true, shared: false });
  t.equal(parse("--memory", "size=2G,hugepages=on,hugepage_size=1G").spec.memory.hugepageSize, "1G");
});

t.test("parseRun() reads every key of --disk, several after one flag and repeated flags", async (t) => {
  const argv = [
    ...["--disk", `path=${home}/a.raw,readonly=on,direct=on,serial=S1,id=root,image_type=raw`],
    ...[`path="~/b,c.raw"`, "--no-reboot", "--disk", "~/a.raw,readonly=on"],
  ];
  const { disks, allowReboot } = parse(...argv).spec;
  t.same(disks, [
    { path: `${home}/a.raw`, id: "root", isReadOnly: true, isDirect: true, serial: "S1" },
    { path: `${home}/b,c.raw`, id: "_disk1", isReadOnly: false, isDirect: false },
    { path: `${home}/a.raw`, id: "_disk2", isReadOnly: true, isDirect: false },
  ]);
  t.equal(allowReboot, false);
});

t.test("parseRun() reads every key of --device", async (t) => {
  const keys = "id=card,bars=trap,pci_device_id=5,exclude_mmap_bars=[0,2],express=integrated";
  const { devices } = parse(
    "--device",
    `${home}/0000:01:00.0,${keys}`,
    `path=~/0000:01:00.1,x_exclude_mmap_bars=[4]`,
  ).spec;
  t.same(devices, [
    {
      path: `${home}/0000:01:00.0`,
      id: "card",
      bars: "trap",
      excludedMmapBars: [0, 2],
      express: "integrated",
      pciSlot: 5,
    },
    { path: `${home}/0000:01:00.1`, id: "_vfio1", bars: "map", excludedMmapBars: [4] },
  ]);
});

t.test("parseRun() reads what --device says of errors, of a host that wants it back, and the token", async (t) => {
  const device = (keys: string): object | undefined => parse("--device", `~/0000:01:00.0,${keys}`).spec.devices[0];
  const vfToken = "11111111-2222-3333-4444-55555555abCD";
  t.match(device(`on-error=stop,on-unbind=stop,vf-token=${vfToken}`), { onError: "stop", onUnbind: "stop", vfToken });
  t.match(device("on-error=pull,on-unbind=wait"), { onError: "pull", onUnbind: "wait" });
  const wrong = (keys: string): string => refused("--device", `~/0000:01:00.0,${keys}`);
  t.match(wrong("on-error=ignore"), /^--device on-error: 'ignore' is none of report, pull, stop/);
  t.match(wrong("on-unbind=go"), /^--device on-unbind: 'go' is n.* wait.* stop/);
  t.match(wrong("vf-token=1234"), /^--device: '1234' is not a UUID like 11111111-2222-3333-4444-555555555555$/);
});

t.test("parseRun() reads rom= of --device, and other VMMs' spellings of the same", async (t) => {
  const device = (keys: string): object | undefined => parse("--device", `~/0000:01:00.0,${keys}`).spec.devices[0];
  t.match(device("rom=on"), { rom: { kind: "on" } });
  t.match(device("rom=off"), { rom: { kind: "off" } });
  t.match(device("rom=file=~/initramfs"), { rom: { kind: "file", path: `${home}/initramfs` } });
  t.match(device("romfile=~/initramfs"), { rom: { kind: "file", path: `${home}/initramfs` } });
  t.match(device("rombar=0"), { rom: { kind: "off" } });
  t.match(device("x-no-mmap=on"), { bars: "trap" });
  t.match(device("iommu=off,pci_segment=0"), { bars: "map" });
  t.notOk("rom" in (device("bars=map") ?? {}), "the device's own by default");
  t.match(parse("--device", "host=~/0000:01:00.0").spec.devices, [{ path: `${home}/0000:01:00.0` }]);
  t.match(parse("--device", "sysfsdev=~/0000:01:00.0").spec.devices, [{ path: `${home}/0000:01:00.0` }]);
});

t.test("parseRun() refuses wrong values of --device's keys", async (t) => {
  const device = (keys: string): string => refused("--device", `~/0000:01:00.0,${keys}`);
  t.equal(device("rom=maybe"), "--device rom: 'maybe' is none of on, off, file=PATH");
  t.equal(device("rom=file="), "--device rom: a path is needed: rom=file=/some/where");
  t.equal(device("rom=file=/no/such"), "--device: there is no file /no/such");
  t.equal(device("rom=file=~/empty"), `--device: ${home}/empty is empty`);
  t.equal(device("rom=file=~/large"), `--device: ${home}/large has 16777217 bytes: at most 16777216 are possible`);
  t.equal(device("rom=on,rom=off"), "--device: rom is given twice");
  t.equal(device("rom=on,rombar=1"), "--device: rom and rombar mean the same: give one of them");
  t.equal(device("rombar=2"), "--device rombar: '2' is none of 0, 1; did you mean '0'?");
  t.equal(device("bars=map,x-no-mmap=off"), "--device: bars and x-no-mmap mean the same: give one of them");
  t.match(device("iommu=on"), /^--device iommu: guests have no IOMMU/);
  t.match(device("pci_segment=1"), /^--device pci_segment: guests have segment 0 only/);
  t.match(device("host=1"), /^--device: path is given twice/);
  t.match(device("exclude_mmap_bars=[6]"), /6 is not a whole number from 0 to 5/);
  t.match(device("pci_device_id=32"), /32 is not a whole number from 1 to 31/);
});

t.test("parseRun() reads where character devices go", async (t) => {
  t.same(parse("--serial", "null").spec.serial, { kind: "null" });
  t.same(parse("--serial=off").spec.serial, { kind: "off" });
  t.same(parse("--serial", "pty").spec.serial, { kind: "pty" });
  t.same(parse("--serial", "file=~/log").spec.serial, { kind: "file", path: `${home}/log` });
  t.same(parse("--console", 'socket="/tmp/a,b"').spec.console, { kind: "socket", path: "/tmp/a,b" });
  const { serial, console } = parse("--console", "tty").spec;
  t.same([serial, console], [{ kind: "null" }, { kind: "tty" }], "the console has the terminal");
});

t.test("parseRun() reads the remaining options", async (t) => {
  const { spec, log, isDryRun } = parse(
    ...["--initramfs", "~/initramfs", "--rng", "src=/dev/zero", "--debug-exit", "0xf4", "--poll", "50"],
    ...["--test-device", "--dry-run", "--log-file", "~/vm.log", "--log-format", "json", "-vv"],
  );
  t.match(spec, {
    initramfs: `${home}/initramfs`,
    rng: { source: "/dev/zero" },
    debugExitPort: 0xf4,
    hasTestDevice: true,
    pollMicroseconds: 50,
  });
  t.same(log, { level: "debug", format: "json", file: `${home}/vm.log` });
  t.equal(isDryRun, true);
  t.notOk("pollMicroseconds" in parse("--poll", "auto").spec);
  t.equal(parse("--poll", "auto").spec.hasTestDevice, false);
  t.equal(parse("--rng", "/dev/zero").spec.rng.source, "/dev/zero");
});

t.test("parseRun() counts verbosity", async (t) => {
  const level = (...argv: string[]): string => parse(...argv).log.level;
  t.equal(level("-q"), "error");
  t.equal(level("--quiet"), "error");
  t.equal(level("-v"), "info");
  t.equal(level("--verbose", "-v"), "debug");
  t.equal(level("-vvv"), "trace");
  t.equal(level("-vvvvv"), "trace");
});

t.test("parseRun() takes a command line that begins with a dash or holds an equals sign", async (t) => {
  t.equal(parse("--cmdline", "-s root=/dev/vda").spec.cmdline, "-s root=/dev/vda");
  t.equal(parse("--cmdline=--help me").spec.cmdline, "--help me");
  t.equal(parse("--cmdline", "").spec.cmdline, "");
});

t.test("parseRun() refuses options it does not know or cannot use", async (t) => {
  t.equal(refused("--memroy", "512M"), "unknown option '--memroy'; did you mean '--memory'?");
  t.equal(refused("--frobnicate", "x"), "unknown option '--frobnicate'; tsvmm --help lists them");
  t.equal(refused("-x"), "unknown option '-x'; tsvmm --help lists them");
  t.equal(refused("--no-reboot=yes"), "--no-reboot: takes no value");
  t.equal(refused("--cpus", "1", "--cpus", "2"), "--cpus: is given twice");
  t.equal(refused("--no-reboot", "--no-reboot"), "--no-reboot: is given twice");
  t.equal(refused("--memory"), "--memory: needs a value: --memory SIZE");
  t.equal(refused("--memory", "--no-reboot"), "--memory: needs a value: --memory SIZE");
  t.equal(refused("--disk", "--dry-run"), "--disk: needs a value: --disk PATH");
  t.equal(refused("--no-reboot", "x"), "'x' belongs to no option");
  t.match(
    refused("--cmdline", "console=ttyS0", "rw"),
    /^'rw' belongs to no option: put the whole command line in quotes/,
  );
  t.equal(refused("-v", "-q"), "--quiet: contradicts --verbose");
});

t.test("parseRun() says what does the job of options and keys of other VMMs", async (t) => {
  t.equal(
    refused("--net", "tap=tap0,mac=12:34:56:78:90:ab"),
    "unknown option '--net': there is no virtual network card; pass one of the host's through with --device",
  );
  t.equal(refused("--api-socket=/tmp/x"), refused("--api-socket", "/tmp/x"));
  t.equal(refused("-m", "512"), "unknown option '-m': write --memory 512M");
  t.equal(refused("-smp", "4"), "unknown option '-smp': write --cpus 4");
  t.equal(refused("-kernel", "x"), "unknown option '-kernel'; did you mean '--kernel'?");
  t.equal(refused("--cpus", "boot=2,max=4"), "--cpus max: nothing can be added to a running guest: omit it");
  t.match(refused("--memory", "size=1G,mergeable=on"), /^--memory mergeable: memory is shared with devices/);
  t.match(refused("--disk", `path=${home}/a.raw,num_queues=4`), /^--disk num_queues: a disk has one queue/);
  t.notMatch(refused("--memory", "mergable=on"), /did you mean/, "what is refused is not proposed");
  const own = runOptions().flatMap(({ name, short }) => [name, short]);
  for (const [name, advice] of FOREIGN_OPTIONS) {
    t.notOk(own.includes(name), `${name} is not one of ours`);
    // What an advice proposes exists.
    for (const [word] of advice.matchAll(/(?<![\w=])--[a-z-]+/g)) t.ok(own.includes(word), `${name}: ${word}`);
  }
});

t.test("parseRun() asks for a kernel, and says what is wrong with the one given", async (t) => {
  t.match(refusal(), /^no kernel is given: --kernel PATH/);
  t.equal(refusal("--kernel", "/no/such"), "--kernel: there is no file /no/such");
  t.equal(refusal("--kernel", `${home}/empty`), `--kernel: ${home}/empty is empty`);
  t.equal(refusal("--kernel", home), `--kernel: ${home} is a directory: a file is needed`);
  t.equal(refusal("--kernel="), "--kernel: no kernel is given");
  t.equal(refused("--initramfs", "/no/such"), "--initramfs: there is no file /no/such");
  t.equal(refused("--initramfs", "~/empty"), `--initramfs: ${home}/empty is empty`);
  t.match(refused("--initramfs", "~/directory"), /^--initramfs: .* is a directory/);
});

t.test("parseRun() says in one line what is wrong with a value, under the option's name", async (t) => {
  const cases: readonly (readonly [string, string, RegExp])[] = [
    ["--cpus", "0", /^--cpus: 0 is not a whole number from 1 to 254$/],
    ["--cpus", "255", /^--cpus: 255 is not/],
    ["--cpus", "four", /^--cpus: 'four' is not a whole number$/],
    ["--cpus", "boot=2,least=4", /^--cpus: unknown key 'least' \(keys: boot, topology, affinity\)$/],
    ["--memory", "512X", /^--memory: '512X' is not a size/],
    ["--memory", "8M", /^--memory: 8388608 bytes are too few: a machine has 16M at least$/],
    ["--memory", "100T", /^--memory: .* are too many/],
    ["--memory", "67108865", /^--memory: 67108865 bytes are not a multiple of the page size, 4K$/],
    ["--memory", "size=33M,hugepages=on", /^--memory: .* huge page size, 2M$/],
    ["--memory", "1536M,hugepages=on,hugepage_size=1G", /^--memory: 1610612736 .* huge page size, 1G$/],
    ["--memory", "1G,hugepage_size=1G", /^--memory: huge pages of 1G are not asked for/],
    ["--memory", "1G,hugepages=on,hugepage_size=4M", /^--memory hugepage_size: '4M' is none of 2M, 1G/],
    ["--memory", "512M,hugepages=maybe", /^--memory hugepages: 'maybe' is neither on nor off$/],
    ["--disk", "/no/such", /^--disk: there is no file \/no\/such$/],
    ["--disk", "~/directory", /^--disk: .* is a directory/],
    ["--disk", "~/empty", /^--disk: .*\/empty is empty$/],
    ["--disk", "/dev/null", /^--disk: \/dev\/null is neither a regular file nor a block device$/],
    ["--disk", "readonly=on", /^--disk: 'readonly=on' has no path=$/],
    ["--disk", "~/a.raw,readonly=1", /^--disk readonly: '1' is neither on nor off$/],
    ["--disk", "~/a.raw,serial=123456789012345678901", /^--disk: .* is not 1 to 20 printable ASCII characters$/],
    ["--disk", "~/a.raw,logical_block_size=1024", /^--disk: blocks have 512 or 4096 bytes, not 1024$/],
    ["--disk", "~/a.raw,logical_block_size=256", /^--disk: 256 is not a whole number from 512 to 4096$/],
    ["--disk", "~/a.raw,id=_x", /^--disk: '_x' begins with an underscore, which is reserved$/],
    ["--disk", "~/a.raw,id=a/b", /^--disk: 'a\/b' may have letters/],
    ["--disk", "~/a.raw,image_type=qcow2", /^--disk: image_type qcow2 is not supported: .*qemu-img/],
    ["--device", "id=x", /^--device: 'id=x' has no path=$/],
    ["--device", "~/0000:01:00.0,bars=maap", /^--device bars: 'maap' is none of map, trap; did you mean 'map'\?$/],
    ["--device", "~/0000:01:00.0,exclude_mmap_bars=[6]", /^--device: 6 is not a whole number from 0 to 5$/],
    ["--device", "~/0000:01:00.0,pci_device_id=0", /^--device: slot 0 is the host bridge's$/],
    ["--device", "~/0000:01:00.0,pci_device_id=32", /^--device: 32 is not a whole number from 1 to 31$/],
    [
      "--device",
      "0000:ff:1f.7",
      /^--device: this machine has no PCI function 0000:ff:1f\.7 \(tsvmm devices lists them\)$/,
    ],
    ["--device", "~/0000:02:00.0/", /^--device: this machine has no PCI function 0000:02:00\.0/],
    ["--device", "/no/such", /^--device: there is no directory \/no\/such$/],
    ["--device", "~/directory", /^--device: .*\/directory is not a PCI function: give a directory like/],
    ["--serial", "ttty", /^--serial: 'ttty' is none of off, null, tty, .*; did you mean 'tty'\?$/],
    ["--serial", "file", /^--serial: 'file' needs a path: file=\/some\/where$/],
    ["--serial", "file=", /^--serial: a path is needed/],
    ["--console", "vga", /^--console: 'vga' is none of/],
    ["--rng", "/no/such", /^--rng: there is no file \/no\/such$/],
    ["--rng", "file=/dev/zero", /^--rng: unknown key 'file' \(keys: src\)$/],
    ["--debug-exit", "x", /^--debug-exit: 'x' is not a whole number$/],
    ["--debug-exit", "0x10000", /^--debug-exit: 65536 is not a whole number from 0 to 65535$/],
    ["--poll", "often", /^--poll: 'often' is neither auto nor a number of microseconds$/],
    ["--poll", "99999999", /^--poll: 99999999 is not a whole number from 0 to 1000000$/],
    ["--log-format", "xml", /^--log-format: 'xml' is none of pretty, json$/],
    ["--log-file=", "-v", /^--log-file: a path is needed$/],
  ];
  for (const [option, value, message] of cases) t.match(refused(option, value), message, `${option} ${value}`);
});

t.test("parseRun() refuses things that are given twice, by whatever name", async (t) => {
  t.match(
    refused("--disk", "~/a.raw", `${home}/directory/../a.raw`),
    /^--disk: .* is given twice: only read-only disks/,
  );
  t.match(refused("--device", "~/0000:01:00.0", "~/0000:01:00.0/"), /^--device: 0000:01:00\.0 is given twice$/);
  t.match(
    refused("--device", "~/0000:01:00.0,pci_device_id=3", "~/0000:01:00.1,pci_device_id=3"),
    /slot 3 is given twice/,
  );
  t.match(refused("--disk", "~/a.raw,id=x", "--device", "~/0000:01:00.0,id=x"), /^--device: 'x' is given twice$/);
  t.match(refused("--serial", "tty", "--console", "tty"), /^--console: the terminal is the serial port's already/);
  t.match(
    refused("--serial", "file=/tmp/x", "--console", "file=/tmp/x"),
    /^--console: \/tmp\/x is the serial port's already$/,
  );
});

t.test("parseRun() reads --user-device with and without its keys, and refuses what is wrong", async (t) => {
  const socket = deadSocket(t);
  const other = deadSocket(t);
  t.same(parse("--user-device", socket, `socket=${other},id=edu`).spec.userDevices, [
    { socket, id: "_user0" },
    { socket: other, id: "edu" },
  ]);
  t.same(parse("--user-device", `${socket},timeout=off`, `${other},timeout=60`).spec.userDevices, [
    { socket, id: "_user0", timeoutSeconds: "off" },
    { socket: other, id: "_user1", timeoutSeconds: 60 },
  ]);
  const cases: readonly (readonly [string[], RegExp])[] = [
    [[""], /^--user-device: a value is needed$/],
    [["socket="], /^--user-device: socket needs a value: socket=PATH$/],
    [["id=edu"], /^--user-device: 'id=edu' has no socket=$/],
    [["socket=/none/such"], /^--user-device: there is no file \/none\/such$/],
    [[`socket=${home}/vmlinux`], /^--user-device: .*vmlinux is not a socket$/],
    [[socket, socket], /is given twice$/],
    [[`${socket},id=a`, `${other},id=a`], /'a' is given twice$/],
    [[`${socket},id=_user1`], /begins with an underscore/],
    [[`${socket},bars=map`], /^--user-device: unknown key 'bars' \(keys: socket, id, timeout\)/],
    [[`${socket},id=a,id=b`], /id is given twice/],
    [[`${socket},timeout=0`], /^--user-device: 0 is not a whole number from 1 to 86400$/],
    [[`${socket},timeout=1e9`], /^--user-device timeout: '1e9' is neither off nor a number of seconds$/],
    [[`${socket},timeout=-1`], /neither off nor a number of seconds$/],
  ];
  for (const [values, wanted] of cases) t.match(refused("--user-device", ...values), wanted, values.join(" "));
});

t.test("parseRun() takes every option of the table", async (t) => {
  const values: Readonly<Record<string, string>> = {
    "--kernel": "~/vmlinux",
    "--initramfs": "~/initramfs",
    "--cmdline": "quiet",
    "--cpus": "2",
    "--platform": "vfio_p2p_dma=off",
    "--memory": "64M",
    "--disk": "~/a.raw",
    "--device": "~/0000:01:00.0",
    "--user-device": deadSocket(t),
    "--serial": "null",
    "--console": "off",
    "--rng": "/dev/zero",
    "--debug-exit": "0xf4",
    "--poll": "auto",
    "--log-file": "~/log",
    "--log-format": "pretty",
  };
  for (const { name, form } of runOptions()) {
    if (name === "--kernel") continue;
    const value = values[name];
    const argv = form.kind === "flag" || form.kind === "count" ? [name] : [name, value ?? "missing in this test"];
    t.equal(refused(...argv), "accepted", name);
  }
});
