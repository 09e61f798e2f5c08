import { execFileSync } from "node:child_process";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { exitGuest } from "../../guests/halt.ts";
import { findProgram } from "../../tools/program.ts";
import { hasQemu, missingKvm, qemu, tsvmm, type Vmm } from "../measure/contenders.ts";
import { compare, interleave, type Measure, ratioTo, withAim } from "../measure/interleave.ts";
import { type Run, run } from "../measure/process.ts";
import type { Context, Row } from "../measure/row.ts";

type What = "first" | "whole" | "stop";

/** When the guest's first byte was there, when the process was gone, and how long it went on after that byte. */
function times(done: Run): Record<What, number> {
  const first = done.lines.find(({ text }) => text === "!")?.at;
  if (first === undefined) throw new Error(`The guest did not start\n${done.errors}`);
  return { first: first - done.started, whole: done.ended - done.started, stop: done.ended - first };
}

function guestImage(context: Context): string {
  const image = join(context.folder, "exit.elf");
  writeFileSync(image, exitGuest());
  return image;
}

const NODE_ALONE = "node -e 0";
const NODE_WORKERS = "node, 2 empty workers";

/** Node with a script; `first` is when it says so, or its end. */
const nodeOf =
  (script: string): Measure<What> =>
  async () => {
    const done = await run([process.execPath, "-e", script]);
    const whole = done.ended - done.started;
    const first = done.lines[0]?.at;
    return first === undefined
      ? { first: whole, whole, stop: 0 }
      : { first: first - done.started, whole, stop: done.ended - first };
  };

/**
 * A program with the threads that the first byte waits for, the device thread's and the boot processor's, and nothing
 * else to do.
 */
const TWO_WORKERS = `
  const { Worker, SHARE_ENV } = require("node:worker_threads");
  let left = 2;
  for (let i = 0; i < 2; i++)
    new Worker("require('node:worker_threads').parentPort.postMessage(0)", { eval: true, env: SHARE_ENV }).on(
      "message",
      () => --left === 0 && require("node:fs").writeSync(1, "!\\n"),
    );
`;

const guestOf =
  (vmm: Vmm, image: string, cpus: number): Measure<What> =>
  async () =>
    times(await run(vmm({ image, cpus })));

const countOf = (cpus: number): string => (cpus === 1 ? "1 vCPU" : `${cpus} vCPUs`);

export const start: Row = {
  name: "start",
  meaning:
    "From exec to the guest's first byte on the serial port (a few tens of microseconds after the first KVM_RUN), " +
    "and to the end of the " +
    "process, of a guest that ends the machine at once. `node -e 0` is Node's own start and end; with two workers " +
    "that do nothing it is " +
    "the least that a program of three threads can take. Stop is from the first byte, after which the guest " +
    "powers off, to the process " +
    "being gone.",
  missing: missingKvm,
  async run(context) {
    const image = guestImage(context);
    for (const cpus of [1, 4]) {
      const samples = await interleave(context, {
        tsvmm: guestOf(tsvmm(context.entry), image, cpus),
        [NODE_ALONE]: nodeOf("0"),
        [NODE_WORKERS]: nodeOf(TWO_WORKERS),
        ...(hasQemu() ? { "QEMU microvm": guestOf(qemu("microvm"), image, cpus) } : {}),
        // Its firmware takes seconds.
        ...(hasQemu() && context.isLong ? { "QEMU q35": guestOf(qemu("q35"), image, cpus) } : {}),
      });
      const first = compare(samples, "tsvmm", "first", { what: `start to first byte, ${countOf(cpus)}`, unit: "ms" });
      const node = ratioTo(first, NODE_ALONE);
      context.add(withAim(first, "≤ 2 of node -e 0", node === undefined ? undefined : node <= 2));
      const whole = compare(samples, "tsvmm", "whole", { what: `whole run, ${countOf(cpus)}`, unit: "ms" });
      const peer = ratioTo(whole, "QEMU microvm");
      context.add(withAim(whole, "at par with QEMU microvm", peer === undefined ? undefined : peer <= 1));
      const stop = compare(samples, "tsvmm", "stop", { what: `stop, ${countOf(cpus)}`, unit: "ms" });
      const beside = stop.beside.filter(({ name }) => name !== NODE_ALONE);
      context.add(withAim({ ...stop, beside }, "≤ 50 ms", stop.value.median <= 50));
    }
  },
};

/** Every file below a folder. */
const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());

/** Drops files from the page cache, unless a process has them mapped. */
function evict(files: readonly string[]): void {
  for (const file of files) execFileSync("dd", [`if=${file}`, "iflag=nocache", "count=0", "status=none"]);
}

export const startCold: Row = {
  name: "start-cold",
  meaning:
    "The whole run again when the program's own files are not in the page cache: tsvmm's code, koffi and the " +
    "image; QEMU's binary, firmware " +
    "and the image. What other processes have mapped (Node itself, the C library) stays in memory.",
  missing: () =>
    missingKvm() ?? (findProgram("dd") === undefined ? "there is no dd: apt-get install coreutils" : undefined),
  async run(context) {
    const image = guestImage(context);
    const resolved = createRequire(import.meta.url).resolve("koffi");
    const koffi = join(resolved.slice(0, resolved.lastIndexOf("node_modules")), "node_modules", "koffi");
    const ours = [...filesBelow(dirname(context.entry)), ...filesBelow(koffi), image].filter(
      (name) => !name.endsWith(".map"),
    );
    const binary = findProgram("qemu-system-x86_64");
    const theirs = [...(binary === undefined ? [] : [binary, ...filesBelow("/usr/share/seabios")]), image];
    const cold = (files: readonly string[], vmm: Vmm): Measure<What> => {
      const measure = guestOf(vmm, image, 1);
      return async () => {
        evict(files);
        return await measure();
      };
    };
    const samples = await interleave(context, {
      tsvmm: cold(ours, tsvmm(context.entry)),
      ...(binary === undefined ? {} : { "QEMU microvm": cold(theirs, qemu("microvm")) }),
    });
    context.add(compare(samples, "tsvmm", "whole", { what: "whole run, cold files", unit: "ms" }));
  },
};
