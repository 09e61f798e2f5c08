/**
 * Finds sentences of more than 25 words, and words that the style guide bans: `node dist/tools/prose.js`.
 *
 * The text is the comments of TypeScript and the prose of Markdown; string literals are searched for banned words only.
 * docs/contributing/style.md has the rules.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { projectRoot } from "./cache.ts";

const WORDS = 25;
const BANNED =
  /\b(whoever|nobody|for ever|affair|leave it away|left away|unless told|no use any more|bad intentions|manners|for people)\b/i;

/** A sentence ends at one of these before a space and a capital, code, a bracket or emphasis. */
const SENTENCE_END = /(?<=[.!?:;])\s+(?=[A-Z`{[(*])/;

/** A line that starts a paragraph: a list item or a tag. */
const ITEM = /^\s*(?:[-*]|\d+\.|@\w+)(?:\s|$)/;

/** Text that is read as a whole. */
interface Paragraph {
  /** Of its first line, from 1. */
  readonly line: number;
  readonly text: string;
  /** Table rows, headings and string literals are not sentences: only their words are checked. */
  readonly isSentences: boolean;
}

/** Joins lines to paragraphs, without code: fenced, or indented by four columns after an empty line. */
function paragraphs(lines: readonly string[], firstLine: number): Paragraph[] {
  const found: Paragraph[] = [];
  let text: string[] = [];
  let start = 0;
  let isCode = false;
  const end = (): void => {
    if (text.length > 0) found.push({ line: firstLine + start, text: text.join(" "), isSentences: true });
    text = [];
  };
  for (const [index, line] of lines.entries()) {
    const trimmed = line.trim();
    const isFence = trimmed.startsWith("```");
    if (isFence) isCode = !isCode;
    if (isFence || isCode || trimmed === "" || ITEM.test(line) || /^[|#]/.test(trimmed)) end();
    if (isFence || isCode || trimmed === "") continue;
    if (/^[|#]/.test(trimmed)) found.push({ line: firstLine + index, text: trimmed, isSentences: false });
    else if (text.length > 0 || ITEM.test(line) || !/^ {4}/.test(line)) {
      if (text.length === 0) start = index;
      text.push(trimmed);
    }
  }
  end();
  return found;
}

/** Tokens before which a slash divides; after all others it starts a regular expression. */
function endsExpression(kind: ts.SyntaxKind): boolean {
  switch (kind) {
    case ts.SyntaxKind.Identifier:
    case ts.SyntaxKind.PrivateIdentifier:
    case ts.SyntaxKind.NumericLiteral:
    case ts.SyntaxKind.BigIntLiteral:
    case ts.SyntaxKind.StringLiteral:
    case ts.SyntaxKind.NoSubstitutionTemplateLiteral:
    case ts.SyntaxKind.TemplateTail:
    case ts.SyntaxKind.CloseParenToken:
    case ts.SyntaxKind.CloseBracketToken:
    case ts.SyntaxKind.CloseBraceToken:
    case ts.SyntaxKind.ThisKeyword:
      return true;
    default:
      return false;
  }
}

/** A token of a source file; comments are tokens here. */
interface Token {
  readonly kind: ts.SyntaxKind;
  readonly line: number;
  readonly column: number;
  readonly text: string;
}

/** Scans a source file as the parser would: templates and regular expressions depend on what is before them. */
function* tokens(source: string): Generator<Token> {
  const scanner = ts.createScanner(ts.ScriptTarget.Latest, false, ts.LanguageVariant.Standard, source);
  const braces: boolean[] = []; // true: the brace that continues a template
  let before: ts.SyntaxKind = ts.SyntaxKind.Unknown;
  let line = 1;
  let lineStart = 0;
  for (let kind = scanner.scan(); kind !== ts.SyntaxKind.EndOfFileToken; kind = scanner.scan()) {
    if (kind === ts.SyntaxKind.OpenBraceToken) braces.push(false);
    if (kind === ts.SyntaxKind.CloseBraceToken && braces.pop() === true) kind = scanner.reScanTemplateToken(false);
    if (kind === ts.SyntaxKind.TemplateHead || kind === ts.SyntaxKind.TemplateMiddle) braces.push(true);
    const isSlash = kind === ts.SyntaxKind.SlashToken || kind === ts.SyntaxKind.SlashEqualsToken;
    if (isSlash && !endsExpression(before)) kind = scanner.reScanSlashToken();
    const text = scanner.getTokenText();
    const column = scanner.getTokenStart() - lineStart;
    yield { kind, line, column, text };
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) {
      line++;
      lineStart = scanner.getTokenStart() + at + 1;
    }
    if (kind > ts.SyntaxKind.LastTriviaToken) before = kind;
  }
}

const STRINGS: ReadonlySet<ts.SyntaxKind> = new Set([
  ts.SyntaxKind.StringLiteral,
  ts.SyntaxKind.NoSubstitutionTemplateLiteral,
  ts.SyntaxKind.TemplateHead,
  ts.SyntaxKind.TemplateMiddle,
  ts.SyntaxKind.TemplateTail,
]);

/** The paragraphs of a source file: block comments, line comments in a column below each other, string literals. */
function sourceParagraphs(source: string): Paragraph[] {
  const found: Paragraph[] = [];
  let block: { lines: string[]; line: number; column: number } | undefined;
  const end = (): void => {
    if (block !== undefined) found.push(...paragraphs(block.lines, block.line));
    block = undefined;
  };
  for (const { kind, line, column, text } of tokens(source)) {
    if (kind === ts.SyntaxKind.SingleLineCommentTrivia) {
      const words = text.replace(/^\/\/ ?/, "");
      if (block?.column === column && block.line + block.lines.length === line) block.lines.push(words);
      else {
        end();
        block = { lines: [words], line, column };
      }
    } else if (kind === ts.SyntaxKind.MultiLineCommentTrivia) {
      const lines = text.replace(/\s*\*\/$/, "").split("\n");
      found.push(
        ...paragraphs(
          lines.map((words) => words.replace(/^\s*\/?\*+ ?/, "")),
          line,
        ),
      );
    } else if (STRINGS.has(kind)) found.push({ line, text, isSentences: false });
  }
  end();
  return found;
}

/** Answers what is wrong in one file, a line each: `12: 27 words: …` or `12: "…": …`. */
export function proseProblems(file: string, text: string): readonly string[] {
  const read = file.endsWith(".md") ? paragraphs(text.split("\n"), 1) : sourceParagraphs(text);
  return read.flatMap(({ line, text, isSentences }) =>
    (isSentences ? text.split(SENTENCE_END) : [text]).flatMap((sentence) => {
      const count = sentence.split(/\s+/).filter((word) => /[\p{L}\p{N}_]/u.test(word)).length;
      const banned = BANNED.exec(sentence)?.[0];
      return [
        ...(isSentences && count > WORDS ? [`${line}: ${count} words: ${sentence}`] : []),
        ...(banned === undefined ? [] : [`${line}: "${banned}": ${sentence}`]),
      ];
    }),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = projectRoot();
  const files = execFileSync("git", ["ls-files", "*.ts", "*.md"], { cwd: root, encoding: "utf8" }).trim().split("\n");
  const problems = files.flatMap((file) =>
    proseProblems(file, readFileSync(join(root, file), "utf8")).map((problem) => `${file}:${problem}`),
  );
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
}
