import { gpa } from "../../src/base/units.ts";
import { libc } from "../../src/host/libc.ts";
import { KvmSystem } from "../../src/kvm/system.ts";
import { Vm } from "../../src/kvm/vm.ts";
import { KVM_IDENTITY_MAP_ADDRESS, KVM_TSS_ADDRESS } from "../../src/vmm/shared/memory-map.ts";
import type { TimedLine } from "./process.ts";

/** _IO(KVMIO, 0xa3), KVM API §4.56 */
const KVM_GET_TSC_KHZ = 0xaea3;

let cached: number | undefined;

/** How often the guests' time stamp counter counts in a nanosecond. */
export function tscPerNanosecond(): number {
  if (cached !== undefined) return cached;
  const system = KvmSystem.open();
  const vm = Vm.create(system.fd, { tss: gpa(KVM_TSS_ADDRESS), identityMap: gpa(KVM_IDENTITY_MAP_ADDRESS) });
  const vcpu = vm.createVcpu(0);
  const khz = libc.ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
  libc.close(vcpu);
  vm.close();
  system.close();
  if (khz <= 0) throw new Error("Cannot tell the guests' time: KVM_GET_TSC_KHZ failed");
  cached = khz / 1e6;
  return cached;
}

const WORD = /^[0-9a-f]{8}$/;

/** The nanoseconds between each two readings of the counter that a guest reported; other lines are skipped. */
export function intervals(lines: readonly TimedLine[]): number[] {
  const words = lines.filter(({ text }) => WORD.test(text)).map(({ text }) => Number.parseInt(text, 16));
  const times: number[] = [];
  for (let i = 0; i + 1 < words.length; i += 2) times.push((words[i] ?? 0) * 2 ** 32 + (words[i + 1] ?? 0));
  const found: number[] = [];
  for (let i = 0; i + 1 < times.length; i += 2)
    found.push(((times[i + 1] ?? 0) - (times[i] ?? 0)) / tscPerNanosecond());
  return found;
}
