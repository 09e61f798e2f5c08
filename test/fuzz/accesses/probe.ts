import type { Width } from "../../../src/base/units.ts";
import { gpa } from "../../../src/base/units.ts";
import type { Modelled } from "./checks.ts";
import { driverBar, driverStart, queueLayout } from "./driver.ts";
import { RAM_BASE } from "./handed-memory.ts";
import type { Operation } from "./operations.ts";
import type { FuzzedWorld } from "./world.ts";

/**
 * Resets a virtio function as a new driver would and uses its first queue once, by the same operations as any guest.
 *
 * @param run Executes and judges an operation.
 * @returns What is wrong: also that the device does not answer.
 */
export function probe(
  world: FuzzedWorld,
  all: readonly Modelled[],
  fn: number,
  run: (operation: Operation) => string | undefined,
): string | undefined {
  const modelled = all[fn];
  if (modelled === undefined || modelled.real.backend !== undefined) return undefined;
  const others = all.map(
    (_, index): Operation => ({
      ...{ op: "config", fn: index, via: "ecam", offset: 4, width: 2 },
      value: 0,
    }),
  );
  const first = [...others, ...driverStart(fn)];
  world.quiesce();
  for (const operation of first) {
    const wrong = run(operation);
    if (wrong !== undefined) return wrong;
  }
  const { memory } = world;
  const { descriptors, available, used, buffers } = queueLayout(fn, 0);
  const status = world.mmio.read(driverBar(fn) + 0x14, 1);
  if (status !== 0x0f) return `${modelled.model.name} has status 0x${status.toString(16)} after a proper start`;
  memory.asGuest(() => {
    for (const [offset, width, value] of request(fn, buffers)) store(world, descriptors + offset, width, value);
    store(world, available + 4, 2, 0);
    store(world, available + 2, 2, 1);
  });
  const wrong = run({ op: "absolute", bus: "mmio", address: driverBar(fn) + 0x3000, width: 2, value: 0 });
  world.hostEvent("type");
  const index = memory.readU16(gpa(RAM_BASE + used + 2));
  return wrong ?? (index === 1 ? undefined : `${modelled.model.name} has not used a good driver's buffer: ${index}`);
}

/**
 * Descriptors of one request that each kind of device completes at once: a flush, a buffer for input, one for entropy.
 */
function request(fn: number, buffers: number): readonly (readonly [offset: number, width: Width, value: number])[] {
  const low = (RAM_BASE + buffers) % 2 ** 32;
  const high = Math.floor(RAM_BASE / 2 ** 32);
  const one = (
    at: number,
    address: number,
    sizeBytes: number,
    flags: number,
  ): readonly (readonly [number, Width, number])[] => [
    [at, 4, address],
    [at + 4, 4, high],
    [at + 8, 4, sizeBytes],
    [at + 12, 4, flags],
  ];
  if (fn !== 0) return one(0, low, 64, 2);
  const header: readonly (readonly [number, Width, number])[] = [[buffers - queueLayout(0, 0).descriptors, 4, 4]];
  return [...header, ...one(0, low, 16, 0x0001_0001), ...one(16, low + 0x100, 1, 2)];
}

function store({ memory }: FuzzedWorld, offset: number, width: Width, value: number): void {
  const address = gpa(RAM_BASE + offset);
  if (width === 4) memory.writeU32(address, value);
  else memory.writeU16(address, value);
}
