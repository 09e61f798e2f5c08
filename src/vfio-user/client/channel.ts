import { type ErrorCode, HostError } from "../../base/errors.ts";
import type { Fd } from "../../base/units.ts";
import { closeAll } from "../../host/descriptor-socket.ts";
import { errnoName, SyscallError } from "../../host/errors.ts";
import { commandName, VFIO_USER_VERSION } from "../protocol/abi.ts";
import { describeMessage, type UserMessage, type UserWire } from "../protocol/wire.ts";
import type { WaitBudget } from "./wait-budget.ts";

/** What the server answered. The receiver owns the descriptors. */
export interface UserReply {
  readonly view: DataView;
  readonly descriptors: readonly Fd[];
}

/** Answers a command of the server: the reply's payload, or an errno. */
export type CommandHandler = (command: number, payload: Uint8Array) => Uint8Array | number;

export interface UserChannelParts {
  /** As messages call the device. */
  readonly name: string;
  readonly wire: UserWire;
  /** How long the server may take. */
  readonly budget: WaitBudget;
  readonly onCommand: CommandHandler;
  /** The server is gone, hangs, or sends what cannot be understood; called once. */
  readonly onLost: (reason: string) => void;
}

/** Messages taken at a time while no request is under way: the device thread has other things to do. */
const MESSAGES_PER_PUMP = 16;

/**
 * The client's end of a vfio-user connection: one request at a time, all within a budget of waiting. The server's own
 * commands are answered at any time. Once lost it stays lost: every request throws at once. Device thread only.
 */
export class UserChannel implements Disposable {
  readonly #parts: UserChannelParts;
  #nextId = 1;
  /** Commands of messages that want no answer, by id, since the last answer. Some servers answer all the same. */
  readonly #posted: Map<number, number> = new Map();
  #lost: HostError | undefined;
  #isSilent = false;

  constructor(parts: UserChannelParts) {
    this.#parts = parts;
  }

  get name(): string {
    return this.#parts.name;
  }

  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** Lost because the server hung up or did not answer, not for what it said. */
  get isSilent(): boolean {
    return this.#isSilent;
  }

  /**
   * Asks the server and waits for its answer.
   *
   * @returns The reply's payload. Descriptors that come with it are the end of the connection: the answer has none.
   * @throws SyscallError when the server refuses, with the errno it gave; HostError when the connection is lost.
   */
  request(command: number, payload: Uint8Array, descriptors: readonly Fd[] = []): DataView {
    const reply = this.requestFiles(command, payload, descriptors);
    if (reply.descriptors.length === 0) return reply.view;
    closeAll(reply.descriptors);
    throw this.lose(`its server has sent descriptors with its answer to ${commandName(command)}, which has none`);
  }

