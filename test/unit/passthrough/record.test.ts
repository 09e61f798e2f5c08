import t from "tap";
import { recordBackend } from "../../../src/passthrough/record.ts";
import { formatRecording, parseRecording, recordedConfig } from "../../../src/passthrough/recording.ts";
import { FakeDeviceBackend } from "../../support/fake-device-backend.ts";
import { KIOXIA } from "../../support/fake-devices.ts";

t.test("recordBackend() records what a device shows, and the file's text reads back the same", async (t) => {
  const device = new FakeDeviceBackend(KIOXIA);
  const recording = recordBackend(device, ["flr", "bus"]);
  t.same(parseRecording(formatRecording(recording)), recording);
  t.equal(recording.name, KIOXIA.name);
  t.equal(recording.source, "vfio");
  t.same(recordedConfig(recording), new Uint8Array(device.config.buffer));
  const bar = device.region(0);
  t.match(recording.regions[0], { index: 0, size: bar?.sizeBytes, msixMappable: bar?.isMsixMappable });
  t.equal(recording.interrupts.find(({ kind }) => kind === "msix")?.count, device.interrupt("msix").count);
});
