import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Test } from "tap";
import type { Report } from "../../src/base/backends.ts";
import { gpa } from "../../src/base/units.ts";
import { EpollLoop } from "../../src/host/epoll.ts";
import { GuestRam } from "../../src/host/memory/guest-ram.ts";
import { UserDevice, type UserDeviceOptions } from "../../src/vfio-user/client/device.ts";
import { socketPath } from "./socket-pair.ts";

const MAIN = fileURLToPath(new URL("../../src/vfio-user/main.js", import.meta.url));
const ODD = fileURLToPath(new URL("odd-server.js", import.meta.url));
const SCRATCH = fileURLToPath(new URL("scratch-device.js", import.meta.url));

/** A device's process, running until the test ends. */
export interface ServerProcess {
  readonly socket: string;
  readonly process: ChildProcess;
  /** Resolves when it has written such a line to its standard error. */
  readonly reported: (line: RegExp) => Promise<void>;
  /** Ends it at once, as a crash does; resolves when it is gone. */
  readonly kill: () => Promise<void>;
}

/** Starts `main.js edu|nvme …` at a socket of its own; resolves when machines can connect. */
export function startServer(t: Test, kind: "edu" | "nvme", ...rest: readonly string[]): Promise<ServerProcess> {
  const socket = socketPath(t);
  return start(t, socket, [MAIN, kind, "--socket", socket, ...rest]);
}

/** Starts edu again where a server that has ended was. */
export function startServerAt(t: Test, socket: string): Promise<ServerProcess> {
  return start(t, socket, [MAIN, "edu", "--socket", socket]);
}

/** Starts the device of `scratch-device.ts`. */
export function startScratchServer(t: Test): Promise<ServerProcess> {
  const socket = socketPath(t);
  return start(t, socket, [SCRATCH, socket]);
}

/** Starts a server of `odd-server.ts`. */
export function startOddServer(t: Test, oddity: string): Promise<ServerProcess> {
  const socket = socketPath(t);
  return start(t, socket, [ODD, socket, oddity]);
}

async function start(t: Test, socket: string, argv: readonly string[]): Promise<ServerProcess> {
  const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "pipe"] });
  let reports = "";
  child.stderr.on("data", (chunk) => {
    reports += String(chunk);
  });
  const reported = async (line: RegExp): Promise<void> => {
    while (!line.test(reports)) await once(child.stderr, "data");
  };
  const ended = once(child, "exit");
  const kill = async (): Promise<void> => {
    child.kill("SIGKILL");
    await ended;
  };
  t.teardown(kill);
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === `listening at ${socket}`) return { socket, process: child, reported, kill };
  }
  throw new Error(`The server has ended: ${reports}`);
}

/** What a device is connected to in a test: 2 MiB of guest RAM in two regions, and a loop to watch its socket. */
export class UserBench {
  readonly memory: GuestRam = GuestRam.create({
    regions: [
      { gpa: gpa(0), sizeBytes: 1 << 20, fileOffset: 0 },
      { gpa: gpa(0x1000_0000), sizeBytes: 1 << 20, fileOffset: 1 << 20 },
    ],
  });
  readonly loop: EpollLoop = new EpollLoop();
  readonly reports: string[] = [];
  readonly lost: string[] = [];
  readonly report: Report = (level, text) => void this.reports.push(`${level}: ${text}`);
  readonly #devices: UserDevice[] = [];

  constructor(t: Test) {
    t.teardown(() => {
      for (const device of this.#devices) device.close();
      this.loop.close();
      this.memory.close();
    });
  }

  connect(socket: string, rest: Partial<UserDeviceOptions> = {}): UserDevice {
    const device = new UserDevice({
      name: "thing",
      socket,
      memory: this.memory,
      watcher: this.loop,
      report: this.report,
      onLost: (reason) => this.lost.push(reason),
      ...rest,
    });
    this.#devices.push(device);
    return device;
  }
}

/** Asks again and again until the answer is the one that is waited for; a device at work needs a moment. */
export function until(what: string, isThere: () => boolean): void {
  const deadline = performance.now() + 10_000;
  while (!isThere()) if (performance.now() > deadline) throw new Error(`It never happened: ${what}`);
}
