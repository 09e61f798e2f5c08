import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Test } from "tap";
import type { Report } from "../../src/base/backends.ts";
import type { HostSegment } from "../../src/base/guest-memory.ts";
import { hva } from "../../src/base/units.ts";
import { EpollLoop } from "../../src/host/epoll.ts";
import { HostMapping } from "../../src/host/memory/mapping.ts";

/** What tests of the host folder need: a directory of their own, a real epoll loop, the lines that were reported. */
export class HostBench {
  readonly directory: string;
  readonly loop: EpollLoop = new EpollLoop();
  readonly reported: string[] = [];
  readonly report: Report = (level, text) => this.reported.push(`${level}: ${text}`);

  constructor(t: Test) {
    this.directory = mkdtempSync(join(tmpdir(), "tsvmm-host-"));
    t.teardown(() => {
      this.loop.close();
      rmSync(this.directory, { recursive: true, force: true });
    });
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Waits for events until `isDone`; gives up when nothing happens for ten seconds. */
  turnUntil(isDone: () => boolean): void {
    // A wait also ends without an event when a signal comes.
    let lastEvent = performance.now();
    while (!isDone()) {
      if (this.loop.wait(10_000) > 0) lastEvent = performance.now();
      else if (performance.now() - lastEvent >= 10_000) throw new Error("Nothing happens any more");
    }
  }

  /** Dispatches what is ready now, and what that makes ready; gives up after a thousand rounds. */
  turnWhileReady(): number {
    let count = 0;
    for (let round = 0; round < 1000; round++) {
      const dispatched = this.loop.wait(0);
      if (dispatched === 0) return count;
      count += dispatched;
    }
    throw new Error("A descriptor stays ready without end");
  }
}

/** Memory with an address, as disks are given it. */
export class HostBuffer {
  readonly bytes: Uint8Array;
  readonly #mapping: HostMapping;

  constructor(t: Test, sizeBytes: number) {
    this.#mapping = HostMapping.anonymous("test buffer", Math.ceil(sizeBytes / 4096) * 4096);
    this.bytes = new Uint8Array(this.#mapping.view(0, sizeBytes));
    t.teardown(() => this.#mapping.unmap());
  }

  segment(offset: number, sizeBytes: number): HostSegment {
    return { address: hva(this.#mapping.address + offset), sizeBytes };
  }
}

export const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
export const bytes = (value: string): Uint8Array => new Uint8Array(Buffer.from(value, "latin1"));
