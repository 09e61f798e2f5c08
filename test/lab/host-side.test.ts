import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { labDeviceBdf } from "../../lab/devices.ts";
import { writeRandomImage, writeSdCard } from "../../lab/media.ts";
import { ensureLabPrerequisites } from "../../lab/prerequisites.ts";
import { parseRecording } from "../../src/passthrough/recording.ts";
import { projectRoot } from "../../tools/cache.ts";
import type { HostInputs } from "./host-scenarios.ts";
import { observed, progress, runScenarios, testFolder } from "./run-scenarios.ts";

/*
 * Passthrough seen from the host: the subcommands as somebody types them, refusals, machines that are killed, devices
 * the host wants back. Real VFIO, in a nested host; guests of a few instructions.
 */

const MIB = 1024 ** 2;
/** For one nested host. */
const LAB_TIMEOUT_MS = 600_000;
/** With scenarios that run again. */
const TEST_TIMEOUT_MS = 3_000_000;

t.setTimeout(TEST_TIMEOUT_MS);
const folder = testFolder();
await ensureLabPrerequisites(progress);
const card = join(folder, "card.img");
await writeSdCard(card, 64 * MIB, {});
const nvmeImage = join(folder, "nvme.img");
writeRandomImage(nvmeImage, 64 * MIB);

const inputs: HostInputs = {
  sdhci: labDeviceBdf(0),
  nvme: labDeviceBdf(1),
  e1000e: labDeviceBdf(2),
  edu: labDeviceBdf(3),
  pair: [labDeviceBdf(4, 0), labDeviceBdf(4, 1)],
};

const outcome = await runScenarios({
  folder,
  devices: [
    { model: "sdhci-pci", image: card },
    { model: "nvme", image: nvmeImage },
    { model: "e1000e" },
    { model: "edu" },
    { model: "edu", further: [{ model: "edu" }] },
  ],
  drivers: "none",
  program: fileURLToPath(new URL("host-scenarios.js", import.meta.url)),
  inputs,
  names: ["prompt", "recordings", "refusals", "sameSlot", "kept"],
  timeoutMs: LAB_TIMEOUT_MS,
});

/** What a command did, as host-scenarios.ts writes it down. */
interface Said {
  readonly status: number | null;
  readonly text: string;
}

/** One function of `devices --json`, as far as it is looked at here. */
interface Listed {
  readonly address: string;
  readonly driver: string | null;
  readonly group: { readonly members: readonly { readonly address: string }[] } | null;
  readonly verdict: { readonly state: string; readonly reason?: string; readonly bind?: readonly string[] };
}

t.test("devices, doctor, bind and unbind lead a new user from what is there to a start and back", async (t) => {
  const { nvme, edu, pair } = inputs;
  const seen = observed(outcome, t, "prompt") as Record<string, Said>; // cast: mostly, and the others are cast below
  // Cast: likewise.
  const listedIn = (name: string): readonly Listed[] => JSON.parse(seen[name]?.text ?? "[]") as Listed[];
  const find = (name: string, bdf: string): Listed | undefined => listedIn(name).find(({ address }) => address === bdf);

  t.equal(seen["table"]?.status, 0);
  t.match(seen["table"]?.text, new RegExp(`${edu}.*needs bind`));
  t.match(find("listed", edu)?.verdict, { state: "needs bind" });
  t.match(find("listed", nvme)?.verdict, { state: "blocked", reason: /mounted/ });
  t.same(
    find("listed", pair[0])
      ?.group?.members.map(({ address }) => address)
      .filter((one) => pair.includes(one)),
    pair,
  );

  t.equal(seen["missing"]?.status, 1, "a start would fail");
  t.match(seen["missing"]?.text, /FAIL[^\n]*[\s\S]*tsvmm bind/, "and the remedy is named");
  t.match(seen["wouldWrite"]?.text, new RegExp(`echo vfio-pci > /sys/bus/pci/devices/${edu}/driver_override`));
  t.equal((seen as Record<string, unknown>)["stillUnbound"], undefined, "a dry run changes nothing");
  t.equal(seen["refused"]?.status, 1);
  t.match(seen["refused"]?.text, new RegExp(`Cannot bind ${nvme}: .*mounted`));

  t.equal(seen["bound"]?.status, 0);
  t.match(seen["bound"]?.text, new RegExp(`${edu}: no driver → vfio-pci\\n${nvme}: nvme → vfio-pci`));
  t.match(seen["again"], { status: 0, text: /has it already/ });
  t.match(seen["half"], { status: 0 });
  t.match(seen["group"], { status: 0 });
  t.same((seen as Record<string, unknown>)["drivers"], {
    edu: "vfio-pci",
    nvme: "vfio-pci",
    pair: ["vfio-pci", "vfio-pci"],
  });
  t.equal(seen["ready"]?.status, 0, `doctor: ${seen["ready"]?.text}`);
  t.match(seen["ready"]?.text, /would start\n$/);
  t.same(
    [edu, nvme, ...pair].map((bdf) => find("states", bdf)?.verdict.state),
    ["ready", "ready", "ready", "ready"],
  );

  t.equal(seen["whileHeld"]?.status, 1);
  t.match(seen["whileHeld"]?.text, new RegExp(`\\b${seen["holder"]}\\b`), "who has it");
  t.equal(seen["unbound"]?.status, 0);
  t.match(seen["nothing"], { status: 0, text: /nothing to do/ });
  t.same((seen as Record<string, unknown>)["driversAfter"], { nvme: "nvme" }, "each has the driver it had");

  // Cast: as host-scenarios.ts made it.
  const wrong = (seen as Record<string, unknown>)["wrong"] as Record<string, Said>;
  for (const [name, said] of Object.entries(wrong)) {
    t.equal(said.status, 2, `${name} is bad input: ${said.text}`);
    t.equal(said.text.trimEnd().split("\n").length, 1, `${name} is one line`);
  }
});

