import { setImmediate } from "node:timers/promises";
import type { Test } from "tap";
import { gpa, type Width } from "../../src/base/units.ts";
import { NvmeDevice } from "../../src/vfio-user/devices/nvme.ts";
import { NvmeStore } from "../../src/vfio-user/devices/nvme-store.ts";
import type { DeviceHost } from "../../src/vfio-user/server/device.ts";
import { FakeGuestMemory } from "./fake-memory.ts";
import { CREATE_QUEUES, type NvmeCommand, NvmeDriver, type NvmeResult, type QueuePair } from "./nvme-driver.ts";

/**
 * An NVMe controller in the test's own process, without server and socket: its system calls can be recorded. Its clock
 * stands still, so no command is put off to the next turn of the event loop; commands are awaited all the same.
 */
export class LocalNvme {
  readonly memory: FakeGuestMemory = new FakeGuestMemory();
  readonly reports: string[] = [];
  readonly #device: NvmeDevice;
  #driver: NvmeDriver;

  private constructor(t: Test, image: string) {
    const host: DeviceHost = {
      memory: this.memory,
      report: (level, text) => void this.reports.push(`${level}: ${text}`),
      usesMessages: true,
      signal: () => undefined,
      setIntx: () => undefined,
    };
    const store = new NvmeStore(image, false, host.report);
    t.teardown(() => store.close());
    this.#device = new NvmeDevice(host, store, "TS1", () => 0);
    this.#driver = this.#makeDriver();
  }

  /** A controller that is ready, with a pair of queues. */
  static async start(t: Test, image: string): Promise<LocalNvme> {
    const nvme = new LocalNvme(t, image);
    await nvme.#start();
    return nvme;
  }

  /** Carries a command of the admin queue out. */
  run(command: NvmeCommand): Promise<NvmeResult> {
    return this.#carryOut(this.#driver.admin, command);
  }

  /** Carries a command of queue 1 out. */
  runIo(command: NvmeCommand): Promise<NvmeResult> {
    return this.#carryOut(this.#driver.io, command);
  }

  /** A controller reset: CC.EN off and on again, with queues that are made anew. NVMe 1.4 §7.3.2 */
  async restart(): Promise<void> {
    this.#driver.write(0x14, 0x0046_0000);
    this.memory.fill(gpa(0x1_0000), 0x4000);
    this.#driver = this.#makeDriver();
    await this.#start();
  }

  async #start(): Promise<void> {
    this.#driver.start();
    for (const command of CREATE_QUEUES) await this.run(command);
  }

  async #carryOut(queue: QueuePair, command: NvmeCommand): Promise<NvmeResult> {
    this.#driver.submit(queue, command);
    while (!this.#driver.hasCompletion(queue)) await setImmediate();
    return this.#driver.take(queue);
  }

  #makeDriver(): NvmeDriver {
    const device = this.#device;
    return new NvmeDriver(
      {
        readRegion: (region: number, offset: number, width: Width) => (region === 0 ? device.read(offset, width) : 0),
        writeRegion: (region: number, offset: number, width: Width, value: number) => {
          if (region === 0) device.write(offset, width, value);
          return true;
        },
      },
      this.memory,
    );
  }
}
