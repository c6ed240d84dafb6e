import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { parseSync } from "vite";
import { COMMENT_LINES, LEANING_COMMENT, LIMITS, README_LINES, RIDDLES } from "./architecture-rules.ts";
import type { Finding } from "./check-architecture.ts";
import { changesOf, figureOf, firstRecord, limitOf, type Measure, type Recorded, recordOf } from "./limits.ts";
import { withoutDecisions } from "./decisions.ts";
import { productionFiles, roomOf } from "./source-files.ts";
import { tripMeasures } from "./trips.ts";

/**
 * Compares the size of the source with tools/limits.json. `--print`: prints all figures with their limits; `--write`: lowers
 * the limits of figures that fell; `--write "REASON"`: raises the others, too.
 */

const ROOT = path.resolve(import.meta.dirname, "..");
const RECORDED = path.join(ROOT, "tools/limits.json");

const IMPORT = /^(?:import|export)\s+(type\s+)?([^;'"]*?)\s*from\s*"(\.[^"]+)";|^import\s*"(\.[^"]+)";/gm;
const LAZY = /\bimport\(\s*"(\.[^"]+)"\s*\)/g;

export interface Imports {
  all: Set<string>;
  /** Files from which the file imports a value, not only types. */
  values: Set<string>;
  /** Files that the file imports when it needs them. */
  lazy: Set<string>;
}

/** Returns every figure of the source below `source` that is compared with a limit. */
export function measuresOf(source: string): Measure[] {
  const files = productionFiles(source);
  const imports = new Map(files.map((file) => [file, importsOf(source, file)]));
  const folders = Map.groupBy(files, (file) => path.posix.dirname(file));
  const chain = longestChain(imports, ({ values }) => [...values]);
  const lazyChain = longestChain(imports, ({ values, lazy }) => [...values, ...lazy]);
  return [
    ...[...folders].map(([of, inside]): Measure => ({
      limit: "files in a folder",
      of: of === "." ? "" : of,
      number: inside.length,
    })),
    ...[...imports].map(([of, { all }]): Measure => ({ limit: "files that one file imports", of, number: all.size })),
    {
      limit: "files in the longest chain of value imports",
      of: "",
      number: chain.length,
      detail: chain.join(" → "),
    },
    {
      limit: "files in the longest chain of imports, lazy ones too",
      of: "",
      number: lazyChain.length,
      detail: lazyChain.join(" → "),
    },
    ...byRoom("files that other rooms import", importedByOthers(imports), () => 1),
    { limit: "doc comments that do not stand alone", of: "", ...leaningComments(source, files) },
    ...riddles(source, files),
  ];
}

/** Returns production lines and nodes of the syntax tree of src/, web/ and packages/ below `root`. */
export function sizeMeasures(root: string): Measure[] {
  const files = ["src", "web", "packages"].flatMap((top) => {
    const folder = path.join(root, top);
    const inside = existsSync(folder) ? productionFiles(folder) : [];
    return inside.map((file) => ({
      name: top === "src" ? file : path.posix.join(top, file),
      text: readFileSync(path.join(folder, file), "utf8"),
    }));
  });
  const sizes = new Map(files.map(({ name, text }) => [name, { lines: linesIn(text), nodes: nodesIn(name, text) }]));
  return [
    ...byRoom("production lines", sizes.keys(), (name) => sizes.get(name)!.lines),
    ...byRoom("AST nodes", sizes.keys(), (name) => sizes.get(name)!.nodes),
  ];
}

function linesIn(text: string): number {
  return text.split("\n").length - 1;
}

function nodesIn(name: string, text: string): number {
  let count = 0;
  const visit = (value: unknown): void => {
    if (value === null || typeof value !== "object") return;
    if ("type" in value && typeof value.type === "string") count += 1;
    for (const member of Object.values(value)) visit(member);
  };
  visit(parseSync(name, text).program);
  return count;
}

/** Returns one measure of all files, and one of each room. */
function byRoom(limit: string, files: Iterable<string>, numberOf: (file: string) => number): Measure[] {
  const rooms = Map.groupBy(files, roomOf);
  const sums = [...rooms].map(([of, inside]) => ({
    limit,
    of,
    number: inside.reduce((sum, file) => sum + numberOf(file), 0),
  }));
  const all = sums.reduce((sum, { number }) => sum + number, 0);
  return [{ limit, of: "", number: all }, ...sums.toSorted((a, b) => (a.of < b.of ? -1 : 1))];
}

/** Returns the files of rooms that a file of another room, or one without a room, imports. */
function importedByOthers(imports: ReadonlyMap<string, Imports>): Set<string> {
  const found = new Set<string>();
  for (const [file, { all, lazy }] of imports)
    for (const other of [...all, ...lazy])
      if (imports.has(other) && roomOf(other) !== "top" && roomOf(other) !== roomOf(file)) found.add(other);
  return found;
}

/** Returns the files that `file` imports, as paths below `source`. */
export function importsOf(source: string, file: string): Imports {
  const all = new Set<string>();
  const values = new Set<string>();
  const text = readFileSync(path.join(source, file), "utf8");
  const resolve = (specifier = ""): string => path.posix.join(path.posix.dirname(file), specifier);
  for (const [, isType, names = "", from, alone] of text.matchAll(IMPORT)) {
    const imported = resolve(from ?? alone);
    all.add(imported);
    const listed = /^\{([^}]*)\}$/.exec(names.trim())?.[1]?.split(",") ?? null;
    const isErased = isType !== undefined || listed?.every((name) => /^\s*(?:type\s|$)/.test(name));
    if (isErased !== true) values.add(imported);
  }
  return { all, values, lazy: new Set([...text.matchAll(LAZY)].map(([, from]) => resolve(from))) };
}