  /** The same, with the descriptors that come with the reply. */
  requestFiles(command: number, payload: Uint8Array, descriptors: readonly Fd[] = []): UserReply {
    const id = this.#takeId();
    const reply = this.#timed((deadline, allowedMs) => {
      this.#parts.wire.send({ id, command, isReply: false, payload, descriptors }, deadline);
      return this.#awaitReply(id, command, deadline, allowedMs);
    });
    if (this.#parts.wire.hasBacklog) this.pump();
    if (reply.error !== 0) {
      closeAll(reply.descriptors);
      throw new SyscallError(
        "TSVMM_USER_DEVICE_REFUSED",
        `use ${this.#parts.name}`,
        commandName(command),
        errnoName(reply.error),
      );
    }
    const { buffer, byteOffset, byteLength } = reply.payload;
    return { view: new DataView(buffer, byteOffset, byteLength), descriptors: reply.descriptors };
  }

  /** Tells the server something without waiting for an answer. @throws HostError when the connection is lost. */
  post(command: number, payload: Uint8Array): void {
    const id = this.#takeId();
    this.#posted.set(id, command);
    this.#timed((deadline) =>
      this.#parts.wire.send({ id, command, isReply: false, wantsNoReply: true, payload }, deadline),
    );
  }

  /**
   * Takes what has come while no request was under way: the server's commands, or its end. Never throws a HostError.
   */
  pump(): void {
    if (this.#lost !== undefined) return;
    try {
      this.#timed((deadline) => {
        for (let taken = 0; taken < MESSAGES_PER_PUMP || this.#parts.wire.hasBacklog; taken++) {
          const arrival = this.#parts.wire.receive(0);
          if (arrival === "nothing") return;
          if (arrival === "closed") throw new NoAnswer("TSVMM_PEER_LOST", CLOSED);
          if (!arrival.isReply) this.#answer(arrival, deadline);
          else if (!this.#isToPosted(arrival)) throw unexpected(arrival);
        }
      });
    } catch (error) {
      if (!(error instanceof HostError)) throw error; // lost, which onLost was told
    }
  }

  /** Ends the connection for a reason that the caller has found, such as an invalid answer. */
  lose(reason: string, code: ErrorCode = "TSVMM_USER_DEVICE_PROTOCOL"): HostError {
    if (this.#lost !== undefined) return this.#lost;
    this.#lost = new HostError(code, `Cannot use ${this.#parts.name}: ${reason}`);
    this.#parts.wire.close();
    this.#parts.onLost(reason);
    return this.#lost;
  }

  /** Hangs up. */
  close(): void {
    this.#lost ??= new HostError("TSVMM_PEER_LOST", `Cannot use ${this.#parts.name}: it is closed`);
    this.#parts.wire.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #takeId(): number {
    this.#nextId = (this.#nextId + 1) & 0xffff;
    return this.#nextId;
  }

  #awaitReply(id: number, command: number, deadline: number, allowedMs: number): UserMessage {
    for (;;) {
      const arrival = this.#parts.wire.receive(deadline);
      if (arrival === "nothing")
        throw new NoAnswer("TSVMM_USER_DEVICE_SILENT", this.#lateness(command, deadline, allowedMs));
      if (arrival === "closed") throw new NoAnswer("TSVMM_PEER_LOST", CLOSED);
      if (!arrival.isReply) {
        this.#answer(arrival, deadline);
        // A server that only sends commands would keep the device thread without end.
        if (performance.now() >= deadline)
          throw new HostError("TSVMM_USER_DEVICE_SILENT", "its server commands and does not answer");
        continue;
      }
      if (arrival.id === id && arrival.command === command) {
        this.#posted.clear(); // a server carries commands out in their order
        return arrival;
      }
      if (!this.#isToPosted(arrival)) throw unexpected(arrival);
    }
  }

  /** Whether a reply is to a message that wanted none. rust-vmm's vfio-user answers each REGION_WRITE. */
  #isToPosted({ id, command, descriptors }: UserMessage): boolean {
    if (this.#posted.get(id) !== command || descriptors.length > 0) return false;
    return this.#posted.delete(id);
  }

  #answer({ id, command, payload, descriptors, wantsNoReply }: UserMessage, deadline: number): void {
    if (descriptors.length > 0) {
      closeAll(descriptors);
      throw new HostError(
        "TSVMM_USER_DEVICE_PROTOCOL",
        `its server has sent descriptors with ${commandName(command)}, which has none`,
      );
    }
    const answer = this.#parts.onCommand(command, payload);
    if (wantsNoReply) return;
    const outcome = typeof answer === "number" ? { error: answer } : { payload: answer };
    this.#parts.wire.send({ id, command, isReply: true, ...outcome }, deadline);
  }

  /** Whatever goes wrong on the wire is the end of the connection, and so is a server that uses up its budget. */
  #timed<Result>(work: (deadline: number, allowedMs: number) => Result): Result {
    if (this.#lost !== undefined) throw this.#lost;
    const { budget } = this.#parts;
    const allowedMs = budget.allowance();
    const start = performance.now();
    try {
      return work(start + allowedMs, allowedMs);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#isSilent ||= error instanceof NoAnswer || isHangUp(error);
      throw isHangUp(error) ? this.lose(CLOSED, "TSVMM_PEER_LOST") : this.lose(error.message, error.code);
    } finally {
      budget.spend(performance.now() - start);
    }
  }

  #lateness(command: number, deadline: number, allowedMs: number): string {
    const what = `its server has not answered ${commandName(command)}`;
    if (performance.now() < deadline) return `${what}, and the machine stops`;
    const otherMs = Math.round(this.#parts.budget.limitMs - allowedMs);
    const before = otherMs > 0 ? ` after other waits of ${otherMs} ms` : "";
    // Its first answer is missing where it serves somebody else, too: then that is the advice.
    const advice = command === VFIO_USER_VERSION ? "" : " (timeout= gives it longer)";
    return `${what} for ${Math.round(allowedMs)} ms${before}${advice}`;
  }
}

/** The server hangs up, or is silent. */
class NoAnswer extends HostError {}

const CLOSED = "its server has closed the connection";

/** A dead server shows by the end of its messages, or by a send that fails. */
const isHangUp = (error: HostError): boolean =>
  error instanceof SyscallError && (error.errno === "EPIPE" || error.errno === "ECONNRESET");

function unexpected(message: UserMessage): HostError {
  closeAll(message.descriptors);
  return new HostError(
    "TSVMM_USER_DEVICE_PROTOCOL",
    `its server has sent ${describeMessage(message)}, which no request asked for`,
  );
}