t.test("devices --record describes the lab's functions as the fixtures have them", async (t) => {
  const seen = observed(outcome, t, "recordings");
  t.same(seen["statuses"], [0, 0, 0, 0, 0]);
  const recordings = seen["recordings"] as Record<string, unknown>; // cast: as host-scenarios.ts made it
  t.same(Object.keys(recordings), ["sdhci-pci", "nvme", "e1000e", "edu"]);
  for (const [name, recording] of Object.entries(recordings)) {
    const file = join(projectRoot(), "test/fixtures/devices", `${name}.json`);
    const fixture = parseRecording(readFileSync(file, "utf8"));
    const { configSpace: _, ...found } = parseRecording(JSON.stringify(recording));
    const { configSpace: __, ...expected } = fixture;
    t.same(found, expected, `${name}: regions, interrupts, resets`);
  }
});

t.test("tsvmm names what is wrong with a device, and takes one whose users were killed, 20 times", async (t) => {
  const seen = observed(outcome, t, "refusals");
  const said = seen as Record<string, Said>; // cast: as host-scenarios.ts made it
  t.match(said["missing"]?.text, /0000:42:00\.0/);
  t.equal(said["missing"]?.status, 2, "no such device is bad input");
  t.match(said["ownDriver"]?.text, /virtio-pci/, "the driver it is bound to");
  t.match(said["ownDriver"]?.text, /tsvmm bind 0000:/, "and how to bind it");
  t.equal(said["ownDriver"]?.status, 1);
  const forbidden = seen["forbidden"] as readonly Said[]; // cast: as host-scenarios.ts made it
  const remedies = {
    "/dev/kvm": /EACCES \(add the user to group kvm/,
    "/dev/vfio/vfio": /permission denied \(run as root, or .*: chown \$USER \/dev\/vfio\/vfio\)/,
    [`/dev/vfio/${seen["group"]}`]: /permission denied \(run as root, or .*: chown \$USER \/dev\/vfio\/\d+\)/,
  };
  Object.entries(remedies).forEach(([node, remedy], index) => {
    t.match(forbidden[index], { status: 1, text: `Cannot open ${node}: ` }, `no permission for ${node}`);
    t.match(forbidden[index]?.text, remedy);
  });
  t.match(said["lockLimit"], { status: 1, text: /memory lock limit|memlock|ulimit/ }, "RAM that may not be locked");
  t.match(said["inUse"]?.text, new RegExp(`\\b${seen["holderPid"]}\\b`), "the process that has it");
  t.equal(said["inUse"]?.status, 1);
  for (const one of [said["missing"], said["ownDriver"], said["inUse"], said["lockLimit"], ...forbidden]) {
    t.equal(one?.text.trimEnd().split("\n").length, 1, `one line: ${one?.text}`);
  }
  t.same(seen["kills"], Array(20).fill("SIGKILL"), "after each, the next start took the device");
  t.equal(seen["afterTerm"], 143, "the last one ended by SIGTERM in order");
});

t.test("Both functions of a host slot work in one guest slot, under their own numbers", async (t) => {
  const seen = observed(outcome, t, "sameSlot");
  const both = { failedStep: 0, functions: ["00:05.0", "00:05.1"] };
  t.same(seen["seen"], [both, both], "each function's registers, DMA and MSI");
  const twice = seen["twice"] as Said; // cast: as host-scenarios.ts made it
  t.equal(twice.status, 2, `the same one twice, by another path: ${twice.text}`);
});

t.test("A machine whose guest keeps a device that the host wants back goes on and says who waits", async (t) => {
  const seen = observed(outcome, t, "kept");
  const { status, text } = seen["ended"] as { status: number; text: string }; // cast: as host-scenarios.ts made it
  t.equal(status, 143, "it ended by the signal, not before");
  t.match(text, /process \d+ \(\S+\) has waited 20 s for it; the guest keeps it/);
  t.equal((seen["unbound"] as Said).status, 0, "the host's unbind came back");
  t.not(seen["driver"], "vfio-pci");
});