/** Returns the longest chain of imports, which ends at a file without imports. The imports have no cycles. */
function longestChain(imports: ReadonlyMap<string, Imports>, followed: (of: Imports) => readonly string[]): string[] {
  const known = new Map<string, string[]>();
  const from = (file: string): string[] => {
    const before = known.get(file);
    if (before !== undefined) return before;
    known.set(file, [file]);
    let rest: string[] = [];
    for (const next of followed(imports.get(file)!)) {
      const chain = imports.has(next) ? from(next) : [];
      if (chain.length > rest.length) rest = chain;
    }
    const chain = [file, ...rest];
    known.set(file, chain);
    return chain;
  };
  return [...imports.keys()]
    .map(from)
    .reduce((longest, chain) => (chain.length > longest.length ? chain : longest), []);
}

function leaningComments(source: string, files: readonly string[]): { number: number; detail: string } {
  const found: string[] = [];
  for (const file of files) {
    const text = readFileSync(path.join(source, file), "utf8");
    for (const match of text.matchAll(/^[ \t]*\/\*\*([\s\S]*?)\*\//gm)) {
      const lines = match[1]!.split("\n").map((line) => line.replace(/^\s*\*?\s?/, "").trim());
      const said = lines.filter((line) => line !== "");
      const isList = said.some((line) => /^(?:[-|]|@)/.test(line));
      if (LEANING_COMMENT.test(said[0] ?? "") || (said.length > COMMENT_LINES && !isList))
        found.push(`${file}:${text.slice(0, match.index).split("\n").length}`);
    }
  }
  return { number: found.length, detail: found.slice(0, 20).join(", ") };
}

/** Counts the comments of each room that have {@link RIDDLES}. Adjacent lines of `//` are one comment. */
function riddles(source: string, files: readonly string[]): Measure[] {
  const rooms = Map.groupBy(files, roomOf);
  return [...rooms].flatMap(([of, inside]) => {
    const comments = inside.flatMap((file) => {
      const text = readFileSync(path.join(source, file), "utf8");
      return [...text.matchAll(/\/\*\*([^]*?)\*\/|((?:^[ \t]*\/\/.*\n)+)|[ \t]\/\/ (.*)/gm)].map((match) => ({
        at: `${file}:${text.slice(0, match.index).split("\n").length}`,
        said: (match[1] ?? match[2] ?? match[3])!.replaceAll(/\s*\n\s*(?:\*|\/\/)?\s*|^\s*\/\/\s*/g, " ").trim(),
      }));
    });
    return RIDDLES.map(({ limit, words }): Measure => {
      const found = comments.filter(({ said }) => words.test(said)).map(({ at }) => at);
      return { limit, of, number: found.length, detail: found.slice(0, 20).join(", ") };
    });
  });
}

/** Returns findings about missing and long README.md files. */
export function readmeFindings(source: string): Finding[] {
  const folders = new Set(productionFiles(source).map((file) => path.posix.dirname(file)));
  folders.delete(".");
  return [...folders].flatMap((folder): Finding[] => {
    const readme = path.join(source, folder, "README.md");
    if (!existsSync(readme))
      return [
        { severity: "error", file: `${folder}/`, message: "no README.md: what it owns, its doors, what it never does" },
      ];
    const lines = withoutDecisions(readFileSync(readme, "utf8")).split("\n").length;
    if (lines <= README_LINES) return [];
    return [{ severity: "error", file: `${folder}/README.md`, message: `${lines} lines, at most ${README_LINES}` }];
  });
}

/** Returns errors about figures that grew, and warnings about those that fell. */
export function limitFindings(measures: readonly Measure[], recorded: Recorded): Finding[] {
  const { grown, fallen } = changesOf(measures, recorded, LIMITS);
  const nameless = recorded.raised.filter(({ reason }) => reason.trim().split(/\s+/).length < 3);
  return [
    ...nameless.map(({ to }): Finding => ({
      severity: "error",
      file: "",
      message: `tools/limits.json raises ${Object.keys(to).join(", ")} without a reason`,
    })),
    ...grown.map(({ figure, number, limit, detail }): Finding => ({
      severity: "error",
      file: "",
      message: `${figure}: ${number}, at most ${limit ?? 0}${detail === undefined ? "" : `: ${detail}`}`,
    })),
    ...fallen.map(({ figure, number, limit }): Finding => ({
      severity: "warning",
      file: "",
      message: `${figure}: ${number} now, lower it from ${limit}: node tools/check-limits.ts --write`,
    })),
  ];
}

function write(recorded: Recorded): Recorded {
  writeFileSync(RECORDED, `${JSON.stringify(recorded, null, 2)}\n`);
  return recorded;
}

function main(): void {
  const { values, positionals } = parseArgs({
    options: { print: { type: "boolean" }, write: { type: "boolean" } },
    allowPositionals: true,
  });
  const source = path.join(ROOT, "src");
  const measures = [...sizeMeasures(ROOT), ...measuresOf(source), ...tripMeasures()];
  let recorded = existsSync(RECORDED)
    ? (JSON.parse(readFileSync(RECORDED, "utf8")) as Recorded)
    : write(firstRecord(measures, LIMITS));
  if (values.write === true)
    recorded = write(recordOf(recorded, changesOf(measures, recorded, LIMITS), LIMITS, positionals[0] ?? null));
  if (values.print === true)
    for (const measure of measures.filter(({ limit }) => !(limit in LIMITS)))
      console.log(`${figureOf(measure)}: ${measure.number} (limit ${limitOf(measure, recorded, LIMITS) ?? "none"})`);
  const findings = [...limitFindings(measures, recorded), ...readmeFindings(source)];
  for (const { severity, file, message } of findings)
    console.log(`${severity}: ${file === "" ? "" : `src/${file}: `}${message}`);
  if (!findings.some(({ severity }) => severity === "error")) {
    const of = (limit: string, what = ""): number =>
      measures.find((measure) => measure.limit === limit && measure.of === what)!.number;
    console.log(
      `${of("production lines")} production lines, ${of("AST nodes")} AST nodes, ${of("files that other rooms import")} files that other rooms import; a save enters ${of("files entered", "save")} files`,
    );
    return;
  }
  console.log('Make them smaller, or give the reason: tools/with-node node tools/check-limits.ts --write "REASON"');
  process.exitCode = 1;
}

if (import.meta.main) main();
