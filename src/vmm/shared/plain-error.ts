import { HostError, hostErrorOf, SpecError } from "../../base/errors.ts";

/** An error on its way to the control thread. */
export interface PlainError {
  readonly name: string;
  readonly message: string;
  /** SpecError's path. */
  readonly path?: string;
  /** HostError's lines for who looks into it. */
  readonly details?: string;
  /** Only for errors of our own. */
  readonly stack?: string;
}

/** Makes an error plain data, so that it can cross threads. */
export function toPlainError(error: unknown): PlainError {
  if (error instanceof SpecError) return { name: error.name, message: error.message, path: error.path };
  const ofHost = hostErrorOf(error);
  if (ofHost !== undefined) {
    const { name, message, details } = ofHost;
    return { name, message, ...(details === undefined ? {} : { details }) };
  }
  if (error instanceof Error) {
    return { name: error.name, message: error.message, ...(error.stack === undefined ? {} : { stack: error.stack }) };
  }
  return { name: "Error", message: String(error) };
}

/** The error that {@link toPlainError} was given, of the same kind. */
export function fromPlainError(plain: PlainError): Error {
  if (plain.path !== undefined) {
    const prefix = `${plain.path}: `;
    const text = plain.message.startsWith(prefix) ? plain.message.slice(prefix.length) : plain.message;
    return new SpecError(plain.path, text);
  }
  if (plain.stack === undefined) return new HostError(plain.message, undefined, plain.details);
  const error = new Error(plain.message);
  error.name = plain.name;
  error.stack = plain.stack;
  return error;
}
