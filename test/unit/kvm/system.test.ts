import t from "tap";
import { KvmSystem, missingCapabilities, missingText } from "../../../src/kvm/system.ts";

t.test("KvmSystem.open() advises on the module and the firmware when there is no device", (t) => {
  t.throws(() => KvmSystem.open("/dev/there-is-no-kvm"), {
    name: "SyscallError",
    errno: "ENOENT",
    message: /^Cannot open \/dev\/there-is-no-kvm: open failed with ENOENT \(load the module kvm_intel or kvm_amd/,
  });
  t.end();
});

t.test("KvmSystem.open() refuses a file that is not KVM", (t) => {
  t.throws(() => KvmSystem.open("/dev/null"), {
    name: "HostError",
    message: /^Cannot use \/dev\/null: its API version/,
  });
  t.end();
});

t.test("missingText() names every missing capability with its reason", (t) => {
  const missing = missingCapabilities((name) => (name === "IRQFD" || name === "PIT2" ? 0 : 1));
  t.match(
    missingText("/dev/kvm", missing),
    /^Cannot use \/dev\/kvm: it lacks KVM_CAP_PIT2 \([^)]+\), KVM_CAP_IRQFD \([^)]+\)$/,
  );
  t.same(
    missingCapabilities(() => 1),
    [],
  );
  t.end();
});
