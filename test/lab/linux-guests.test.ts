import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { guestImages } from "../../guest-images/images.ts";
import { labDeviceBdf } from "../../lab/devices.ts";
import { readSdCardFile, sha256, writeRandomImage, writeSdCard } from "../../lab/media.ts";
import { ensureLabPrerequisites } from "../../lab/prerequisites.ts";
import { runLab, shellQuote } from "../../lab/run.ts";
import type { LabInputs, Observations } from "./scenarios.ts";

/*
 * Linux guests with real VFIO devices, in one nested host. The scenarios run over there and write down what they saw (scenarios.ts); here
 * it is judged, together with what the devices' images hold afterwards.
 */

const MIB = 1024 ** 2;
const LAB_TIMEOUT_MS = 780_000;
/** The longest takes a minute and a half beside nothing else. */
const SCENARIO_TIMEOUT_MS = 240_000;
const EXAMPLE = "example";
/** What timeout(1) ends with. */
const TIMED_OUT = [124, 137];
const SCENARIOS = ["edu", "refusals", "legacyInterrupt", "twoDevices", "trapped"];

t.setTimeout(LAB_TIMEOUT_MS + 60_000);
const folder = mkdtempSync(join(tmpdir(), "tsvmm-lab-test-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
/** Where `run.ts` looks for what to show meanwhile; standard error when the test runs by itself. */
const progressFile = process.env["TSVMM_TEST_PROGRESS"];
const progress = (text: string): void => {
  if (progressFile === undefined) process.stderr.write(`lab: ${text}\n`);
  else appendFileSync(progressFile, `lab: ${text}\n`);
};

await ensureLabPrerequisites(progress);
const images = await guestImages(progress);
const nvmeImage = join(folder, "nvme.img");
const nvmeBytes = writeRandomImage(nvmeImage, 128 * MIB);
const card = join(folder, "card.img");
const cardBytes = nvmeBytes.subarray(0, MIB);
await writeSdCard(card, 64 * MIB, { "random.bin": cardBytes });
const share = join(folder, "share");
mkdirSync(share);

const inputs: LabInputs = {
  vmlinux: images.vmlinux,
  plainVmlinux: images.kernel.vmlinux,
  vmlinuz: images.kernel.vmlinuz,
  initramfs: images.initramfs,
  disk: images.disk,
  sdhci: labDeviceBdf(0),
  nvme: labDeviceBdf(1),
  e1000e: labDeviceBdf(2),
  edu: labDeviceBdf(3),
};
const program = join(dirname(fileURLToPath(import.meta.url)), "scenarios.js");

const example = [
  "node",
  fileURLToPath(new URL("../../examples/linux-guest.js", import.meta.url)),
  images.kernel.vmlinux,
  images.initramfs,
];
let exampleStatus: number | undefined;

/** Runs scenarios one after another in one nested host; answers those that did not end in time. */
async function runScenarios(names: readonly string[]): Promise<string[]> {
  const lab = await runLab({
    devices: [
      { model: "sdhci-pci", image: card },
      { model: "nvme", image: nvmeImage },
      { model: "e1000e" },
      { model: "edu" },
    ],
    scenarios: names.map((name) => ({
      name,
      script: (name === EXAMPLE ? example : ["node", program, JSON.stringify(inputs), "/lab/results", name])
        .map(shellQuote)
        .join(" "),
      timeoutMs: SCENARIO_TIMEOUT_MS,
    })),
    shareDirectory: share,
    timeoutMs: LAB_TIMEOUT_MS,
    onProgress: progress,
    onOutput: (bytes) => void process.stderr.write(bytes),
  });
  exampleStatus = lab.scenarios.find(({ name }) => name === EXAMPLE)?.status ?? exampleStatus;
  return lab.scenarios.filter(({ status }) => TIMED_OUT.includes(status)).map(({ name }) => name);
}

const late = await runScenarios([...SCENARIOS, EXAMPLE]);
if (late.length > 0) {
  // Nested virtualization under emulation stands still now and then (see NestedHostPanic). Once is said and tried again; twice is ours.
  progress(`${late.join(", ")} did not end within ${SCENARIO_TIMEOUT_MS / 1000} s; once more, in a fresh nested host`);
  await runScenarios(late);
}

const resultsFile = join(share, "results");
const results = new Map<string, Observations>(
  (existsSync(resultsFile) ? readFileSync(resultsFile, "utf8").trim().split("\n") : []).map((line) => {
    // Cast: scenarios.ts wrote it.
    const observations = JSON.parse(line) as Observations & { name: string };
    return [observations.name, observations];
  }),
);

/** A scenario's observations, after making sure that it came to its end. */
function observed(test: Pick<typeof t, "equal">, name: string): Observations {
  const found = results.get(name) ?? { error: "the scenario did not come to its end" };
  test.equal(found["error"], undefined, `${name} came to its end`);
  return found;
}

/** Lines of /proc/interrupts that match, with their counts added up. */
function interrupts(text: unknown, pattern: RegExp): { readonly kind: string; readonly count: number }[] {
  return String(text)
    .split("\n")
    .filter((line) => pattern.test(line))
    .map((line) => {
      const [, counts = "", kind = ""] = /^\s*\d+:((?:\s+\d+)+)\s+(.*)$/.exec(line) ?? [];
      return {
        kind,
        count: counts
          .trim()
          .split(/\s+/)
          .reduce((sum, count) => sum + Number(count), 0),
      };
    });
}

t.test("A bare-metal guest drives edu: registers, DMA both ways, one MSI", async (t) => {
  const edu = observed(t, "edu");
  t.equal(edu["failedStep"], 0, "the step that failed; 0 for none");
});

t.test("tsvmm names what is wrong with a device, and takes one whose last user was killed", async (t) => {
  const seen = observed(t, "refusals") as Record<string, { status: number; text: string }>; // cast: as scenarios.ts made it
  t.match(seen["missing"]?.text, /0000:42:00\.0/);
  t.equal(seen["missing"]?.status, 2, "no such device is bad input");
  t.match(seen["ownDriver"]?.text, /virtio-pci/, "the driver it is bound to");
  t.match(seen["ownDriver"]?.text, /tsvmm bind 0000:/, "and how to bind it");
  t.equal(seen["ownDriver"]?.status, 1);
  t.match(seen["inUse"]?.text, new RegExp(`\\b${seen["holderPid"]}\\b`), "the process that has it");
  t.equal(seen["inUse"]?.status, 1);
  t.equal(seen["afterTerm"], 143, "the next one got the device after SIGKILL, and ended by SIGTERM in order");
  for (const name of ["missing", "ownDriver", "inUse"]) {
    t.equal(seen[name]?.text.trimEnd().split("\n").length, 1, `${name} is one line: ${seen[name]?.text}`);
  }
});

t.test("A guest on Debian's vmlinux uses the card reader through its legacy interrupt, with mapped BARs", async (t) => {
  const seen = observed(t, "legacyInterrupt");
  t.equal(seen["protocol"], "PVH");
  t.equal(seen["sha256"], sha256(cardBytes));
  t.equal(seen["wrote"], 0);
  const [line] = interrupts(seen["interrupts"], /mmc0/);
  t.match(line?.kind, /IO-APIC.*fasteoi/, "level-triggered, through the I/O APIC");
  t.ok((line?.count ?? 0) > 20, `${line?.count} interrupts: every one was handled and unmasked again`);
  t.equal(
    (await readSdCardFile(card, "guest.txt"))?.toString(),
    "from the guest\n",
    "what the guest wrote is on the card",
  );
  t.equal(seen["status"], 0, "poweroff");
});

t.test("A guest with four CPUs uses an NVMe disk and a network card at once, before and after a reboot", async (t) => {
  const seen = observed(t, "twoDevices");
  t.equal(seen["cpus"], "4");
  const expected = sha256(nvmeBytes.subarray(0, 4 * MIB));
  t.equal(seen["nvmeSha256"], expected);
  t.equal(seen["again"], expected, "after the reboot");
  t.equal(seen["wrote"], 0);
  const written = readFileSync(nvmeImage)
    .subarray(16_384 * 512, 16_384 * 512 + 21)
    .toString();
  t.equal(written, "written by the guest\n", "what the guest wrote is on the disk");
  t.match(seen["lease"], /lease of 10\.0\.2\.\d+ obtained[\s\S]*inet 10\.0\.2\.\d+/, "a DHCP lease over the card");
  t.match(seen["lease"], /2 packets received/, "and its answers to a ping");
  const nvme = interrupts(seen["interrupts"], /nvme0q[1-9]/);
  t.ok(nvme.length >= 1 && nvme.every(({ kind }) => /PCI-MSI/.test(kind)), "NVMe uses message-signalled interrupts");
  t.ok(nvme.reduce((sum, { count }) => sum + count, 0) > 10, "and they arrive");
  const card = interrupts(seen["interrupts"], /eth0/);
  t.ok(
    card.length >= 3 && card.every(({ kind }) => /PCI-MSI/.test(kind)),
    "e1000e has receive, transmit and other vectors",
  );
  t.same({ resets: seen["resets"], status: seen["status"] }, { resets: 1, status: 0 });
});

t.test("Reading 64 MiB from a passed-through NVMe disk causes no exit to userspace but the console's", async (t) => {
  const { dataPath } = observed(t, "twoDevices") as { dataPath: { mmioExits: number; interrupts: number } }; // cast: as scenarios.ts made it
  t.equal(dataPath.mmioExits, 0);
  t.ok(dataPath.interrupts >= 64, `${dataPath.interrupts} interrupts came meanwhile`);
});

t.test(
  "The same with bars=trap exits for every doorbell, works all the same, and survives a kernel panic",
  async (t) => {
    const seen = observed(t, "trapped");
    const { dataPath } = seen as { dataPath: { mmioExits: number; interrupts: number } }; // cast: as scenarios.ts made it
    t.equal(seen["cpus"], "1");
    t.equal(seen["nvmeSha256"], sha256(nvmeBytes.subarray(0, 4 * MIB)));
    t.ok(dataPath.mmioExits >= 64, `${dataPath.mmioExits} exits for ${dataPath.interrupts} interrupts`);
    t.same(
      { resets: seen["resets"], status: seen["status"] },
      { resets: 1, status: 0 },
      "panic=1 reset the guest, poweroff ended it",
    );
  },
);

t.test("A guest from Debian's kernel reaches userspace with few exits", async (t) => {
  const { bootExits } = observed(t, "twoDevices") as {
    bootExits: { exits: Record<string, number>; accesses: Record<string, number> };
  }; // cast: as scenarios.ts made it
  const total = Object.values(bootExits.exits).reduce((sum, count) => sum + count, 0);
  t.comment(
    `exits to the shell prompt: ${JSON.stringify(bootExits.exits)}, by device: ${JSON.stringify(bootExits.accesses)}`,
  );
  t.ok(total < 6000, `${total} exits until the shell's prompt, quiet`);
});

t.test("examples/linux-guest.ts boots Linux with two CPUs, asks it a question and powers it off", async (t) => {
  t.equal(exampleStatus, 0);
});
