import type { ObjectKind } from "./kind.ts";

const FIELDS = {
  source: {
    type: "path",
    leadsTo: "source",
    default: "/dev/urandom",
    key: "src",
    value: "PATH",
    help: "where random bytes come from",
  },
} as const;

export const RNG: ObjectKind<"rng", typeof FIELDS> = {
  kind: "rng",
  about: "A virtio entropy device; every machine has one.",
  part: "rng",
  shape: "object",
  option: "--rng",
  group: "Devices",
  help: "source of the guest's random numbers; default: /dev/urandom",
  cloudHypervisor: "rng",
  isPassedThrough: false,
  fields: FIELDS,
};
