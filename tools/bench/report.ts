import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { median, type Result, shown } from "./result.ts";

/** Writes docs/benchmarks.md, a chart for each measurement, and the one chart of the README, from the results of one run. */

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
  writeFileSync(path.join(DOCS, CHARTS, "overview.svg"), overview(results));
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
    `![Cairn beside its peers, with a real source tree](${CHARTS}/overview.svg)`,
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

/** Returns a chart with a horizontal bar for each contender, Cairn's in colour. */
function chart(result: Result): string {
  const rows = rowsOf(result);
  const most = Math.max(...rows.map(({ value }) => value));
  return picture(
    titleOf(result),
    rows.length * ROW + 12,
    rows.flatMap((row, i) => bar(row, { y: 6 + i * ROW, most, unit: result.unit })),
  );
}

const OVERVIEW = {
  "first-save": "first save",
  unchanged: "nothing changed",
  verify: "verify all bytes",
  "full-restore": "restore all",
};
const GAP = 10;

/** Returns a chart of Cairn and its newest peers with a real source tree, all bars on one scale. */
export function overview(results: readonly Result[]): string {
  const groups = Object.entries(OVERVIEW).flatMap(([name, title]) => {
    const result = results.find((each) => each.case === name && each.data === "tree");
    // Peers that have no number are an older build of one that has.
    const rows = result === undefined ? [] : rowsOf(result).filter((row) => /^cairn$|\d/.test(row.name));
    return result === undefined ? [] : [{ title, rows, unit: result.unit }];
  });
  const most = Math.max(...groups.flatMap(({ rows }) => rows.map(({ value }) => value)));
  let y = 6;
  const lines = groups.flatMap(({ title, rows, unit }) => {
    const heading = `<text x="10" y="${y + 16}" font-weight="600">${title}</text>`;
    const bars = rows.flatMap((row, i) => bar(row, { y: y + i * ROW, most, unit }));
    y += rows.length * ROW + GAP;
    return [heading, ...bars];
  });
  return picture("seconds with a real source tree, less is better", y + 6, lines);
}

interface Row {
  readonly name: string;
  readonly value: number;
}

function rowsOf({ samples }: Result): Row[] {
  return Object.entries(samples).map(([name, each]) => ({ name, value: median(each) }));
}

/** `most`: the value of the longest bar. */
function bar({ name, value }: Row, { y, most, unit }: { y: number; most: number; unit: Result["unit"] }): string[] {
  const width = Math.max(1, Math.round(((WIDTH - NAMES - VALUES) * value) / most));
  const colour = name.startsWith("cairn") ? "#2f6f4f" : "#9aa5ad";
  return [
    `<text x="${NAMES - 10}" y="${y + 16}" text-anchor="end">${name}</text>`,
    `<rect x="${NAMES}" y="${y + 3}" width="${width}" height="${ROW - 8}" rx="2" fill="${colour}"/>`,
    `<text x="${NAMES + width + 8}" y="${y + 16}">${shown(value, unit)}</text>`,
  ];
}

function picture(label: string, height: number, lines: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${label}">
<rect width="100%" height="100%" fill="#ffffff"/>
<g font-family="system-ui, sans-serif" font-size="13" fill="#24292f">
${lines.join("\n")}
</g>
</svg>
`;
}
