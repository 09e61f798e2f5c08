import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errnoOf, HostError } from "../base/errors.ts";
import { type HostRoot, textFile } from "./files.ts";
import { type HostFunction, isVfioDriver, isVfioFunction, readFunction } from "./functions.ts";
import { dmaModule } from "./platform-checks.ts";

const VFIO_DRIVER = "vfio-pci";
/** Names of the errnos by which sysfs refuses other users than root. */
const DENIALS: readonly string[] = ["EACCES", "EPERM", "EROFS"];

/** How the host is changed. Tests play the kernel behind it; a dry run prints instead. */
export interface HostChanges {
  /** @throws an error of node's fs. */
  write(file: string, text: string): void;
  /** Loads a kernel module. @throws HostError */
  loadModule(name: string): void;
}

/** What a function had before it was given to vfio-pci. */
interface Memory {
  /** `null` for none. */
  readonly driver: string | null;
  readonly driverOverride: string | null;
}

/** What became of one function. */
export interface BindingResult {
  readonly bdf: string;
  readonly before: string | undefined;
  readonly after: string | undefined;
}

/**
 * Gives functions to vfio-pci and back to their drivers: those functions only, through `driver_override`. `new_id`
 * would take every function of the model, those plugged in later too.
 *
 * What is as wished already is left alone. When a step fails, all functions of the call get back what they had.
 */
export class Binder {
  readonly #root: HostRoot;
  readonly #changes: HostChanges;
  /** Nothing is read back after a step, since none is done. */
  readonly #isDryRun: boolean;

  constructor(root: HostRoot, changes: HostChanges, isDryRun = false) {
    this.#root = root;
    this.#changes = changes;
    this.#isDryRun = isDryRun;
  }

