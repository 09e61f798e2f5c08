import { basename } from "node:path";
import { parseArgs } from "node:util";
import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import { EduDevice } from "./edu.ts";
import { NvmeDevice } from "./nvme.ts";
import { NvmeStore } from "./nvme-store.ts";
import { DeviceServer } from "./server.ts";

/*
 * Entry file of the device processes: `main.js edu|nvme --socket PATH [--image FILE] [--read-only] [--serial TEXT]`. It prints
 * "listening at PATH" when machines can connect, and ends in order at SIGINT and SIGTERM. Status 2 for arguments, 1 for the host.
 */

const USAGE =
  "usage: main.js edu --socket PATH | main.js nvme --socket PATH --image FILE [--read-only] [--serial TEXT]";

class UsageError extends Error {}

const report: Report = (level, text) => {
  if (level !== "debug") process.stderr.write(`${level}: ${text}\n`);
};

function serve(): DeviceServer {
  const { values, positionals } = readArguments();
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
  readonly values: { socket?: string; image?: string; serial?: string; "read-only": boolean };
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
      },
    });
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
  }
}

try {
  const server = serve();
  const end = (): void => {
    server.close().catch((error: unknown) => report("error", String(error)));
  };
  process.once("SIGINT", end).once("SIGTERM", end);
  process.stdout.write(`listening at ${server.path}\n`);
} catch (error) {
  if (!(error instanceof UsageError || error instanceof HostError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
