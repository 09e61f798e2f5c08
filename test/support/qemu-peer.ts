import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Test } from "tap";
import { HostError } from "../../src/base/errors.ts";
import { debianProgram, type UnpackedProgram } from "../../tools/debian-suite.ts";
import { runProgram } from "../../tools/program.ts";
import { socketPath } from "./socket-pair.ts";

/** Guest RAM as QEMU shares it with a server. */
export const QEMU_MEMORY = {
  "a sealed memfd": "memory-backend-memfd,share=on",
  "a memfd without seals": "memory-backend-memfd,share=on,seal=off",
  "nothing, which is asked for by messages": "memory-backend-ram",
} as const;

const PROGRAM = "usr/bin/qemu-system-x86_64";
/** Where the device under test is. */
const SLOT = 4;
const MEBIBYTES = 64;

/** QEMU, or why there is none to be had. */
export type FoundQemu = { readonly qemu: UnpackedProgram } | { readonly missing: string };

/**
 * QEMU from Debian's stable release, brought into the cache; `missing` where it cannot be had or has no vfio-user
 * client (before 10.1).
 */
export async function findQemu(t: Test): Promise<FoundQemu> {
  let qemu: UnpackedProgram;
  try {
    qemu = await debianProgram("qemu-system-x86", (text) => t.comment(text));
  } catch (error) {
    if (error instanceof HostError) return { missing: error.message };
    throw error;
  }
  const [loader = "", ...rest] = qemu.command(PROGRAM);
  // The list of all devices would load all modules, also those of a QEMU that is installed.
  const said = await runProgram(loader, [...rest, "-device", "vfio-user-pci,help"], { env: environment(qemu) });
  return said.includes("socket=") ? { qemu } : { missing: "Debian's QEMU has no vfio-user-pci" };
}

/** QEMU looks for its modules where it was to be installed, where another one's may be. */
const environment = ({ directory }: UnpackedProgram): Readonly<Record<string, string>> => ({
  QEMU_MODULE_DIR: join(directory, "usr/lib/x86_64-linux-gnu/qemu"),
});

/**
 * A machine of QEMU with stopped processors and a vfio-user server's device in slot 4. A test accesses its ports and
 * memory by the qtest protocol, as a guest would.
 */
export class QemuPeer {
  readonly #child: ChildProcess;
  readonly #socket: Socket;
  readonly #answers: AsyncIterator<string>;
  #said = "";

  private constructor(child: ChildProcess, socket: Socket) {
    this.#child = child;
    this.#socket = socket;
    this.#answers = createInterface({ input: socket })[Symbol.asyncIterator]();
    child.stderr?.on("data", (chunk) => {
      this.#said += String(chunk);
    });
  }

  static async start(t: Test, qemu: UnpackedProgram, server: string, memory: string): Promise<QemuPeer> {
    const path = socketPath(t);
    const listener = createServer().listen(path);
    await once(listener, "listening");
    const [loader = "", ...rest] = qemu.command(PROGRAM);
    const device = { driver: "vfio-user-pci", socket: { type: "unix", path: server }, addr: `0${SLOT}.0` };
    const child = spawn(
      loader,
      [
        ...rest,
        ...["usr/share/qemu", "usr/share/seabios"].flatMap((folder) => ["-L", join(qemu.directory, folder)]),
        ...["-machine", "pc,memory-backend=ram", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"],
        ...["-m", `${MEBIBYTES}`, "-object", `${memory},id=ram,size=${MEBIBYTES}M`],
        ...["-device", JSON.stringify(device), "-qtest", `unix:${path}`, "-qtest-log", "/dev/null"],
      ],
      { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, ...environment(qemu) } },
    );
    t.teardown(() => child.kill("SIGKILL"));
    const ended = once(child, "exit").then(() => "ended" as const);
    const connected = once(listener, "connection").then(([socket]) => socket as Socket); // cast: what that event brings
    const first = await Promise.race([connected, ended]);
    listener.close();
    if (first === "ended") throw new Error(`QEMU has ended: ${String(child.stderr?.read() ?? "")}`);
    return new QemuPeer(child, first);
  }

  /** What it has written to its standard error. */
  get said(): string {
    return this.#said;
  }

  /** Carries a command of the qtest protocol out. @returns What follows OK. */
  async ask(command: string): Promise<string> {
    this.#socket.write(`${command}\n`);
    const { value, done } = await this.#answers.next();
    if (done === true) throw new Error(`QEMU has ended: ${this.#said}`);
    if (!value.startsWith("OK")) throw new Error(`QEMU answers ${value} to ${command}: ${this.#said}`);
    return value.slice(3);
  }

  async read32(address: number): Promise<number> {
    return Number(await this.ask(`readl ${address}`));
  }

  async write32(address: number, value: number): Promise<void> {
    await this.ask(`writel ${address} ${value}`);
  }

  async writePort(port: number, value: number): Promise<void> {
    await this.ask(`outb ${port} ${value}`);
  }

  async readPort(port: number): Promise<number> {
    return Number(await this.ask(`inb ${port}`));
  }

  /** A dword of a function's configuration space; the device's when no other slot is given. */
  async readConfig(offset: number, slot: number = SLOT): Promise<number> {
    await this.#choose(offset, slot);
    return Number(await this.ask("inl 0xcfc"));
  }

  async writeConfig(offset: number, value: number, slot: number = SLOT): Promise<void> {
    await this.#choose(offset, slot);
    await this.ask(`outl 0xcfc ${value}`);
  }

  /** Where a capability of the device is. */
  async capability(id: number): Promise<number> {
    for (let at = (await this.readConfig(0x34)) & 0xff; at !== 0; ) {
      const header = await this.readConfig(at);
      if ((header & 0xff) === id) return at;
      at = (header >>> 8) & 0xff;
    }
    throw new Error(`The device has no capability ${id}`);
  }

  /** Waits for what happens on QEMU's own threads. */
  async until(what: string, isThere: () => Promise<boolean>): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!(await isThere())) if (performance.now() > deadline) throw new Error(`It never happened: ${what}`);
  }

  /** Ends it; resolves when it is gone. */
  async end(): Promise<void> {
    this.#child.kill("SIGTERM");
    if (this.#child.exitCode === null) await once(this.#child, "exit");
  }

  async #choose(offset: number, slot: number): Promise<void> {
    await this.ask(`outl 0xcf8 ${(0x8000_0000 + (slot << 11) + (offset & ~3)) >>> 0}`);
  }
}
