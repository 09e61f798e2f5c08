import { type ErrorCode, HostError, hostErrorOf, SpecError } from "../../base/errors.ts";

/** An error on its way to the control thread. */
export interface PlainError {
  readonly name: string;
  readonly message: string;
  /** The cause; absent for errors of our own. */
  readonly code?: ErrorCode;
  /** `message` without path and advice. */
  readonly text?: string;
  /** SpecError's path. */
  readonly path?: string;
  /** HostError's advice. */
  readonly advice?: string;
  /** HostError's lines for who looks into it. */
  readonly details?: string;
  /** Only for errors of our own. */
  readonly stack?: string;
}

/** Makes an error plain data, so that it can cross threads. */
export function toPlainError(error: unknown): PlainError {
  if (error instanceof SpecError) {
    const { name, message, code, text, path } = error;
    return { name, message, code, text, path };
  }
  const ofHost = hostErrorOf(error);
  if (ofHost !== undefined) {
    const { name, message, code, text, advice, details } = ofHost;
    return {
      ...{ name, message, code, text },
      ...(advice === undefined ? {} : { advice }),
      ...(details === undefined ? {} : { details }),
    };
  }
  if (error instanceof Error) {
    return { name: error.name, message: error.message, ...(error.stack === undefined ? {} : { stack: error.stack }) };
  }
  return { name: "Error", message: String(error) };
}

/** The error that {@link toPlainError} was given, of the same kind. */
export function fromPlainError(plain: PlainError): Error {
  const { code, text = plain.message, path, advice, details } = plain;
  if (code !== undefined) {
    return path === undefined ? new HostError(code, text, advice, details) : new SpecError(code, path, text);
  }
  const error = new Error(plain.message);
  error.name = plain.name;
  if (plain.stack !== undefined) error.stack = plain.stack;
  return error;
}
