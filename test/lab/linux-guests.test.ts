import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { guestImages } from "../../guest-images/images.ts";
import { labDeviceBdf } from "../../lab/devices.ts";
import { readSdCardFile, sha256, writeRandomImage, writeSdCard } from "../../lab/media.ts";
import { ensureLabPrerequisites } from "../../lab/prerequisites.ts";
import { observed, progress, runScenarios, testFolder } from "./run-scenarios.ts";
import type { LabInputs } from "./scenarios.ts";

/*
 * Linux guests with real VFIO devices, in one nested host. The scenarios run over there and write down what they saw
 * (scenarios.ts); here it is judged, together with what the devices' images hold afterwards.
 */

const MIB = 1024 ** 2;
/** For one nested host. */
const LAB_TIMEOUT_MS = 1_500_000;
/** With scenarios that run again. */
const TEST_TIMEOUT_MS = 3_000_000;
const EXAMPLE = "example";

t.setTimeout(TEST_TIMEOUT_MS);
const folder = testFolder();
await ensureLabPrerequisites(progress);
const images = await guestImages(progress);
const nvmeImage = join(folder, "nvme.img");
const nvmeBytes = writeRandomImage(nvmeImage, 128 * MIB);
const card = join(folder, "card.img");
const cardBytes = nvmeBytes.subarray(0, MIB);
await writeSdCard(card, 64 * MIB, { "random.bin": cardBytes });

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

const outcome = await runScenarios({
  folder,
  devices: [
    { model: "sdhci-pci", image: card },
    { model: "nvme", image: nvmeImage },
    { model: "e1000e" },
    { model: "edu" },
  ],
  program: fileURLToPath(new URL("scenarios.js", import.meta.url)),
  inputs,
  names: ["edu", "maskedVectors", "legacyInterrupt", "twoDevices", "trapped", "userDevices", "rebootAndUnbind"],
  commands: {
    [EXAMPLE]: [
      "node",
      fileURLToPath(new URL("../../examples/linux-guest.js", import.meta.url)),
      images.kernel.vmlinux,
      images.initramfs,
    ],
  },
  timeoutMs: LAB_TIMEOUT_MS,
});

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
  const edu = observed(outcome, t, "edu");
  t.equal(edu["failedStep"], 0, "the step that failed; 0 for none");
});

t.test("A bare-metal guest masks a network card's MSI-X vectors: they wait, and come once", async (t) => {
  const seen = observed(outcome, t, "maskedVectors");
  t.equal(seen["failedStep"], 0, "the step that failed; 0 for none");
  // Cast: as scenarios.ts made it.
  const [card] = (seen["functions"] as { counters: Record<string, unknown> }[]).filter(
    ({ counters }) => counters["host"] === inputs.e1000e,
  );
  t.match(card?.counters, { interruptKind: "msix", interruptsArmed: 2 }, "two of five vectors asked of the host");
  t.match(card?.counters, { "interrupts.msix[0]": 4, "interrupts.msix[1]": 3 }, "as many on the host as it raised");
});

