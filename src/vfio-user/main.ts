#!/usr/bin/env node
import { basename } from "node:path";
import { parseArgs } from "node:util";
import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { EduDevice } from "./devices/edu.ts";
import { NvmeDevice } from "./devices/nvme.ts";
import { NvmeStore } from "./devices/nvme-store.ts";
import { DeviceServer } from "./server/server.ts";

/*
 * Entry file of the device processes, `tsvmm-device`. It prints "listening at PATH" when machines can connect, and ends
 * in order at SIGINT and SIGTERM. Status 2 for arguments, 1 for the host.
 */

const USAGE =
  "usage: tsvmm-device edu --socket PATH | tsvmm-device nvme --socket PATH --image FILE [--read-only] [--serial TEXT]";

const HELP = `tsvmm-device runs a PCI device as a process of its own, for tsvmm --user-device socket=PATH
or any other vfio-user 0.1 client.

  tsvmm-device edu --socket /tmp/edu.sock
      QEMU's educational device (1234:11e8): identity, liveness, factorial, DMA, an interrupt
  tsvmm-device nvme --socket /tmp/nvme.sock --image disk.raw
      an NVMe disk with one namespace on a file: --read-only, --serial TEXT

It prints "listening at PATH" when machines can connect, serves one after another, and ends with SIGINT or SIGTERM.
`;

class UsageError extends Error {}

const report: Report = (level, text) => {
  if (level !== "debug") process.stderr.write(`${level}: ${printable(text)}\n`);
};

// A line that cannot be written, since its reader has gone or a disk is full, is lost; the device goes on.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

function serve(): DeviceServer | undefined {
  const { values, positionals } = readArguments();
  if (values.help) {
    process.stdout.write(HELP);
    return undefined;
  }
  const { socket, image } = values;
  const [kind, ...others] = positionals;
  if (socket === undefined || socket === "" || others.length > 0) throw new UsageError(USAGE);
  if (kind === "edu") {
    if (image !== undefined) throw new UsageError(`edu has no image\n${USAGE}`);
    return DeviceServer.listen({ socket, report, device: (host) => new EduDevice(host) });
  }
  if (kind !== "nvme" || image === undefined || image === "") throw new UsageError(USAGE);
  const serial = values.serial ?? basename(image);
  if (!/^[\x20-\x7e]+$/.test(serial)) throw new UsageError(`--serial: '${serial}' is not made of printable ASCII`);
  const store = new NvmeStore(image, values["read-only"], report);
  return DeviceServer.listen({ socket, report, device: (host) => new NvmeDevice(host, store, serial.slice(0, 20)) });
}

function readArguments(): {
  readonly values: { socket?: string; image?: string; serial?: string; "read-only": boolean; help: boolean };
  readonly positionals: readonly string[];
} {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        socket: { type: "string" },
        image: { type: "string" },
        serial: { type: "string" },
        "read-only": { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
  }
}

try {
  const server = serve();
  if (server !== undefined) {
    const end = (): void => {
      server.close().catch((error: unknown) => report("error", String(error)));
    };
    process.once("SIGINT", end).once("SIGTERM", end);
    process.stdout.write(`listening at ${printable(server.path)}\n`);
  }
} catch (error) {
  if (!(error instanceof UsageError || error instanceof HostError)) throw error;
  const lines = error instanceof UsageError ? error.message.split("\n") : [error.message];
  process.stderr.write(`tsvmm-device: ${lines.map(printable).join("\n")}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
