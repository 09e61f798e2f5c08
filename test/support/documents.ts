import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "../../tools/cache.ts";

/** A fenced code block of a document. */
export interface CodeBlock {
  /** Path of the document below the project's root. */
  readonly document: string;
  /** The first word behind the fence. */
  readonly language: string;
  readonly text: string;
}

/** Documents whose code blocks users copy. */
export function userDocuments(): readonly string[] {
  const guides = readdirSync(join(projectRoot(), "docs/guide")).filter((name) => name.endsWith(".md"));
  return ["README.md", ...guides.sort().map((name) => join("docs/guide", name))];
}

/** The fenced blocks of a document, in order; a block's indentation (in a list) is taken off. */
export function codeBlocks(document: string): readonly CodeBlock[] {
  const text = readFileSync(join(projectRoot(), document), "utf8");
  return [...text.matchAll(/^( *)```(\w+)[^\n]*\n([\s\S]*?)^\1```$/gm)].map(
    ([, indent = "", language = "", body = ""]) => ({
      document,
      language,
      text: body.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
    }),
  );
}
