import type { VirtioDevice } from "../../src/virtio/device.ts";
import { VirtioPciFunction } from "../../src/virtio/pci-transport.ts";
import { FakeDoorbells } from "./fake-doorbells.ts";
import { FakeLine } from "./fake-line.ts";
import { FakeGuestMemory } from "./fake-memory.ts";
import { FakeMsiRouter } from "./fake-msi-router.ts";
import { GuestDriver } from "./guest-driver.ts";

/** A virtio function with everything around it faked. */
export interface VirtioBench {
  readonly memory: FakeGuestMemory;
  readonly router: FakeMsiRouter;
  readonly doorbells: FakeDoorbells;
  readonly line: FakeLine;
  /** Texts that were reported. */
  readonly reports: readonly string[];
  /** Work that was put off to the device thread's next turn. */
  readonly deferred: (() => void)[];
  readonly pci: VirtioPciFunction;
  readonly driver: GuestDriver;
  /** The device thread's next turn: what was put off until now, and nothing that it puts off itself. */
  turn(): void;
}

/** Plugs a device into fakes: 16 MiB of RAM at 0, a doorbell for each queue, a driver that has not said a word yet. */
export function plugVirtio(
  makeDevice: (memory: FakeGuestMemory) => VirtioDevice,
  memory: FakeGuestMemory = new FakeGuestMemory([{ gpa: 0, sizeBytes: 16 << 20 }]),
): VirtioBench {
  const router = new FakeMsiRouter();
  const doorbells = new FakeDoorbells();
  const line = new FakeLine();
  const reports: string[] = [];
  const deferred: (() => void)[] = [];
  const pci = new VirtioPciFunction({
    name: "virtio0",
    device: makeDevice(memory),
    memory,
    router,
    doorbells,
    line,
    report: (_level, text) => reports.push(text),
    defer: (work) => deferred.push(work),
  });
  const driver = new GuestDriver(pci, { memory, router, doorbells });
  const turn = (): void => {
    for (const work of deferred.splice(0)) work();
  };
  return { memory, router, doorbells, line, reports, deferred, pci, driver, turn };
}
