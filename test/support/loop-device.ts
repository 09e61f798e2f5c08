import { execFileSync, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import type { Test } from "tap";
import type { HostBench } from "./host-bench.ts";

/** Why there are no loop devices here; false where there are. */
export function missingLoop(): string | false {
  const isPossible = spawnSync("losetup", ["--find"]).status === 0;
  return isPossible ? false : "no free loop device: run as root with losetup and /dev/loop*";
}

/** The path of a loop device over the bench's file `backing`, made of dots, until the end of the test. */
export function loopDevice(t: Test, bench: HostBench, sizeBytes: number, blockBytes = 512): string {
  writeFileSync(bench.path("backing"), Buffer.alloc(sizeBytes, 0x2e));
  const words = ["--find", "--show", "--sector-size", String(blockBytes), bench.path("backing")];
  const path = execFileSync("losetup", words, { encoding: "utf8" }).trim();
  t.teardown(() => void spawnSync("losetup", ["--detach", path]));
  return path;
}
