import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { errnoOf } from "../base/errors.ts";
import { SILENT } from "../base/silent-device.ts";
import { FIRMWARE_ADVICE, firmwareRanges } from "./attach-causes.ts";
import { framebufferState } from "./boot-framebuffer.ts";
import { type CheckOutcome, failed, type HostCheck } from "./check.ts";
import { entries, type HostRoot, textFile } from "./files.ts";
import {
  type FunctionFacts,
  type HostFunction,
  type HostGroup,
  isBridge,
  isVfioDriver,
  isVfioFunction,
  VMD_ADVICE,
  vmdReason,
} from "./functions.ts";
import { kernelArgument } from "./platform-checks.ts";
import { isSilent, silenceRemedy } from "./silence.ts";

/**
 * Checks one function that is to be passed through.
 *
 * @param known Groups whose members were looked at for functions before this one.
 * @param vfTokens By path; absent where none can be given.
 */
export function functionChecks(
  path: string,
  facts: FunctionFacts,
  known: ReadonlySet<number>,
  root: HostRoot,
  vfTokens?: ReadonlyMap<string, string>,
): readonly HostCheck[] {
  const pciFunction = facts.at(path);
  const name = pciFunction?.bdf ?? path;
  const check = (topic: string, why: string, outcome: CheckOutcome): HostCheck => ({
    topic: topic === "" ? name : `${topic} of ${name}`,
    why,
    action: `pass ${name} through`,
    ...outcome,
  });
  if (pciFunction === undefined)
    return [check("", "it has to be a PCI function of this host", noSuchFunction(path, root))];
  if (isBridge(pciFunction)) {
    return [
      check("", "only endpoints can be passed through", failed("TSVMM_BRIDGE", "it is a bridge, not an endpoint")),
    ];
  }
  const behindVmd = vmdReason(pciFunction);
  if (behindVmd !== undefined) {
    return [
      check("", "the IOMMU has to tell it from other functions", failed("TSVMM_NO_IOMMU", behindVmd, VMD_ADVICE)),
    ];
  }
  if (isSilent(path)) {
    const why = "a device that is off the bus cannot be passed through";
    return [check("answer", why, failed("TSVMM_DEVICE_UNUSABLE", SILENT, silenceRemedy(name)))];
  }
  const group = check(
    "IOMMU group",
    "the IOMMU tells groups apart, not the functions in one",
    groupState(pciFunction, root),
  );
  if (group.state === "failed") return [group];
  const checks = [
    group,
    check("driver", "a program can have a device by VFIO only, whose driver has to offer it", driverState(pciFunction)),
    check("reset", "a device that is not reset keeps what its last user left in it", resetState(pciFunction)),
  ];
  if (pciFunction.group !== undefined && !known.has(pciFunction.group)) {
    const why = "its members reach each other's DMA, so that none may stay with a host driver";
    checks.splice(
      2,
      0,
      check("other members of the group", why, membersState(pciFunction, facts.groupOf(pciFunction))),
    );
  }
  const token = tokenState(pciFunction, facts, vfTokens, path);
  if (token !== undefined) {
    checks.push(check("token", "who has the physical function decides who may have its virtual ones", token));
  }
  if (pciFunction.vendorId === 0x8086 && pciFunction.classCode >>> 16 === 0x03 && /^0+:00:02\.0$/.test(name)) {
    const found = "rendering, video and compute work in a guest; displays and its boot screen do not";
    const why = "the firmware's tables and stolen memory of the processor's GPU stay with the host";
    checks.push(check("graphics", why, { state: "warning", found }));
  }
  const width = widthState(pciFunction);
  if (width !== undefined) {
    checks.push(check("DMA address width", "guest RAM has to lie where the IOMMU translates", width));
  }
  const firmware = firmwareState(pciFunction, root);
  if (firmware !== undefined) {
    checks.push(check("firmware's use", "the kernel may not give away what the firmware does DMA to", firmware));
  }
  const screen = framebufferState(pciFunction, root.proc);
  if (screen !== undefined) checks.push(check("BARs", "vfio-pci needs their whole range for itself", screen));
  return checks;
}

function noSuchFunction(path: string, { sys }: HostRoot): CheckOutcome {
  try {
    if (!statSync(path).isDirectory()) return failed("TSVMM_NOT_PCI_FUNCTION", "it is not a PCI function's directory");
  } catch (error) {
    if (errnoOf(error) !== "ENOTDIR") {
      return failed(
        "TSVMM_DEVICE_ABSENT",
        "there is no such device",
        `ls ${join(sys, "bus/pci/devices")} names them; tsvmm devices tells what they are`,
      );
    }
  }
  return failed("TSVMM_NOT_PCI_FUNCTION", "it is not a PCI function's directory");
}

function groupState({ group, isNoIommuGroup }: HostFunction, { sys, proc }: HostRoot): CheckOutcome {
  if (group === undefined) {
    const hasUnits = entries(join(sys, "class/iommu")).length > 0;
    return hasUnits
      ? failed("TSVMM_NO_IOMMU", "no IOMMU translates for it")
      : failed("TSVMM_NO_IOMMU", "the IOMMU is off", kernelArgument(proc));
  }
  if (isNoIommuGroup) {
    const found = "its group has no IOMMU behind it, so its DMA would reach all of the host's memory";
    return failed("TSVMM_NO_IOMMU", found, kernelArgument(proc));
  }
  return { state: "good", found: String(group) };
}

