import type { Test } from "tap";
import type { Width } from "../../src/base/units.ts";
import { NvmeDevice } from "../../src/vfio-user/devices/nvme.ts";
import { NvmeStore } from "../../src/vfio-user/devices/nvme-store.ts";
import type { DeviceHost } from "../../src/vfio-user/server/device.ts";
import { FakeGuestMemory } from "./fake-memory.ts";
import { NvmeDriver } from "./nvme-driver.ts";

/**
 * An NVMe controller in the test's own process, without server and socket: its system calls can be recorded. Its clock
 * stands still: the driver waits without letting the event loop turn, so no command may be put off to the next turn.
 */
export class LocalNvme {
  readonly memory: FakeGuestMemory = new FakeGuestMemory();
  readonly reports: string[] = [];
  readonly driver: NvmeDriver;

  constructor(t: Test, image: string) {
    const host: DeviceHost = {
      memory: this.memory,
      report: (level, text) => void this.reports.push(`${level}: ${text}`),
      usesMessages: true,
      signal: () => undefined,
      setIntx: () => undefined,
    };
    const store = new NvmeStore(image, false, host.report);
    t.teardown(() => store.close());
    const device = new NvmeDevice(host, store, "TS1", () => 0);
    this.driver = new NvmeDriver(
      {
        readRegion: (region: number, offset: number, width: Width) => (region === 0 ? device.read(offset, width) : 0),
        writeRegion: (region: number, offset: number, width: Width, value: number) => {
          if (region === 0) device.write(offset, width, value);
          return true;
        },
      },
      this.memory,
    );
    this.driver.start();
    this.driver.createQueues();
  }
}
