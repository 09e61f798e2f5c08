import t, { type Test } from "tap";
import type { RegisterBank } from "../../src/base/registers.ts";
import { BLOCK_CONFIG, VirtioBlock } from "../../src/virtio/block.ts";
import { COMMON_CONFIG } from "../../src/virtio/common-config.ts";
import { CONSOLE_CONFIG, VirtioConsole } from "../../src/virtio/console.ts";
import { VirtioRng } from "../../src/virtio/rng.ts";
import { evaluateC, missingCompiler } from "../support/c-headers.ts";
import { FakeBlock } from "../support/fake-block.ts";
import { FakeChar } from "../support/fake-char.ts";
import { plugVirtio } from "../support/virtio-bench.ts";

const skip = missingCompiler();
const HEADERS = ["linux/virtio_pci.h", "linux/virtio_blk.h", "linux/virtio_console.h", "linux/virtio_ids.h"];

/** Checks every row of a bank against a struct; `fieldOf` gives the C field and the offset in it. */
function checkBank<Name extends string>(
  t: Test,
  bank: RegisterBank<Name>,
  struct: string,
  fieldOf: (name: Name) => readonly [field: string, offset: number, width?: number],
): void {
  const questions = bank.rows.map(([, , name]) => {
    const [field] = fieldOf(name);
    return { name, offset: `offsetof(struct ${struct}, ${field})`, size: `sizeof(((struct ${struct} *)0)->${field})` };
  });
  const answers = evaluateC(
    HEADERS,
    questions.flatMap(({ offset, size }) => [offset, size]),
  );
  for (const [i, [offset, width, name]] of bank.rows.entries()) {
    const question = questions[i];
    const [field, within, whole] = fieldOf(name);
    t.equal(offset, (answers.get(question?.offset ?? "") ?? -1) + within, `${struct}.${field}: offset`);
    t.equal(whole ?? width, answers.get(question?.size ?? ""), `${struct}.${field}: size`);
  }
}

t.test("COMMON_CONFIG is struct virtio_pci_common_cfg", { skip }, async (t) => {
  const linuxNames: Readonly<Record<string, string>> = {
    device_feature_select: "device_feature_select",
    driver_feature_select: "guest_feature_select",
    driver_feature: "guest_feature",
    config_msix_vector: "msix_config",
    queue_driver_lo: "queue_avail_lo",
    queue_driver_hi: "queue_avail_hi",
    queue_device_lo: "queue_used_lo",
    queue_device_hi: "queue_used_hi",
  };
  checkBank(t, COMMON_CONFIG, "virtio_pci_common_cfg", (name) => [linuxNames[name] ?? name, 0]);
  const size = "sizeof(struct virtio_pci_common_cfg)";
  t.equal(COMMON_CONFIG.sizeBytes, evaluateC(HEADERS, [size]).get(size));
});

t.test("BLOCK_CONFIG is the start of struct virtio_blk_config", { skip }, async (t) => {
  checkBank(t, BLOCK_CONFIG, "virtio_blk_config", (name) => {
    if (name === "capacity_low") return ["capacity", 0, 8];
    if (name === "capacity_high") return ["capacity", 4, 8];
    return [name, 0];
  });
});

t.test("CONSOLE_CONFIG is struct virtio_console_config", { skip }, async (t) => {
  checkBank(t, CONSOLE_CONFIG, "virtio_console_config", (name) => [name, 0]);
});

t.test("Virtio devices have the ids and feature bits of the headers", { skip }, async (t) => {
  const block = ["SEG_MAX", "BLK_SIZE", "FLUSH", "TOPOLOGY", "DISCARD", "WRITE_ZEROES"]
    .map((name) => `(1ull << VIRTIO_BLK_F_${name})`)
    .join(" | ");
  const readOnly = `(1ull << VIRTIO_BLK_F_RO)`;
  const consoleSize = `(1ull << VIRTIO_CONSOLE_F_SIZE)`;
  const ids = ["VIRTIO_ID_BLOCK", "VIRTIO_ID_CONSOLE", "VIRTIO_ID_RNG"];
  const answers = evaluateC(HEADERS, [block, readOnly, consoleSize, ...ids]);
  const deviceBits = 0xff_ffffn; // bits 0 to 23
  plugVirtio((memory) => {
    const disk = new VirtioBlock("disk0", new FakeBlock(memory), "");
    t.equal(Number(disk.features & deviceBits), answers.get(block));
    t.equal(disk.deviceId, answers.get("VIRTIO_ID_BLOCK"));
    const fixed = new VirtioBlock("disk1", new FakeBlock(memory, { isReadOnly: true }), "");
    t.equal(Number(fixed.features) & (answers.get(readOnly) ?? 0), answers.get(readOnly));
    return disk;
  });
  const terminal = new VirtioConsole("console0", new FakeChar(), { columns: 80, rows: 24 });
  t.equal(Number(terminal.features), answers.get(consoleSize));
  t.equal(terminal.deviceId, answers.get("VIRTIO_ID_CONSOLE"));
  t.equal(new VirtioRng("rng0", { take: () => 0, onReady: () => {} }).deviceId, answers.get("VIRTIO_ID_RNG"));
});

t.test("The virtio capabilities are struct virtio_pci_cap and its longer kinds", { skip }, async (t) => {
  const offsets: Readonly<Record<string, number>> = {
    "offsetof(struct virtio_pci_cap, cap_len)": 2,
    "offsetof(struct virtio_pci_cap, cfg_type)": 3,
    "offsetof(struct virtio_pci_cap, bar)": 4,
    "offsetof(struct virtio_pci_cap, offset)": 8,
    "offsetof(struct virtio_pci_cap, length)": 12,
    "offsetof(struct virtio_pci_notify_cap, notify_off_multiplier)": 16,
    "offsetof(struct virtio_pci_cfg_cap, pci_cfg_data)": 16,
    VIRTIO_PCI_CAP_COMMON_CFG: 1,
    VIRTIO_PCI_CAP_NOTIFY_CFG: 2,
    VIRTIO_PCI_CAP_ISR_CFG: 3,
    VIRTIO_PCI_CAP_DEVICE_CFG: 4,
    VIRTIO_PCI_CAP_PCI_CFG: 5,
  };
  const answers = evaluateC(HEADERS, Object.keys(offsets));
  const { driver } = plugVirtio(() => new VirtioConsole("console0", new FakeChar(), { columns: 80, rows: 24 }));
  t.strictSame(Object.fromEntries(answers), offsets, "the numbers that GuestDriver finds its structures by");
  t.equal(driver.place(4).length, 12);
});
