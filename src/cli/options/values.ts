import { SpecError } from "../../base/errors.ts";
import { didYouMean } from "./suggest.ts";

const SIZE_UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Reads `536870912`, `512M`, `4G`: bytes. K, M, G and T are powers of 1024. */
export function readSize(option: string, text: string): number {
  const match = /^(\d+)([KMGT]?)$/i.exec(text);
  if (match === null)
    throw new SpecError("TSVMM_VALUE_INVALID", option, `'${text}' is not a size: ${sizeAdvice(text)}`);
  const unit = SIZE_UNITS[(match[2] ?? "").toUpperCase()] ?? 1;
  const sizeBytes = Number(match[1]) * unit;
  if (!Number.isSafeInteger(sizeBytes)) throw new SpecError("TSVMM_VALUE_INVALID", option, `'${text}' is too large`);
  return sizeBytes;
}

function sizeAdvice(text: string): string {
  const fraction = /^(\d+\.\d+)([MGT])$/i.exec(text);
  const smaller = { M: "K", G: "M", T: "G" }[(fraction?.[2] ?? "").toUpperCase()];
  const whole = Number(fraction?.[1]) * 1024;
  if (smaller !== undefined && Number.isInteger(whole)) return `it has to be whole, write ${whole}${smaller}`;
  return "write a whole number of bytes, or one with K, M, G or T behind it, as in 512M";
}

/** Reads a whole number, decimal or with `0x`. */
export function readInteger(option: string, text: string): number {
  if (!/^(\d+|0x[0-9a-f]+)$/i.test(text))
    throw new SpecError("TSVMM_VALUE_INVALID", option, `'${text}' is not a whole number`);
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new SpecError("TSVMM_VALUE_INVALID", option, `'${text}' is too large`);
  return value;
}

/** Reads `0`, `[0,2]`, `[]`. */
export function readIntegers(option: string, text: string): readonly number[] {
  const inner = text.startsWith("[") && text.endsWith("]") ? text.slice(1, -1) : text;
  return inner.trim() === "" ? [] : inner.split(",").map((item) => readInteger(option, item.trim()));
}

/** Reads `on` or `off` (`true` or `false`). */
export function readSwitch(option: string, text: string): boolean {
  if (text === "on" || text === "true") return true;
  if (text === "off" || text === "false") return false;
  throw new SpecError("TSVMM_VALUE_INVALID", option, `'${text}' is neither on nor off`);
}

/** Reads one of some words. */
export function readChoice<Choice extends string>(option: string, text: string, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice === text);
  if (found !== undefined) return found;
  throw new SpecError(
    "TSVMM_VALUE_INVALID",
    option,
    `'${text}' is none of ${choices.join(", ")}${didYouMean(text, choices)}`,
  );
}

/** Expands `~/` at the start, as shells do not do it after `path=`. */
export function readPath(text: string, home: string): string {
  if (text === "~") return home;
  return text.startsWith("~/") ? `${home.replace(/\/+$/, "")}/${text.slice(2)}` : text;
}
