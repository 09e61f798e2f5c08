import { toPlainError } from "../shared/plain-error.ts";
import type { ReplyMessage, RequestHandlers, RequestMessage, RequestName } from "../shared/requests.ts";

/** Carries a request out. @returns The reply; a refusal for what the handler throws. */
export function answerRequest<Name extends RequestName>(
  handlers: RequestHandlers,
  { name, token, asks }: RequestMessage<Name>,
): ReplyMessage {
  try {
    return { kind: "reply", token, answer: handlers[name](asks) };
  } catch (error) {
    return { kind: "refusal", token, error: toPlainError(error) };
  }
}
