import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { ABOVE_LIMITS, COMMENT_LINES, LEANING_COMMENT, LIMITS, README_LINES, RIDDLES } from "./architecture-rules.ts";
import type { Finding } from "./check-architecture.ts";
import { productionFiles } from "./source-lines.ts";

/** A measured number: the name of its limit, and the folder or file that was measured; empty for the whole source. */
export interface Measure {
  limit: keyof typeof LIMITS;
  of: string;
  number: number;
  /** shown with the finding */
  detail?: string;
}

const IMPORT = /^(?:import|export)\s+(type\s+)?([^;'"]*?)\s*from\s*"(\.[^"]+)";|^import\s*"(\.[^"]+)";/gm;

export interface Imports {
  all: Set<string>;
  /** Files from which the file imports a value, not only types. */
  values: Set<string>;
}

/** Returns findings about limits and missing README.md files. An entry of `above` that can be lowered is a warning. */
export function checkLimits(source: string, above: Readonly<Record<string, number>> = ABOVE_LIMITS): Finding[] {
  const findings: Finding[] = [];
  const measures = measuresOf(source);
  for (const { limit, of, number, detail } of measures) {
    const most = above[keyOf(limit, of)] ?? LIMITS[limit];
    if (number <= most) continue;
    findings.push({
      severity: "error",
      file: of,
      message: `${number} ${limit}, at most ${most}${detail === undefined ? "" : `: ${detail}`}`,
    });
  }
  const numbers = new Map(measures.map(({ limit, of, number }) => [keyOf(limit, of), number]));
  for (const [key, most] of Object.entries(above)) {
    const number = numbers.get(key) ?? 0;
    if (number < most)
      findings.push({
        severity: "warning",
        file: "",
        message: `${key}: ${number} now, lower ABOVE_LIMITS from ${most}`,
      });
  }
  return [...findings, ...readmeFindings(source)];
}

function keyOf(limit: string, of: string): string {
  return of === "" ? limit : `${limit}: ${of}`;
}

/** Returns every number below `source` that has a limit. */
export function measuresOf(source: string): Measure[] {
  const files = productionFiles(source);
  const imports = new Map(files.map((file) => [file, importsOf(source, file)]));
  const folders = Map.groupBy(files, (file) => path.posix.dirname(file));
  const chain = longestChain(imports);
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
    { limit: "doc comments that do not stand alone", of: "", ...leaningComments(source, files) },
    ...riddles(source, files),
  ];
}

export function importsOf(source: string, file: string): Imports {
  const all = new Set<string>();
  const values = new Set<string>();
  for (const [, isType, names = "", from, alone] of readFileSync(path.join(source, file), "utf8").matchAll(IMPORT)) {
    const imported = path.posix.join(path.posix.dirname(file), from ?? alone ?? "");
    all.add(imported);
    const listed = /^\{([^}]*)\}$/.exec(names.trim())?.[1]?.split(",") ?? null;
    const isErased = isType !== undefined || listed?.every((name) => /^\s*(?:type\s|$)/.test(name));
    if (isErased !== true) values.add(imported);
  }
  return { all, values };
}

/** Returns the longest chain of imports, which ends at a file without imports. The imports have no cycles. */
function longestChain(imports: ReadonlyMap<string, Imports>): string[] {
  const known = new Map<string, string[]>();
  const from = (file: string): string[] => {
    const before = known.get(file);
    if (before !== undefined) return before;
    known.set(file, [file]);
    let rest: string[] = [];
    for (const next of imports.get(file)?.values ?? []) {
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
  const rooms = Map.groupBy(files, (file) => (file.includes("/") ? file.slice(0, file.indexOf("/")) : ""));
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

function readmeFindings(source: string): Finding[] {
  const folders = new Set(productionFiles(source).map((file) => path.posix.dirname(file)));
  folders.delete(".");
  return [...folders].flatMap((folder): Finding[] => {
    const readme = path.join(source, folder, "README.md");
    if (!existsSync(readme))
      return [
        { severity: "error", file: `${folder}/`, message: "no README.md: what it owns, its doors, what it never does" },
      ];
    const lines = readFileSync(readme, "utf8").trimEnd().split("\n").length;
    if (lines <= README_LINES) return [];
    return [{ severity: "error", file: `${folder}/README.md`, message: `${lines} lines, at most ${README_LINES}` }];
  });
}
