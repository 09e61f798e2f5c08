/**
 * Pictures of terminals, made from real runs.
 *
 *     node dist/tools/terminal-picture.js record COMMAND RECORDING.cast [--columns N] [--rows N]
 *     node dist/tools/terminal-picture.js draw RECORDING.cast PICTURE.svg
 *
 * `record` runs a command in a terminal and writes what it showed; `draw` makes an SVG of the last screen.
 * `npm run picture` does both for the README's picture of the demo.
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import headless from "@xterm/headless";
import { readRecording, recordTerminal, type TerminalRecording, writeRecording } from "./terminal-recording.ts";

const CELL_WIDTH = 8.4;
const CELL_HEIGHT = 18;
const MARGIN = 14;
const TITLE_HEIGHT = 34;
const BACKGROUND = "#16191f";
const FOREGROUND = "#d6dae2";
/** The sixteen colours of terminals, in their order. */
const PALETTE: readonly string[] = [
  ...["#3b4048", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d6dae2"],
  ...["#7f848e", "#ff7b86", "#b5e890", "#ffd68a", "#82c4ff", "#dd95f5", "#73d5e0", "#ffffff"],
];

/** Neighbouring cells that look the same. */
interface Run {
  readonly column: number;
  text: string;
  readonly fill: string;
  readonly isBold: boolean;
  readonly isDim: boolean;
}

/** The last screen of a recording as rows of runs, without the empty rows at its end. */
async function lastScreen(recording: TerminalRecording): Promise<readonly (readonly Run[])[]> {
  const { columns, rows } = recording;
  const terminal = new headless.Terminal({ cols: columns, rows, allowProposedApi: true, scrollback: 0 });
  await new Promise<void>((resolve) =>
    terminal.write(recording.output.map(({ text }) => text).join(""), () => resolve()),
  );
  const buffer = terminal.buffer.active;
  const screen = Array.from({ length: rows }, (_, row) => rowRuns(buffer.getLine(buffer.baseY + row), columns));
  terminal.dispose();
  const last = screen.findLastIndex((runs) => runs.some(({ text }) => text.trim() !== ""));
  return screen.slice(0, last + 1);
}

type Line = NonNullable<ReturnType<headless.Terminal["buffer"]["active"]["getLine"]>>;

function rowRuns(line: Line | undefined, columns: number): readonly Run[] {
  const runs: Run[] = [];
  for (let column = 0; column < columns; column++) {
    const cell = line?.getCell(column);
    if (cell === undefined || cell.getWidth() === 0) continue;
    const text = cell.getChars() || " ";
    const fill = cell.isFgPalette() ? (PALETTE[cell.getFgColor()] ?? FOREGROUND) : FOREGROUND;
    const look = { fill, isBold: cell.isBold() !== 0, isDim: cell.isDim() !== 0 };
    const run = runs.at(-1);
    const isSame = run?.fill === look.fill && run.isBold === look.isBold && run.isDim === look.isDim;
    if (run !== undefined && isSame) run.text += text;
    else runs.push({ column, text, ...look });
  }
  return runs;
}

const escapeXml = (text: string): string => text.replace(/[&<>]/g, (one) => `&#${one.charCodeAt(0)};`);

/** Draws the last screen of a recording as an SVG. */
export async function drawTerminal(recording: TerminalRecording): Promise<string> {
  const screen = await lastScreen(recording);
  const width = Math.round(recording.columns * CELL_WIDTH + 2 * MARGIN);
  const height = TITLE_HEIGHT + screen.length * CELL_HEIGHT + 2 * MARGIN;
  const rows = screen.map((runs, row) => {
    const y = TITLE_HEIGHT + MARGIN + row * CELL_HEIGHT + 13;
    return runs
      .filter(({ text }) => text.trim() !== "")
      .map(({ column, text, fill, isBold, isDim }) => {
        const shown = text.trimEnd();
        const look = `fill="${fill}"${isBold ? ' font-weight="bold"' : ""}${isDim ? ' opacity="0.6"' : ""}`;
        const place = `x="${(MARGIN + column * CELL_WIDTH).toFixed(1)}" y="${y}"`;
        // The length keeps columns aligned, whichever font the reader has.
        return (
          `<text ${place} ${look} ` +
          `textLength="${(shown.length * CELL_WIDTH).toFixed(1)}">${escapeXml(shown)}</text>`
        );
      })
      .join("");
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
      'role="img"',
    ` font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14"`,
    ` xml:space="preserve"><title>${escapeXml(recording.title)}</title>`,
    `<rect width="${width}" height="${height}" rx="8" fill="${BACKGROUND}"/>`,
    `<text x="${width / 2}" y="22" fill="#7f848e" text-anchor="middle">${escapeXml(recording.title)}</text>\n`,
    rows.filter((row) => row !== "").join("\n"),
    "\n</svg>\n",
  ].join("");
}

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: { columns: { type: "string", default: "110" }, rows: { type: "string", default: "30" } },
  });
  const [verb, source = "", target = ""] = positionals;
  if (verb === "record" && target !== "") {
    const size = { columns: Number(values.columns), rows: Number(values.rows) };
    const { recording, status } = await recordTerminal(source, size);
    if (status === 0) writeRecording(target, recording);
    return status;
  }
  if (verb === "draw" && target !== "") {
    writeFileSync(target, await drawTerminal(readRecording(source)));
    return 0;
  }
  console.error("usage: terminal-picture record COMMAND RECORDING.cast | draw RECORDING.cast PICTURE.svg");
  return 2;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = await main(process.argv.slice(2));
