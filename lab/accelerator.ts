import { accessSync, constants, readFileSync } from "node:fs";

/** What runs the nested host's CPUs: the machine's own KVM, or QEMU's translator. */
export type Accelerator = "kvm" | "tcg";

/** Why an accelerator was chosen, to be shown. */
export interface AcceleratorChoice {
  readonly accelerator: Accelerator;
  readonly reason: string;
}

const readable = (path: string): string => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
};

/**
 * Answers KVM where it can run a guest that runs KVM itself, and the translator elsewhere.
 *
 * The nested host needs the processor's virtualisation passed on to it. A `/dev/kvm` alone says nothing about that:
 * there are KVMs without hardware behind them, and hardware ones with nesting turned off.
 */
export function chooseAccelerator(): AcceleratorChoice {
  const translator = (reason: string): AcceleratorChoice => ({ accelerator: "tcg", reason });
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return translator("/dev/kvm cannot be opened here");
  }
  const flag = /^flags\s*:.*\b(vmx|svm)\b/m.exec(readable("/proc/cpuinfo"))?.[1];
  if (flag === undefined) return translator("this machine's processor shows no hardware virtualisation");
  const kvmModule = flag === "vmx" ? "kvm_intel" : "kvm_amd";
  if (!/^[Y1]/.test(readable(`/sys/module/${kvmModule}/parameters/nested`))) {
    return translator(`${kvmModule} does not nest (its parameter nested is off)`);
  }
  return { accelerator: "kvm", reason: `${kvmModule} nests` };
}
