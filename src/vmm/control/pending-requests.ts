import { fromPlainError } from "../shared/plain-error.ts";
import type { Answer, Asks, ReplyMessage, RequestMessage, RequestName } from "../shared/requests.ts";
import { type Deferred, defer } from "./worker-link.ts";

/**
 * Requests to the device thread that are on their way. Two races, each in both orders:
 *
 * - A reply and the thread's end. Node hands out what a worker posted before it tells of the worker's end: a reply that
 *   was posted is here first and counts. A request that was not answered until then is rejected by {@link rejectAll}.
 * - A request and the thread's end. A request that the thread never takes off its port waits here until
 *   {@link rejectAll}. One that comes later meets a handle without a thread, and is not sent.
 */
export class PendingRequests {
  readonly #post: (message: RequestMessage) => void;
  readonly #waiting = new Map<number, Deferred<Answer<RequestName>>>();
  #nextToken = 0;

  /** @param post Sends a message and wakes the device thread. */
  constructor(post: (message: RequestMessage) => void) {
    this.#post = post;
  }

  /**
   * Sends a request. @returns The answer; rejects with what the device thread refused it for, or with the reason of its
   * end.
   */
  ask<Name extends RequestName>(name: Name, asks: Asks<Name>): Promise<Answer<Name>> {
    const token = this.#nextToken++;
    const answer = defer<Answer<RequestName>>();
    this.#waiting.set(token, answer);
    // Cast: a message of one name is one of the union; TypeScript does not see it through the type parameter.
    this.#post({ kind: "request", token, name, asks } as RequestMessage);
    // Cast: a request is answered by what its name stands for.
    return answer.promise as Promise<Answer<Name>>;
  }

  /** Takes a reply; one that is no longer waited for is dropped. */
  take(message: ReplyMessage): void {
    const waiting = this.#waiting.get(message.token);
    this.#waiting.delete(message.token);
    if (message.kind === "reply") waiting?.resolve(message.answer);
    else waiting?.reject(fromPlainError(message.error));
  }

  /** No reply comes any more. */
  rejectAll(error: Error): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const one of waiting) one.reject(error);
  }
}
