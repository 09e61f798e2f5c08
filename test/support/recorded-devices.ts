import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type DeviceRecording, parseRecording } from "../../src/passthrough/recording.ts";
import { projectRoot } from "../../tools/cache.ts";

const folder = join(projectRoot(), "test", "fixtures", "devices");

/** A recording of test/fixtures/devices by its file name without suffix: `kioxia-cd8p`. */
export function recordedDevice(name: string): DeviceRecording {
  return parseRecording(readFileSync(join(folder, `${name}.json`), "utf8"));
}

/** Names of all of them. */
export function recordedDeviceNames(): readonly string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .map((name) => name.slice(0, -".json".length))
    .sort();
}
