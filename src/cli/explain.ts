import { ERRORS, type ErrorCode } from "../base/errors.ts";
import { wrapText } from "./output.ts";

/** What `tsvmm help CODE` prints: the code's section of docs/reference/errors.md. */
export function explain(code: ErrorCode, columns: number): string {
  const { title, meaning, look, advice, remedy } = ERRORS[code];
  const parts: readonly (readonly [name: string, text: string])[] = [
    ["Meaning", meaning],
    ["How to see it", look],
    ...(advice === undefined ? [] : [["Advice", advice] as const]),
    ["What to do", remedy],
  ];
  const shown = parts.map(([name, text]) => `\n${wrapText(text, columns, `${name}: `, "  ")}`);
  return `${code}: ${title}\n${shown.join("")}`;
}
