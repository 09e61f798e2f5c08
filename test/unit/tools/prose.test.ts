import t from "tap";
import { proseProblems } from "../../../tools/prose.ts";

/** A sentence of so many words, the first of which is capital. */
const sentence = (words: number): string => `${["Word", ...Array<string>(words - 1).fill("word")].join(" ")}.`;
/** Not one word here, so that this file has none of the banned ones. */
const banned = ["no", "body"].join("");

t.test("proseProblems() counts the words of a sentence: 25 are allowed, 26 are not", async (t) => {
  t.same(proseProblems("a.md", `${sentence(25)} ${sentence(25)}\n`), []);
  t.same(proseProblems("a.md", `# Title\n\n${sentence(25)}\n${sentence(26)}\n`), [`3: 26 words: ${sentence(26)}`]);
});

t.test("proseProblems() ends a sentence before a capital, code, a bracket or emphasis", async (t) => {
  const half = "word ".repeat(20);
  for (const next of ["Word", "`word`", "[word](a.md)", "(word)", "**word**", "{@link word}"]) {
    for (const end of [".", "!", "?", ":", ";"])
      t.same(proseProblems("a.md", `${half.trim()}${end} ${next} ${half}`), []);
  }
  t.match(proseProblems("a.md", `${half.trim()}; word ${half}`), [/^1: 41 words: /]);
  t.match(proseProblems("a.md", `${half.trim()}. word ${half}`), [/^1: 41 words: /], "as after an abbreviation");
  t.match(proseProblems("a.md", `${half.trim()}, Word ${half}`), [/^1: 41 words: /]);
});

t.test("proseProblems() counts what has a letter or a digit", async (t) => {
  t.same(proseProblems("a.md", `${"word ".repeat(25)}→ … ≤ + –\n`), []);
  t.match(proseProblems("a.md", `${"word ".repeat(24)}5 µs\n`), [/^1: 26 words: /]);
});

t.test("proseProblems() joins the lines of a paragraph, and none of two", async (t) => {
  const half = "word ".repeat(13).trim();
  t.match(proseProblems("a.md", `${half}\n${half}\n`), [/^1: 26 words: /]);
  t.match(proseProblems("a.md", `Text\n\n- ${half}\n  ${half}\n`), [/^3: 26 words: /]);
  t.same(proseProblems("a.md", `${half}\n\n${half}\n- ${half}\n- ${half}\n1. ${half}\n| ${half} |\n# ${half}\n`), []);
});

t.test("proseProblems() reads no code, and of tables and headings only the words", async (t) => {
  const long = "word ".repeat(30).trim();
  t.same(proseProblems("a.md", `Text:\n\n\`\`\`\n${long} ${banned}\n\`\`\`\n\n    ${long} ${banned}\n`), []);
  t.same(proseProblems("a.md", `# ${long}\n\n| ${long} | ${long} |\n`), []);
  t.same(proseProblems("a.md", `# A ${banned}\n\n| a | ${banned} |\n`), [
    `1: "${banned}": # A ${banned}`,
    `3: "${banned}": | a | ${banned} |`,
  ]);
});

t.test("proseProblems() reads comments of TypeScript, each kind as its paragraphs", async (t) => {
  const half = "word ".repeat(13).trim();
  const problems = (source: string): readonly string[] => proseProblems("a.ts", source);
  t.match(problems(`/** ${half} ${half} */`), [/^1: 26 words: word/]);
  t.match(problems(`const a = 1;\n/**\n * ${half}\n * ${half}\n */\n`), [/^3: 26 words: /]);
  t.same(problems(`/**\n * ${half}\n *\n * ${half}\n * @param a ${half}\n * @returns ${half}\n */\n`), []);
  t.match(problems(`/**\n * @param a ${half}\n *   ${half}\n */\n`), [/^2: 28 words: /]);
  t.match(problems(`  // ${half}\n  // ${half}\n`), [/^1: 26 words: /]);
  t.same(problems(`const a = 1; // ${half}\nconst bc = 1; // ${half}\n`), [], "beside code, in two columns");
  t.same(problems(`/*\n * Words:\n *\n *     ${half} ${half} ${banned}\n */\n`), [], "a drawing");
});

t.test("proseProblems() tells comments from strings, templates and regular expressions", async (t) => {
  const long = "word ".repeat(30).trim();
  const problems = (source: string): readonly string[] => proseProblems("a.ts", source);
  t.same(problems(`const a = "// ${long}";\nconst b = \`/* ${long} */\`;\nconst c = /\\/\\* ${long}/;\n`), []);
  t.match(problems(`const a = \`\${[{ b: "}" }].length} // \${1 / 2}\`; // ${long}\n`), [/^1: 30 words: /]);
  t.match(problems(`const a = (1 + 2) / 3; // ${long}\nconst b = "/";\n`), [/^1: 30 words: /]);
  t.match(problems(`const a = [/"/, /'/];\n// ${long}\n`), [/^2: 30 words: /]);
});

t.test("proseProblems() finds banned words in comments and string literals, in any case", async (t) => {
  const problems = (source: string): readonly string[] => proseProblems("a.ts", source);
  t.same(problems(`// ${banned.toUpperCase()} listens.\n`), [
    `1: "${banned.toUpperCase()}": ${banned.toUpperCase()} listens.`,
  ]);
  t.same(problems(`\n\ntest("a ${banned}");\n`), [`3: "${banned}": "a ${banned}"`]);
  t.match(problems(`const a = \`\${1} ${banned} \${2}\`;\n`), [/^1: /]);
  t.same(problems(`const ${banned} = 1;\nconst a = /${banned}/;\n`), []);
});
