import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { exitGuest } from "../../guests/halt.ts";
import { type GuestOptions, missingKvm, tsvmm } from "../measure/contenders.ts";
import { compare, interleave, type Measure, withAim } from "../measure/interleave.ts";
import { run } from "../measure/process.ts";
import type { Context, Row } from "../measure/row.ts";

/** How far each dimension goes, from the value the others are laid beside. */
const RAM_MIB = [512, 4096, 16_384];
const CPUS = [1, 2, 4, 8, 16];
const DISKS = [1, 5, 10, 20];

async function sweep(
  context: Context,
  options: readonly { readonly name: string; readonly guest: GuestOptions }[],
): Promise<void> {
  const [base] = options;
  if (base === undefined) return;
  const vmm = tsvmm(context.entry);
  const contenders: Record<string, Measure<"whole">> = Object.fromEntries(
    options.map(({ name, guest }) => [
      name,
      async () => {
        const done = await run(vmm(guest));
        return { whole: done.ended - done.started };
      },
    ]),
  );
  const samples = await interleave(context, contenders);
  for (const { name } of options) {
    const line = compare(samples, name, "whole", { what: `whole run, ${name}`, unit: "ms" });
    const beside = line.beside.filter((peer) => peer.name === base.name);
    const isRam = base.guest.memoryMib !== undefined;
    if (isRam && name !== base.name) {
      const ratio = beside[0]?.ratio.median ?? Number.NaN;
      context.add(withAim({ ...line, beside }, "flat: ≤ 1.1", ratio <= 1.1));
    } else context.add({ ...line, beside });
  }
}

export const growth: Row = {
  name: "growth",
  meaning:
    "The whole run of a guest that ends at once, against guest RAM, vCPUs and virtio disks; laid beside the " +
    "smallest of each.",
  missing: missingKvm,
  async run(context) {
    const image = join(context.folder, "exit.elf");
    writeFileSync(image, exitGuest());
    const disks = Array.from({ length: Math.max(...DISKS) }, (_, index) => {
      const path = join(context.folder, `small${index}.raw`);
      writeFileSync(path, Buffer.alloc(1 << 20));
      return path;
    });
    await sweep(
      context,
      RAM_MIB.map((memoryMib) => ({ name: `${memoryMib} MiB of RAM`, guest: { image, memoryMib } })),
    );
    await sweep(
      context,
      CPUS.map((cpus) => ({ name: cpus === 1 ? "1 vCPU" : `${cpus} vCPUs`, guest: { image, cpus } })),
    );
    await sweep(
      context,
      DISKS.map((count) => ({
        name: count === 1 ? "1 disk" : `${count} disks`,
        guest: { image, disks: disks.slice(0, count) },
      })),
    );
  },
};
