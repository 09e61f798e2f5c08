import { existsSync } from "node:fs";
import t from "tap";
import type { HostCheck } from "../../../../src/host-pci/check.ts";
import { FunctionFacts } from "../../../../src/host-pci/functions.ts";
import { checkHost, kvmChecks } from "../../../../src/vmm/control/host-checks.ts";

const skip = existsSync("/dev/kvm") ? false : "there is no /dev/kvm";
const MIB = 2 ** 20;
const facts = new FunctionFacts();

/** A check with all that a person needs to act on it. */
function isComplete({ topic, found, why, remedy, state }: HostCheck): boolean {
  return topic !== "" && found !== "" && why !== "" && (state !== "failed" || (remedy ?? "") !== "");
}

const find = (checks: readonly HostCheck[], topic: string): HostCheck | undefined =>
  checks.find((check) => check.topic === topic);

t.test("kvmChecks() says what to do when there is no /dev/kvm, or something else in its place", async (t) => {
  const [missing, ...more] = kvmChecks("/no/such/kvm");
  t.same(more, []);
  t.match(missing, {
    topic: "/no/such/kvm",
    state: "failed",
    found: /ENOENT|not there|no /,
    remedy: /kvm_(intel|amd)/,
  });
  t.match(kvmChecks("/dev/null"), [{ topic: "/dev/null", state: "failed", found: "it is not KVM's", remedy: /Linux/ }]);
});

t.test("kvmChecks() names each capability that is used, with what for", { skip }, async (t) => {
  const checks = kvmChecks();
  t.match(checks[0], { topic: "/dev/kvm", state: "good", found: "API version 12" });
  const topics = checks.map(({ topic }) => topic);
  for (const name of ["IRQCHIP", "USER_MEMORY", "IRQFD", "IOEVENTFD", "IRQ_ROUTING", "IMMEDIATE_EXIT"]) {
    t.ok(topics.includes(`KVM_CAP_${name}`), name);
  }
  t.ok(checks.every(isComplete));
});

t.test("checkHost() compares memory and huge pages with what the machine asks for", { skip }, async (t) => {
  const small = checkHost({ memory: { sizeBytes: 16 * MIB, hugepages: false }, devices: [], facts });
  t.match(find(small, "memory"), { state: "good", found: /for a guest of 16 MiB$/ });
  t.match(find(small, "huge pages"), { state: "good", found: /^not asked for/ });
  const large = checkHost({ memory: { sizeBytes: 2 ** 45, hugepages: false }, devices: [], facts });
  t.match(find(large, "memory"), { state: "warning", remedy: /--memory SIZE/ });
  // No machine has 32 TiB of huge pages reserved.
  const paged = checkHost({ memory: { sizeBytes: 2 ** 45, hugepages: true }, devices: [], facts });
  t.match(find(paged, "huge pages"), { state: "failed", found: /16777216 are needed$/, remedy: /nr_hugepages/ });
  for (const checks of [small, large, paged]) t.ok(checks.every(isComplete));
});

t.test("checkHost() lays memory out when nothing else is wrong, and tells where it ends", { skip }, async (t) => {
  const checks = checkHost({ memory: { sizeBytes: 4096 * MIB, hugepages: false }, devices: [], facts });
  t.match(find(checks, "address placement"), {
    state: "good",
    found: /^RAM ends at 0x140000000, 64-bit BARs at 0x\S+, \d+ GiB; the CPU has \d+ bits$/,
  });
});

t.test("checkHost() names a function that this host has not, and does not go on to its addresses", async (t) => {
  const devices = ["/sys/bus/pci/devices/0000:ff:1f.7"];
  const checks = checkHost({ memory: { sizeBytes: 16 * MIB, hugepages: false }, devices, facts });
  t.ok(checks.some(({ state, topic, found }) => state === "failed" && /0000:ff:1f\.7/.test(topic + found)));
  t.equal(find(checks, "address placement"), undefined);
  t.ok(checks.filter(({ state }) => state === "failed").every(isComplete));
});
