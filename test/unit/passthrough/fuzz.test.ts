import t from "tap";
import type { Width } from "../../../src/base/units.ts";
import { E1000E, EDU, KIOXIA, NVME, SAMSUNG, SD_HOST } from "../../support/fake-devices.ts";
import { PassthroughBench } from "../../support/fake-passthrough-host.ts";

const WIDTHS: readonly Width[] = [1, 2, 4];
const ROUNDS = 3000;

/** Numbers that repeat from run to run: a failure can be found again. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A guest that writes at random soon has nothing decoded: awake, BAR 0 in the window, decode and DMA on. */
function comeToSenses(bench: PassthroughBench): void {
  const power = bench.capability(0x01);
  if (power !== undefined) bench.write(power + 4, 2, 0);
  bench.write(0x10, 4, 0xc800_0000);
  if (bench.function.barRequests[0]?.kind === "mem64") bench.write(0x14, 4, 0);
  bench.write(0x04, 2, 0x6);
}

for (const [seed, device] of [NVME, KIOXIA, SAMSUNG, SD_HOST, EDU, E1000E].entries()) {
  // The fake device throws where vfio-pci would refuse; a guest must not be able to bring that about.
  t.test(`PassthroughFunction of ${device.name} stands whatever a guest writes`, async (t) => {
    const random = randomNumbers(seed + 1);
    const bench = new PassthroughBench(device);
    const interesting = [0x04, 0x05, 0x06, 0x10, 0x14, 0x1c, 0x30, 0x42, 0x43, 0x64, 0xa2, 0xa3, 0xcc];
    const values = [0, 1, 2, 3, 6, 7, 0x400, 0x8000, 0xc000, 0x80, 0xc0, 0xff, 0xffff_ffff, 0xc800_0000, 0xc800_0100];
    const pick = <Value>(list: readonly Value[], otherwise: Value): Value => list[random(list.length)] ?? otherwise;
    let isEverDecoding = false;
    for (let round = 0; round < ROUNDS; round++) {
      if (round % 40 === 0) comeToSenses(bench);
      const width = pick(WIDTHS, 4);
      const value = random(2) === 0 ? pick(values, 0) : random(2 ** 32);
      switch (random(4)) {
        case 0:
          bench.write(random(bench.function.config.sizeBytes + 8), width, value);
          break;
        case 1:
          bench.read(random(bench.function.config.sizeBytes + 8), width);
          break;
        case 2:
          bench.write(pick(interesting, 0), width, value);
          break;
        default: {
          const placed = bench.host.mmio.ranges[random(bench.host.mmio.ranges.length)];
          if (placed === undefined) break;
          const at = placed.base + random(placed.sizeBytes);
          if (random(2) === 0) bench.host.mmio.write(at, width, value);
          else bench.host.mmio.read(at, width);
        }
      }
      const { bars } = bench.function.summary();
      const isMapped = bars.some((bar) => bar.slotBytes > 0);
      if (isMapped && !bench.backend.isDecodingMemory)
        t.fail(`round ${round}: a slot is over memory that does not answer`);
      isEverDecoding ||= isMapped;
      bench.host.log.length = 0;
    }
    t.ok(isEverDecoding, "slots came and went");
    bench.root.reset();
    bench.root.close();
    t.ok(bench.backend.isClosed);
    t.same(bench.backend.mappedAreas, []);
    t.ok(bench.host.routes.every((route) => route.isReleased));
  });
}
