import { existsSync, mkdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { HostError } from "../../src/base/errors.ts";
import type { HostChanges } from "../../src/host-pci/binding.ts";

/** A driver of the pretended kernel and what it takes without being told. */
export interface FakeDriver {
  readonly name: string;
  readonly takes: readonly string[];
  /** Functions whose probe fails. */
  readonly fails?: readonly string[];
}

/**
 * The kernel's half of driver binding, on a tree that `fake-sysfs.ts` made. Writes to `driver_override`, `unbind`,
 * `bind` and `drivers_probe` move the `driver` links, as in drivers/base/bus.c. What was written is in `log`, one line
 * each.
 */
export class FakePciDrivers implements HostChanges {
  readonly log: string[] = [];
  /** Files that cannot be written: their names' ends, and the errno. */
  readonly refused: Map<string, string> = new Map();
  readonly #sys: string;
  readonly #drivers: readonly FakeDriver[];
  readonly #modules: readonly string[];

  /**
   * @param drivers All that exist; `vfio-pci` takes only what is overridden to it.
   * @param modules What modprobe finds: its drivers' directories are there only after it was loaded.
   */
  constructor(sys: string, drivers: readonly FakeDriver[], modules: readonly string[] = []) {
    this.#sys = sys;
    this.#drivers = drivers;
    this.#modules = modules;
    for (const { name } of drivers) if (!modules.includes(name)) this.#appear(name);
  }

  write(file: string, text: string): void {
    const path = file.replace(this.#sys, "/sys");
    this.log.push(`${text.trim()} > ${path}`);
    for (const [end, errno] of this.refused) if (path.endsWith(end)) throw failure(errno);
    const bdf = text.trim();
    switch (basename(file)) {
      case "driver_override":
        return writeFileSync(file, text.trim() === "" ? "(null)\n" : text);
      case "unbind":
        rmSync(join(this.#sys, "bus/pci/devices", bdf, "vfio-dev"), { recursive: true, force: true });
        return rmSync(this.#link(bdf));
      case "bind":
        if (!existsSync(join(file, ".."))) throw failure("ENOENT");
        return this.#attach(bdf, basename(join(file, "..")));
      case "drivers_probe": {
        if (existsSync(this.#link(bdf))) return undefined;
        const taker = this.#drivers.find((driver) => this.#matches(bdf, driver));
        if (taker !== undefined && existsSync(this.#directory(taker.name))) this.#attach(bdf, taker.name);
        return undefined;
      }
      default:
        throw failure("ENOENT");
    }
  }

  loadModule(name: string): void {
    this.log.push(`modprobe ${name}`);
    if (!this.#modules.includes(name))
      throw new HostError("TSVMM_HOST_CALL", `Cannot load module ${name}: there is none`);
    this.#appear(name);
  }

  /** Who has a function; `undefined` for none. */
  driverOf(bdf: string): string | undefined {
    return existsSync(this.#link(bdf)) ? basename(readlinkSync(this.#link(bdf))) : undefined;
  }

  #appear(name: string): void {
    mkdirSync(this.#directory(name), { recursive: true });
    mkdirSync(join(this.#sys, "module", name.replaceAll("-", "_")), { recursive: true });
  }

  #attach(bdf: string, driver: string): void {
    const known = this.#drivers.find(({ name }) => name === driver);
    if (known === undefined || !this.#matches(bdf, known) || existsSync(this.#link(bdf))) throw failure("ENODEV");
    if (known.fails?.includes(bdf) === true) return;
    symlinkSync(this.#directory(driver), this.#link(bdf));
    // drivers/vfio/vfio_main.c, __vfio_register_dev(), since 6.1.
    if (driver === "vfio-pci")
      mkdirSync(join(this.#sys, "bus/pci/devices", bdf, "vfio-dev/vfio0"), { recursive: true });
  }

  #matches(bdf: string, { name, takes }: FakeDriver): boolean {
    const file = join(this.#sys, "bus/pci/devices", bdf, "driver_override");
    const override = existsSync(file) ? readFileSync(file, "utf8").trim() : "(null)";
    return override === "(null)" ? takes.includes(bdf) : override === name;
  }

  #directory(driver: string): string {
    return join(this.#sys, "bus/pci/drivers", driver);
  }

  #link(bdf: string): string {
    return join(this.#sys, "bus/pci/devices", bdf, "driver");
  }
}

function failure(errno: string): Error {
  return Object.assign(new Error(`${errno}: pretended`), { code: errno });
}