  /** @throws HostError when the kernel refuses; all is as it was then, or the text says what is not. */
  bind(functions: readonly HostFunction[]): readonly BindingResult[] {
    const todo = functions.filter((one) => !isVfioFunction(one));
    if (todo.length > 0) this.#loadModules();
    return this.#forEach(functions, (one) => {
      if (isVfioFunction(one)) return one.driver;
      // A bind that was cut off has remembered already what there was.
      if (this.#recall(one) === undefined) this.#remember(one);
      this.#write(one, "driver_override", VFIO_DRIVER);
      if (one.driver !== undefined) this.#write(one, "driver/unbind", one.bdf);
      this.#probe(one);
      return this.#mustHaveVfio(one);
    });
  }

  /** @throws HostError as {@link bind} does. */
  unbind(functions: readonly HostFunction[]): readonly BindingResult[] {
    return this.#forEach(functions, (one) => {
      const had = this.#recall(one);
      const isOurs = isVfioDriver(one.driver) || one.driverOverride === VFIO_DRIVER;
      if (!isOurs) {
        if (had !== undefined) this.#forget(one); // somebody gave it back by hand
        return one.driver;
      }
      this.#write(one, "driver_override", had?.driverOverride ?? "");
      if (one.driver !== undefined) this.#write(one, "driver/unbind", one.bdf);
      if (had === undefined) this.#probe(one);
      else if (had.driver !== null) this.#giveTo(one, had.driver);
      const after = this.#mustBeBack(one, had?.driver ?? undefined);
      this.#forget(one);
      return after;
    });
  }

  #forEach(
    functions: readonly HostFunction[],
    work: (one: HostFunction) => string | undefined,
  ): readonly BindingResult[] {
    const touched: HostFunction[] = [];
    const hadMemory = new Map(functions.map((one) => [one.bdf, this.#recall(one)]));
    try {
      return functions.map((one) => {
        touched.push(one);
        return { bdf: one.bdf, before: one.driver, after: work(one) };
      });
    } catch (error) {
      if (this.#isDryRun) throw error;
      const lost = touched.reverse().flatMap((one) => this.#putBack(one, hadMemory.get(one.bdf)));
      const state = lost.length === 0 ? "everything is as it was" : `not put back: ${lost.join(", ")}`;
      if (error instanceof HostError) throw new HostError(error.code, `${error.message}; ${state}`, "");
      const text = error instanceof Error ? error.message : String(error);
      throw new HostError("TSVMM_DRIVER_CHANGE", `${text}; ${state}`);
    }
  }

  /** Makes a function what it was at the start of the call, as far as it goes. @returns What it could not. */
  #putBack(one: HostFunction, memory: Memory | undefined): readonly string[] {
    try {
      const now = readFunction(one.path);
      if (now === undefined) return [`${one.bdf} is gone`];
      if (now.driverOverride !== one.driverOverride) this.#write(one, "driver_override", one.driverOverride ?? "");
      if (now.driver !== one.driver) {
        if (now.driver !== undefined) this.#write(one, "driver/unbind", one.bdf);
        if (one.driver !== undefined) this.#giveTo(one, one.driver);
      }
      if (memory === undefined) this.#forget(one);
      else this.#remember(one, memory);
      const driver = readFunction(one.path)?.driver;
      return driver === one.driver ? [] : [`${one.bdf} had ${one.driver ?? "no driver"}, has ${driver ?? "none"}`];
    } catch (error) {
      return [`${one.bdf} (${error instanceof Error ? error.message : String(error)})`];
    }
  }

  #loadModules(): void {
    const { sys } = this.#root;
    if (!existsSync(join(sys, "bus/pci/drivers", VFIO_DRIVER))) this.#changes.loadModule(VFIO_DRIVER);
    if (dmaModule(this.#root) === "vfio_iommu_type1") return;
    try {
      this.#changes.loadModule("vfio_iommu_type1");
    } catch (error) {
      // A kernel that has iommufd for it has no such module.
      if (dmaModule(this.#root) !== "iommufd") throw error;
    }
  }

  /** Gives a free function to a driver: that one if it is there, whichever takes it otherwise. */
  #giveTo(one: HostFunction, driver: string): void {
    const directory = join(this.#root.sys, "bus/pci/drivers", driver);
    try {
      if (!existsSync(directory)) this.#changes.loadModule(driver);
      this.#changes.write(join(directory, "bind"), one.bdf);
    } catch {
      this.#probe(one); // no such driver any more, or it has the function by now: the caller looks who has it
    }
  }

  #probe(one: HostFunction): void {
    this.#writeFile(join(this.#root.sys, "bus/pci/drivers_probe"), one.bdf, one);
  }

  #write(one: HostFunction, file: string, text: string): void {
    this.#writeFile(join(this.#root.sys, "bus/pci/devices", one.bdf, file), text, one);
  }

  #writeFile(file: string, text: string, one: HostFunction): void {
    try {
      this.#changes.write(file, text === "" ? "\n" : text);
    } catch (error) {
      const errno = errnoOf(error);
      const code = DENIALS.includes(errno) ? "TSVMM_BIND_DENIED" : "TSVMM_DRIVER_CHANGE";
      throw new HostError(code, `Cannot change the driver of ${one.bdf}: writing ${file} failed with ${errno}`);
    }
  }

  #mustHaveVfio(one: HostFunction): string | undefined {
    if (this.#isDryRun) return VFIO_DRIVER;
    const found = readFunction(one.path);
    const now = found?.driver;
    if (found !== undefined && isVfioFunction(found)) return now;
    const has = now === undefined ? "it did not take it" : `${now} took it`;
    throw new HostError(
      "TSVMM_DRIVER_CHANGE",
      `Cannot give ${one.bdf} to ${VFIO_DRIVER}: ${has}`,
      "the kernel's log says why: dmesg | tail",
    );
  }

  /** @param wanted The driver it had; `undefined` when that was none or is not known. */
  #mustBeBack(one: HostFunction, wanted: string | undefined): string | undefined {
    if (this.#isDryRun) return wanted;
    const now = readFunction(one.path)?.driver;
    if (isVfioDriver(now)) {
      throw new HostError(
        "TSVMM_DRIVER_CHANGE",
        `Cannot give ${one.bdf} back: ${now} takes it again, as somebody told it the model's ids`,
        `write its vendor and device id to /sys/bus/pci/drivers/${now}/remove_id first`,
      );
    }
    if (now !== undefined || wanted === undefined) return now;
    throw new HostError(
      "TSVMM_DRIVER_CHANGE",
      `Cannot give ${one.bdf} back: ${wanted} did not take it`,
      `is it there? modprobe ${wanted}`,
    );
  }

  #memoryFile(one: HostFunction): string {
    return join(this.#root.run, `${one.bdf}.json`);
  }

  #recall(one: HostFunction): Memory | undefined {
    try {
      const parsed: unknown = JSON.parse(textFile(this.#root.run, `${one.bdf}.json`) ?? "null");
      if (typeof parsed !== "object" || parsed === null) return undefined;
      const { driver, driverOverride } = Object.fromEntries(Object.entries(parsed));
      // Only what could be a driver's name may become part of a path.
      const name = (value: unknown): string | null =>
        typeof value === "string" && /^[\w-][\w.-]*$/.test(value) ? value : null;
      return { driver: name(driver), driverOverride: name(driverOverride) };
    } catch {
      return undefined; // not ours: without a memory the kernel chooses the driver
    }
  }

  #remember(one: HostFunction, memory?: Memory): void {
    if (this.#isDryRun) return;
    const kept: Memory = memory ?? { driver: one.driver ?? null, driverOverride: one.driverOverride ?? null };
    try {
      mkdirSync(this.#root.run, { recursive: true, mode: 0o755 });
      writeFileSync(this.#memoryFile(one), `${JSON.stringify(kept)}\n`, { mode: 0o644 });
    } catch (error) {
      throw new HostError(
        "TSVMM_BIND_DENIED",
        `Cannot remember the driver of ${one.bdf} in ${this.#root.run}: ${errnoOf(error)}`,
      );
    }
  }

  #forget(one: HostFunction): void {
    if (!this.#isDryRun) rmSync(this.#memoryFile(one), { force: true });
  }
}
