import type { BusDevice } from "../base/bus.ts";
import { allOnes, type Width } from "../base/units.ts";

/** Ports the exit device takes: a write of 1, 2 or 4 bytes at the first one is one value. */
export const DEBUG_EXIT_SIZE = 4;

/** Ends the machine: test kernels write their verdict here. */
export class DebugExitPort implements BusDevice {
  readonly name = "debug-exit";
  readonly #onExit: (value: number) => void;

  /**
   * @param onExit Gets the value as written; may be called more than once, since other CPUs run on until they are
   *   stopped.
   */
  constructor(onExit: (value: number) => void) {
    this.#onExit = onExit;
  }

  read(_offset: number, width: Width): number {
    return allOnes(width);
  }

  write(_offset: number, _width: Width, value: number): void {
    this.#onExit(value);
  }
}

/**
 * Port 0x80, where firmware leaves progress codes. Linux also writes there to pass a microsecond, so a write must cost
 * little; reads answer the last code.
 */
export class PostCodePort implements BusDevice {
  readonly name = "post-code";
  readonly #onCode: ((code: number) => void) | undefined;
  #last = 0;

  constructor(onCode?: (code: number) => void) {
    this.#onCode = onCode;
  }

  read(_offset: number, _width: Width): number {
    return this.#last;
  }

  write(_offset: number, _width: Width, value: number): void {
    this.#last = value & 0xff;
    this.#onCode?.(this.#last);
  }
}
