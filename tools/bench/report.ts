import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { median, type Result, shown } from "./result.ts";

/** Writes docs/benchmarks.md and a chart for each measurement from the results of one run. */

const DOCS = path.resolve(import.meta.dirname, "../../docs");
const CHARTS = "benchmarks";

export interface Report {
  results: readonly Result[];
  /** versions and the machine, by name */
  environment: Readonly<Record<string, unknown>>;
}

export function writeReport({ results, environment }: Report): void {
  mkdirSync(path.join(DOCS, CHARTS), { recursive: true });
  for (const result of results) writeFileSync(path.join(DOCS, CHARTS, `${nameOf(result)}.svg`), chart(result));
  const facts = Object.entries(environment).map(([name, value]) => `| ${name} | ${String(value)} |`);
  const page = [
    "# Benchmarks",
    "",
    "Cairn beside other programs on the same data, in one run, by turns; each figure is the median. `npm run bench -- shown --docs` measures all of this anew and writes this page (`tools/install-peers` brings the newest restic and rustic). Ratios are Cairn's figure divided by the other's: below 1 Cairn is faster, or takes less.",
    "",
    "| measured with | |",
    "| --- | --- |",
    ...facts,
    "",
    ...results.flatMap(section),
  ];
  writeFileSync(path.join(DOCS, "benchmarks.md"), `${page.join("\n").trimEnd()}\n`);
}

function nameOf(result: Result): string {
  return result.data === undefined ? result.case : `${result.case}-${result.data}`;
}

function titleOf(result: Result): string {
  return result.data === undefined ? result.case : `${result.case}, ${result.data}`;
}

function section(result: Result): string[] {
  const rows = Object.entries(result.samples).map(([name, samples]) => {
    const [least, most] = [Math.min(...samples), Math.max(...samples)].map((each) => shown(each, result.unit));
    return `| ${name} | ${shown(median(samples), result.unit)} | ${least} … ${most} | ${samples.length} |`;
  });
  const bars = result.bars.map(
    ({ what, value, limit, unit }) =>
      `| ${what} | ${shown(value, unit)} | ${shown(limit, unit)} | ${value <= limit ? "met" : "missed"} |`,
  );
  return [
    `## ${titleOf(result)}`,
    "",
    result.meaning,
    "",
    `![${titleOf(result)}](${CHARTS}/${nameOf(result)}.svg)`,
    "",
    "| | median | range | n |",
    "| --- | --- | --- | --- |",
    ...rows,
    "",
    ...(bars.length === 0 ? [] : ["| bar | measured | at most | |", "| --- | --- | --- | --- |", ...bars, ""]),
    ...result.notes.flatMap((note) => [`Note: ${note}.`, ""]),
  ];
}

const WIDTH = 720;
const NAMES = 220;
const ROW = 26;
const VALUES = 90;

/** A horizontal bar for each contender, Cairn's in colour. */
function chart(result: Result): string {
  const rows = Object.entries(result.samples).map(([name, samples]) => ({ name, value: median(samples) }));
  const most = Math.max(...rows.map(({ value }) => value));
  const height = rows.length * ROW + 12;
  const lines = rows.map(({ name, value }, i) => {
    const y = 6 + i * ROW;
    const width = Math.max(1, Math.round(((WIDTH - NAMES - VALUES) * value) / most));
    const colour = name.startsWith("cairn") ? "#2f6f4f" : "#9aa5ad";
    return [
      `<text x="${NAMES - 10}" y="${y + 16}" text-anchor="end">${name}</text>`,
      `<rect x="${NAMES}" y="${y + 3}" width="${width}" height="${ROW - 8}" rx="2" fill="${colour}"/>`,
      `<text x="${NAMES + width + 8}" y="${y + 16}">${shown(value, result.unit)}</text>`,
    ].join("\n");
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${titleOf(result)}">
<rect width="100%" height="100%" fill="#ffffff"/>
<g font-family="system-ui, sans-serif" font-size="13" fill="#24292f">
${lines.join("\n")}
</g>
</svg>
`;
}
