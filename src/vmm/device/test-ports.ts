import type { Report } from "../../base/backends.ts";
import type { Bus } from "../../base/bus.ts";
import { SpecError } from "../../base/errors.ts";
import type { GuestMemory } from "../../base/guest-memory.ts";
import type { InterruptLine } from "../../base/signals.ts";
import { type Gsi, gpa, gsi, hex, PAGE_SIZE } from "../../base/units.ts";
import { MMAN } from "../../host/constants.ts";
import { errnoName } from "../../host/errors.ts";
import { libc } from "../../host/libc.ts";
import { DEBUG_EXIT_SIZE, DebugExitPort } from "../../platform/debug-port.ts";
import {
  TESTDEV_FLUSH_SIZE,
  TESTDEV_LINES,
  TESTDEV_MEMORY_SIZE,
  TESTDEV_SCRATCH_SIZE,
  TestdevFlush,
  TestdevLines,
  TestdevMemory,
  TestdevOutput,
} from "../../platform/pc-testdev.ts";
import { TEST_DEVICE } from "../shared/memory-map.ts";

/** What {@link attachTestDevice} wires the device to. */
export interface TestDeviceParts {
  readonly ports: Bus;
  readonly mmio: Bus;
  readonly memory: Pick<GuestMemory, "hostAddress">;
  readonly line: (gsi: Gsi, name: string) => InterruptLine;
  /** Takes what suites print at the output port. */
  readonly print: (byte: number) => void;
  readonly report: Report;
}

/** Puts the parts of QEMU's pc-testdev where test suites expect them. */
export function attachTestDevice(parts: TestDeviceParts): void {
  const { ports, mmio, memory, line, report } = parts;
  const scratch = new Uint8Array(TESTDEV_SCRATCH_SIZE);
  const lines = Array.from({ length: TESTDEV_LINES }, (_, pin) => line(gsi(pin), `testdev line ${pin}`));
  ports.attach(TEST_DEVICE.scratch, scratch.length, new TestdevMemory("testdev scratch", scratch));
  const flush = (page: number): void => forgetPage(memory, page, report);
  ports.attach(TEST_DEVICE.flush, TESTDEV_FLUSH_SIZE, new TestdevFlush(flush));
  ports.attach(TEST_DEVICE.scratchBytes, scratch.length, new TestdevMemory("testdev scratch bytes", scratch));
  ports.attach(TEST_DEVICE.output, 1, new TestdevOutput(parts.print));
  ports.attach(TEST_DEVICE.lines, TESTDEV_LINES, new TestdevLines(lines));
  const buffer = new TestdevMemory("testdev memory", new Uint8Array(TESTDEV_MEMORY_SIZE));
  mmio.attach(TEST_DEVICE.memory, TESTDEV_MEMORY_SIZE, buffer);
}

/**
 * Takes a page of guest RAM out of this process's page table, and so out of KVM's. The next access brings it back with
 * its content, which the RAM file keeps. QEMU takes the page's protection away and gives it back; another vCPU's access
 * in between would fail.
 */
function forgetPage(memory: Pick<GuestMemory, "hostAddress">, page: number, report: Report): void {
  const host = memory.hostAddress(gpa(page), PAGE_SIZE);
  if (host === undefined || libc.madvise(host, PAGE_SIZE, MMAN.MADV_DONTNEED) === 0) return;
  // Huge pages of the host's reserve are not split, here as in QEMU.
  report("debug", "a page stays mapped that the guest wants flushed", {
    page: hex(page),
    errno: errnoName(libc.errno()),
  });
}

/** Puts the debug exit port where the spec wants it. @throws SpecError when something is there */
export function attachDebugExit(ports: Bus, port: number, onExit: (value: number) => void): void {
  const holder = ports.holder(port, DEBUG_EXIT_SIZE);
  if (holder !== undefined)
    throw new SpecError("TSVMM_PORT_TAKEN", "debugExitPort", `${hex(port)} is taken: ${holder.device.name} is there`);
  ports.attach(port, DEBUG_EXIT_SIZE, new DebugExitPort(onExit));
}
