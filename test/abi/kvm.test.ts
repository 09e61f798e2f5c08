import t from "tap";
import * as abi from "../../src/kvm/abi.ts";
import * as run from "../../src/kvm/abi-run.ts";
import * as structs from "../../src/kvm/abi-structs.ts";
import { evaluateC, missingCompiler } from "../support/c-headers.ts";

const skip = missingCompiler();

/** Our table and the C struct it describes. A key is the field's C designator; `size` is the struct's. */
const STRUCTS: readonly (readonly [string, Readonly<Record<string, number>>])[] = [
  ["kvm_userspace_memory_region", structs.MEMORY_REGION],
  ["kvm_pit_config", structs.PIT_CONFIG],
  ["kvm_reinject_control", structs.REINJECT_CONTROL],
  ["kvm_irqchip", structs.IRQCHIP],
  ["kvm_irq_level", structs.IRQ_LEVEL],
  ["kvm_irqfd", structs.IRQFD],
  ["kvm_ioeventfd", structs.IOEVENTFD],
  ["kvm_coalesced_mmio_zone", structs.COALESCED_ZONE],
  ["kvm_coalesced_mmio_ring", structs.COALESCED_RING],
  ["kvm_coalesced_mmio", structs.COALESCED_WRITE],
  ["kvm_irq_routing", structs.IRQ_ROUTING],
  ["kvm_irq_routing_entry", structs.IRQ_ROUTING_ENTRY],
  ["kvm_msi", structs.MSI],
  ["kvm_create_device", structs.CREATE_DEVICE],
  ["kvm_device_attr", structs.DEVICE_ATTR],
  ["kvm_cpuid2", structs.CPUID2],
  ["kvm_cpuid_entry2", structs.CPUID_ENTRY2],
  ["kvm_regs", structs.REGS],
  ["kvm_segment", structs.SEGMENT],
  ["kvm_dtable", structs.DTABLE],
  ["kvm_sregs", structs.SREGS],
  ["kvm_fpu", structs.FPU],
  ["kvm_lapic_state", structs.LAPIC_STATE],
  ["kvm_msrs", structs.MSRS],
  ["kvm_msr_entry", structs.MSR_ENTRY],
  ["kvm_signal_mask", structs.SIGNAL_MASK],
  ["kvm_run", run.RUN],
];

/** Fields called otherwise here: `size` is the struct's own. */
const FIELDS: Readonly<Record<string, string>> = { zone_size: "size" };

/** Tables whose keys are C names after a prefix. */
const PREFIXED: readonly (readonly [string, Readonly<Record<string, number>>])[] = [
  ["", abi.IOCTL],
  ["KVM_CAP_", abi.KVM_CAP],
  ["KVM_EXIT_", run.KVM_EXIT],
  ["KVM_INTERNAL_ERROR_", run.KVM_INTERNAL_ERROR],
  ["KVM_SYSTEM_EVENT_", run.KVM_SYSTEM_EVENT],
];

/** Names that the headers spell otherwise, or not at all. */
const IN_HEADERS: Readonly<Record<string, string>> = {
  KVM_DEV_VFIO_FILE: "KVM_DEV_VFIO_GROUP",
  KVM_DEV_VFIO_FILE_ADD: "KVM_DEV_VFIO_GROUP_ADD",
  KVM_DEV_VFIO_FILE_DEL: "KVM_DEV_VFIO_GROUP_DEL",
};

/** Our numbers under the C expressions they must equal. */
function expectations(): Map<string, number> {
  const expected = new Map<string, number>();
  for (const [name, table] of STRUCTS) {
    for (const [field, value] of Object.entries(table)) {
      expected.set(
        field === "size" ? `sizeof(struct ${name})` : `offsetof(struct ${name}, ${FIELDS[field] ?? field})`,
        value,
      );
    }
  }
  for (const [prefix, table] of PREFIXED) {
    for (const [name, value] of Object.entries(table)) expected.set(prefix + name, value);
  }
  for (const [name, value] of [...Object.entries(abi), ...Object.entries(run)]) {
    if (typeof value === "number" && name.startsWith("KVM_")) expected.set(IN_HEADERS[name] ?? name, value);
  }
  return expected;
}

t.test("every number and offset of kvm/abi*.ts is the C headers'", { skip }, async (t) => {
  const expected = expectations();
  t.ok(expected.size > 150, "the tables were found");
  const actual = evaluateC(["linux/kvm.h"], [...expected.keys()]);
  for (const [expression, value] of expected) t.equal(value, actual.get(expression), expression);
});
