/**
 * What has an effect on a terminal, or none that shows: control and format characters, halves of surrogate pairs, line
 * separators.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
/** Most texts: nothing to look at more closely. */
const PLAIN = /^[\x20-\x7e]*$/;

/** A text in characters that print, the others as escapes; what users and files call things may have any. */
export function printable(text: string): string {
  if (PLAIN.test(text)) return text;
  return text.replace(UNPRINTABLE, (character) => {
    const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
    const code = (character.codePointAt(0) ?? 0).toString(16);
    return short ?? (code.length <= 2 ? `\\x${code.padStart(2, "0")}` : `\\u{${code}}`);
  });
}