t.test("A guest on Debian's vmlinux uses the card reader through its legacy interrupt, with mapped BARs", async (t) => {
  const seen = observed(outcome, t, "legacyInterrupt");
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

t.test("A guest with four CPUs uses an NVMe disk and a network card at once", async (t) => {
  const seen = observed(outcome, t, "twoDevices");
  t.equal(seen["cpus"], "4");
  const expected = sha256(nvmeBytes.subarray(0, 4 * MIB));
  t.equal(seen["nvmeSha256"], expected);
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
  t.equal(seen["status"], 0);
  // Cast: as scenarios.ts made it.
  const counters = seen["counters"] as { readonly counters: Record<string, unknown> }[];
  const nvmeCounters = counters.find((one) => one.counters["host"] === inputs.nvme)?.counters;
  t.equal(nvmeCounters?.["interruptsArmed"], 5, "of 65 vectors, one for the admin queue and one for each CPU's");
  const sum = (counts: readonly number[]): number => counts.reduce((total, count) => total + count, 0);
  const onHost = sum([1, 2, 3, 4].map((vector) => Number(nvmeCounters?.[`interrupts.msix[${vector}]`])));
  const inGuest = sum(nvme.map(({ count }) => count));
  const repeated = Number(nvmeCounters?.["interruptsRepeated"]); // Debian 12's kernel arms a grown set of vectors anew
  t.ok(
    onHost + repeated >= inGuest,
    `${onHost} interrupts on the host, ${repeated} repeated, ${inGuest} in the guest: some may be one there`,
  );
});

t.test("A guest has its devices again after a reboot, and lets go of a card that the host takes back", async (t) => {
  const seen = observed(outcome, t, "rebootAndUnbind");
  const expected = sha256(nvmeBytes.subarray(0, 4 * MIB));
  t.same({ before: seen["before"], after: seen["after"] }, { before: expected, after: expected });
  const unbound = seen["unbound"] as { status: number; text: string }; // cast: as scenarios.ts made it
  t.equal(unbound.status, 0, `the host's unbind came back: ${unbound.text}`);
  t.notMatch(seen["left"], /0x10d3/, "the function is off the guest's bus");
  t.match(seen["left"], /0x1b36 0x0010 nvme/, "the other one is still there");
  t.match(seen["left"], /eth0.*(does not exist|can't find)|can't find device/, "its driver has let go");
  t.same({ resets: seen["resets"], status: seen["status"] }, { resets: 1, status: 0 }, "and the guest went on");
});

t.test("Reading 64 MiB from a passed-through NVMe disk causes no exit to userspace but the console's", async (t) => {
  // Cast: as scenarios.ts made it.
  const { dataPath } = observed(outcome, t, "twoDevices") as { dataPath: { mmioExits: number; interrupts: number } };
  t.equal(dataPath.mmioExits, 0);
  t.ok(dataPath.interrupts >= 64, `${dataPath.interrupts} interrupts came meanwhile`);
});

t.test(
  "The same with bars=trap exits for every doorbell, works all the same, and survives a kernel panic",
  async (t) => {
    const seen = observed(outcome, t, "trapped");
    // cast: as scenarios.ts made it
    const { dataPath } = seen as { dataPath: { mmioExits: number; interrupts: number } };
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
  const { bootExits } = observed(outcome, t, "twoDevices") as {
    bootExits: { exits: Record<string, number>; accesses: Record<string, number> };
  }; // cast: as scenarios.ts made it
  const total = Object.values(bootExits.exits).reduce((sum, count) => sum + count, 0);
  t.comment(
    `exits to the shell prompt: ${JSON.stringify(bootExits.exits)}, by device: ${JSON.stringify(bootExits.accesses)}`,
  );
  t.ok(total < 6000, `${total} exits until the shell's prompt, quiet`);
});

t.test("examples/linux-guest.ts boots Linux with two CPUs, asks it a question and powers it off", async (t) => {
  t.equal(outcome.statuses.get(EXAMPLE), 0);
});

t.test(
  "A Linux guest uses devices that are processes: an NVMe disk by its own driver, and edu's registers",
  async (t) => {
    const seen = observed(outcome, t, "userDevices");
    t.match(seen["functions"], /0000:00:03\.0 \S+ \S+ nvme\n0000:00:04\.0 0x1234 0x11e8/);
    t.equal(seen["nvmeSha256"], seen["expected"]);
    t.equal(seen["wrote"], 0);
    t.equal(seen["written"], "written by the guest\n", "what the guest wrote is in the image");
    const queues = interrupts(seen["interrupts"], /nvme0q/);
    t.ok(queues.length >= 2 && queues.every(({ kind, count }) => /PCI-MSI/.test(kind) && count > 0), "by its vectors");
    t.equal(seen["registers"], "0x010000ED\n0xEDCBA987\n0x00000078\n", "identity, the inverse, 5!");
    t.same({ status: seen["status"], ends: seen["ends"] }, { status: 0, ends: [0, 0] });
  },
);
