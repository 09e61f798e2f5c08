import type { Fd } from "../../src/base/units.ts";
import { libc } from "../../src/host/libc.ts";
import type { UserMessage, UserWire } from "../../src/vfio-user/protocol/wire.ts";
import { type Answer, COMMAND, PlainServer } from "./plain-server.ts";

/*
 * A vfio-user server with one oddity, as a process: `odd-server.js SOCKET ODDITY`. Each is a class; what it does is
 * told there.
 */

const F_SETFL = 4;

/** Vectors of MSI-X are masked until SET_IRQS unmasks them, as in QEMU's server. */
class Masked extends PlainServer {
  override hasVectorMasks = true;
}

/** Answers messages that want no answer, as rust-vmm's vfio-user does. */
class Talkative extends PlainServer {
  override answer(wire: UserWire, message: UserMessage): void {
    super.answer(wire, { ...message, wantsNoReply: false });
  }
}

/** Takes O_NONBLOCK off the eventfds it is given: the flag belongs to the open file, which the machine shares. */
class Blocking extends PlainServer {
  override setIrqs(view: DataView, descriptors: readonly Fd[]): Answer {
    for (const file of descriptors) libc.fcntl(file, F_SETFL, 0);
    return super.setIrqs(view, descriptors);
  }
}

/** From the first access of a register on, each answer takes so many milliseconds. */
class Slow extends PlainServer {
  readonly #delayMs: number;
  #isSlow = false;

  constructor(delayMs: number) {
    super();
    this.#delayMs = delayMs;
  }

  override handle(message: UserMessage): Answer {
    if (this.#isSlow) process.stderr.write("hangs\n");
    if (this.#isSlow) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, this.#delayMs);
    return super.handle(message);
  }

  override read(index: number, offset: number, count: number): Uint8Array {
    if (index !== 7) this.#isSlow = true;
    return super.read(index, offset, count);
  }
}

/** Never answers what region 3 is like. */
class Silent extends PlainServer {
  override answer(wire: UserWire, message: UserMessage): void {
    if (message.command !== COMMAND.getRegionInfo || message.payload[8] !== 3) super.answer(wire, message);
    else process.stderr.write("asked for region 3\n");
  }
}

/** Cuts guest RAM's file short when it is given it, and says what came of that. */
class Cutting extends PlainServer {
  override handle(message: UserMessage): Answer {
    const [file] = message.descriptors;
    if (message.command === COMMAND.dmaMap && file !== undefined) {
      process.stderr.write(libc.ftruncate(file, 0) < 0 ? `errno ${libc.errno()}\n` : "cut\n");
    }
    return super.handle(message);
  }
}

const [path = "", oddity] = process.argv.slice(2);
const servers: Readonly<Record<string, () => PlainServer>> = {
  masked: () => new Masked(),
  talkative: () => new Talkative(),
  blocking: () => new Blocking(),
  slow: () => new Slow(700),
  hanging: () => new Slow(3_600_000),
  silent: () => new Silent(),
  cutting: () => new Cutting(),
};
(servers[oddity ?? ""]?.() ?? new PlainServer()).serve(path);
