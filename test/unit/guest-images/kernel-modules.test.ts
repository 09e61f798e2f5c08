import t from "tap";
import { moduleClosure, moduleName, parseModulesDep } from "../../../guest-images/kernel-modules.ts";

const TABLE = parseModulesDep(
  [
    "kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko",
    "kernel/fs/jbd2/jbd2.ko:",
    "kernel/lib/crc16.ko:",
    "kernel/drivers/mmc/host/sdhci-pci.ko.xz: kernel/drivers/mmc/host/sdhci.ko.xz",
    "kernel/drivers/mmc/host/sdhci.ko.xz:",
    "",
  ].join("\n"),
);

t.test("moduleName() is the kernel's spelling of a module file", (t) => {
  t.equal(moduleName("kernel/drivers/mmc/host/sdhci-pci.ko"), "sdhci_pci");
  t.equal(moduleName("kernel/drivers/mmc/host/sdhci-pci.ko.xz"), "sdhci_pci");
  t.end();
});

t.test("moduleClosure() brings what a module needs, once", (t) => {
  t.same(moduleClosure(["ext4", "jbd2"], TABLE, new Set()), [
    "kernel/fs/ext4/ext4.ko",
    "kernel/fs/jbd2/jbd2.ko",
    "kernel/lib/crc16.ko",
  ]);
  t.same(moduleClosure(["sdhci_pci"], TABLE, new Set()).length, 2);
  t.end();
});

t.test("moduleClosure() passes over built-in modules and refuses unknown ones", (t) => {
  t.same(moduleClosure(["crc32"], TABLE, new Set(["crc32"])), []);
  t.throws(() => moduleClosure(["crc32"], TABLE, new Set()), { message: /kernel module crc32/ });
  t.end();
});