function driverState(pciFunction: HostFunction): CheckOutcome {
  const { bdf, driver, vfioDevice } = pciFunction;
  if (isVfioFunction(pciFunction)) {
    return { state: "good", found: vfioDevice === undefined ? String(driver) : `${driver}, by VFIO as ${vfioDevice}` };
  }
  const state = driver === undefined ? "no driver has it" : `driver ${driver} has it`;
  return failed("TSVMM_DRIVER_NOT_VFIO", `${state}, not vfio-pci`, `tsvmm bind ${bdf}`);
}

/** As the kernel judges it: Linux drivers/vfio/pci/vfio_pci_core.c, vfio_pci_validate_vf_token(). */
function tokenState(
  pciFunction: HostFunction,
  facts: FunctionFacts,
  vfTokens: ReadonlyMap<string, string> | undefined,
  givenPath: string,
): CheckOutcome | undefined {
  const { path, physicalFunction } = pciFunction;
  const isGiven = vfTokens?.has(givenPath) === true;
  const physical = physicalFunction === undefined ? undefined : facts.at(join(path, "physfn"));
  if (physical !== undefined && isVfioDriver(physical.driver)) {
    if (isGiven) return { state: "good", found: "given" };
    const found = `its physical function ${physical.bdf} belongs to ${physical.driver}, whose owner's token is needed`;
    const remedy = "--device ...,vf-token=UUID";
    if (vfTokens !== undefined) return failed("TSVMM_VF_TOKEN", found, remedy);
    return { state: "warning", code: "TSVMM_VF_TOKEN", found, remedy };
  }
  if (!isGiven) return undefined;
  if (physical !== undefined) {
    const owner = `its physical function ${physical.bdf} has the driver ${physical.driver ?? "none"}`;
    return failed("TSVMM_VF_TOKEN", `a token is given, which has no use: ${owner}`, "leave vf-token out");
  }
  // That of a physical function becomes its virtual functions' token.
  if (existsSync(join(path, "sriov_totalvfs"))) return { state: "good", found: "given, for its virtual functions" };
  return failed(
    "TSVMM_VF_TOKEN",
    "a token is given, and it has nothing to do with virtual functions",
    "leave vf-token out",
  );
}

function membersState({ bdf }: HostFunction, group: HostGroup | undefined): CheckOutcome {
  const { members = [], obstacles = [], number } = group ?? {};
  const others = obstacles.filter((member) => member.bdf !== bdf);
  if (others.length > 0) {
    const names = others.map((member) => `${member.bdf} (driver ${member.driver})`).join(", ");
    return failed(
      "TSVMM_GROUP_NOT_VIABLE",
      `host drivers use others of IOMMU group ${number}: ${names}`,
      `tsvmm bind --group ${bdf}`,
    );
  }
  const rest = members.filter((member) => member.bdf !== bdf).map((member) => member.bdf);
  return { state: "good", found: rest.length === 0 ? "none" : `${rest.join(", ")}: no host driver uses them` };
}

function resetState({ path, resetMethods }: HostFunction): CheckOutcome {
  if (resetMethods[0] === "pm") {
    const found = `${resetMethods.join(", ")}: the kernel takes the trip through D3 first, which leaves much state`;
    return { state: "warning", found, remedy: "pass all functions of its bus: the bus is reset then" };
  }
  if (resetMethods.length > 0) return { state: "good", found: resetMethods.join(", ") };
  // Before 5.15 the kernel has the file `reset` only.
  if (existsSync(join(path, "reset"))) return { state: "good", found: "possible" };
  return { state: "warning", found: "the kernel cannot reset it alone" };
}

/**
 * VT-d 4.1 §11.4.2: MGAW in bits 21:16, SAGAW in bits 12:8. AMD I/O Virtualization 3.07 §3.4.9: HATS in bits 11:10 of
 * the features.
 */
function widthState({ path }: HostFunction): CheckOutcome | undefined {
  const unit = join(path, "iommu");
  const number = (file: string): bigint | undefined => {
    const text = textFile(unit, file);
    return text !== undefined && /^[0-9a-f]{1,16}$/i.test(text) ? BigInt(`0x${text}`) : undefined;
  };
  const intel = number("intel-iommu/cap");
  const amd = number("amd-iommu/features");
  let bits: number | undefined;
  if (intel !== undefined) {
    const guestWidth = Number((intel >> 16n) & 0x3fn) + 1;
    const levels = Number((intel >> 8n) & 0x1fn);
    const tableWidth = (levels & 0x8) !== 0 ? 57 : (levels & 0x4) !== 0 ? 48 : 39;
    bits = Math.min(guestWidth, tableWidth);
  } else if (amd !== undefined) bits = [48, 57, 64][Number((amd >> 10n) & 3n)];
  return bits === undefined ? undefined : { state: "good", found: `${bits} bits` };
}

function firmwareState({ group }: HostFunction, root: HostRoot): CheckOutcome | undefined {
  const ranges = firmwareRanges(group, root);
  if (ranges.length === 0) return undefined;
  return {
    state: "warning",
    code: "TSVMM_FIRMWARE_RANGES",
    found: `the firmware reserves ${ranges.join(", ")} for the group, for which many kernels refuse it`,
    remedy: FIRMWARE_ADVICE,
  };
}
