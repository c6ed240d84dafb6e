import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import {
  ADAPTERS,
  FILE_LINES,
  FORBIDDEN_FOLDERS,
  type Layer,
  LAYERS,
  PACKAGE_HOMES,
  FORBIDDEN_WORDS,
  WEB_LAYERS,
} from "./architecture-rules.ts";
import { checkDoors } from "./check-doors.ts";
import { checkLayers } from "./check-layers.ts";
import { checkNames } from "./check-names.ts";
import { isTest } from "./source-files.ts";

/**
 * Checks the structure of a src/ folder: layers, cycles, lengths, names; check-limits.ts has the figures. Function length is
 * oxlint's job (`max-lines-per-function`).
 */

export interface Finding {
  severity: "error" | "warning";
  /** Path below src/, with `/`. */
  file: string;
  message: string;
}

interface SourceFile {
  file: string;
  lines: number;
  /** Paths below src/. */
  imports: string[];
  /** Those of `imports` that are loaded with the file. */
  eager: string[];
  /** Files started as workers. They count for layers, but not for cycles, because a worker loads on its own. */
  workers: string[];
  packages: string[];
  /** Forbidden words that the file has. */
  impurities: string[];
}

/** Ending of the file with a verb's function. */
const RUN = ".run.ts";

const IMPORT =
  /^\s*(?:import|export)\b[^;'"()]*?\bfrom\s*["']([^"']+)["']|^\s*import\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)|new URL\(\s*["'](\.[^"']+\.ts)["']/gm;

/** Returns every finding about the files below `source`, errors first. */
export function checkArchitecture(source: string, layers: readonly Layer[] = LAYERS): Finding[] {
  const findings: Finding[] = [];
  const files = readTree(source, findings);
  for (const file of files.values()) {
    checkLength(file, findings);
    if (!isTest(file.file)) checkImports(file, files, layers, findings);
  }
  findings.push(...cycles(files));
  return findings.toSorted((a, b) => a.severity.localeCompare(b.severity) || a.file.localeCompare(b.file));
}

function readTree(source: string, findings: Finding[]): Map<string, SourceFile> {
  const files = new Map<string, SourceFile>();
  const folders = [""];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    const entries = readdirSync(path.join(source, folder), { withFileTypes: true });
    if (entries.length === 0) {
      findings.push({
        severity: "error",
        file: `${folder}/`,
        message: "an empty folder: it appears with its first real content",
      });
    }
    for (const entry of entries) {
      const file = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) {
        folders.push(file);
        if (FORBIDDEN_FOLDERS.includes(entry.name)) {
          findings.push({
            severity: "error",
            file: `${file}/`,
            message: `a folder called ${entry.name} says nothing: name it after what it does`,
          });
        }
      } else if (/\.tsx?$/.test(entry.name)) {
        files.set(file, readSource(source, file));
        if (FORBIDDEN_FOLDERS.includes(entry.name.replace(/(\.test)?\.tsx?$/, ""))) {
          findings.push({
            severity: "error",
            file,
            message: "this name says nothing: name the file after what it does",
          });
        }
      }
    }
  }
  return files;
}

function readSource(source: string, file: string): SourceFile {
  const text = readFileSync(path.join(source, file), "utf8");
  const imports: string[] = [];
  const eager: string[] = [];
  const workers: string[] = [];
  const packages: string[] = [];
  for (const match of withoutComments(text).matchAll(IMPORT)) {
    const specifier = match[1] ?? match[2] ?? match[3] ?? match[4] ?? "";
    if (match[4] !== undefined) workers.push(path.posix.join(path.posix.dirname(file), specifier));
    else if (specifier.startsWith(".")) {
      imports.push(path.posix.join(path.posix.dirname(file), specifier));
      if (match[3] === undefined) eager.push(imports.at(-1)!);
    } else if (!specifier.startsWith("node:"))
      packages.push(
        specifier
          .split("/")
          .slice(0, specifier.startsWith("@") ? 2 : 1)
          .join("/"),
      );
  }
  if (/createRequire\([^)]*\)\(["']koffi["']\)/.test(text)) packages.push("koffi");
  const lines = text.split("\n").length - 1;
  return { file, lines, imports, eager, workers, packages, impurities: impurities(file, text) };
}

function impurities(file: string, text: string): string[] {
  return FORBIDDEN_WORDS.filter((rule) => rule.files.test(file)).flatMap((rule) => {
    const found = rule.forbidden.exec(withoutComments(text))?.[0];
    return found === undefined ? [] : [`${found}: ${rule.reason}`];
  });
}

/** Removes comments. Parses no strings, because no import of this source hides in a string or regular expression. */
function withoutComments(text: string): string {
  return text.replaceAll(/^\s*\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
}

function checkLength({ file, lines }: SourceFile, findings: Finding[]): void {
  if (lines <= FILE_LINES) return;
  findings.push({
    severity: "error",
    file,
    message: `${lines} lines: ${FILE_LINES} is the end, split it by what it does`,
  });
}

function checkImports(
  source: SourceFile,
  files: ReadonlyMap<string, SourceFile>,
  layers: readonly Layer[],
  findings: Finding[],
): void {
  const { file } = source;
  const error = (message: string): void => void findings.push({ severity: "error", file, message });
  const from = layerOf(file);
  const layer = layers.find((candidate) => candidate.name === from);
  if (layer === undefined) error(`${from} is no layer of tools/architecture-rules.ts`);
  for (const impurity of source.impurities) error(`may not use ${impurity}`);
  for (const imported of [...source.imports, ...source.workers]) {
    const to = layerOf(imported);
    if (imported.startsWith("..")) error(`imports ${imported}, which lies outside src/`);
    else if (isTest(imported)) error(`imports the test file ${imported}`);
    else if (!files.has(imported) && /\.tsx?$/.test(imported)) error(`imports ${imported}, which is not there`);
    else if (layer !== undefined && to !== from && !layer.may.includes(to)) {
      error(`${from} may not import ${to} (${imported}): ${layer.reason}`);
    }
    if (imported.endsWith(RUN)) {
      if (imported !== file.replace(/\.ts$/, RUN))
        error(`imports ${imported}, which only the verb's file beside it may`);
      else if (source.eager.includes(imported)) error(`imports ${imported} before the verb is called`);
    }
    for (const adapter of ADAPTERS) {
      if (adapter.files.test(imported) && !adapter.home.test(file) && !adapter.users.test(file)) {
        error(`names the adapter ${imported}, which only compose.ts may: ${adapter.reason}`);
      }
    }
  }
  for (const name of source.packages) {
    const rule = PACKAGE_HOMES.find((candidate) => candidate.name === name);
    if (rule !== undefined && !rule.home.test(file)) error(`may not import ${name}: ${rule.reason}`);
  }
}

function layerOf(file: string): string {
  return file.split("/")[0] ?? file;
}

/** Returns one finding per group of files that import each other, by Tarjan's algorithm. */
function cycles(files: ReadonlyMap<string, SourceFile>): Finding[] {
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const findings: Finding[] = [];
  const visit = (file: string): void => {
    order.set(file, order.size);
    low.set(file, order.get(file) ?? 0);
    stack.push(file);
    for (const next of files.get(file)?.imports ?? []) {
      // A verb loads its function when it is called, and the function has the verb's types.
      if (!files.has(next) || (file.endsWith(RUN) && next === file.replace(RUN, ".ts"))) continue;
      if (!order.has(next)) visit(next);
      else if (!stack.includes(next)) continue;
      low.set(file, Math.min(low.get(file) ?? 0, low.get(next) ?? 0));
    }
    if (low.get(file) !== order.get(file)) return;
    const group = stack.splice(stack.indexOf(file));
    if (group.length > 1) {
      findings.push({ severity: "error", file, message: `import cycle: ${group.join(" → ")} → ${file}` });
    }
  };
  for (const file of files.keys()) if (!order.has(file)) visit(file);
  return findings;
}

if (import.meta.main) {
  const quiet = process.argv.includes("--quiet");
  const root = path.resolve(import.meta.dirname, "..");
  const source = path.join(root, "src");
  const web = path.join(root, "web/src");
  const of = (folder: string, findings: readonly Finding[]): Finding[] =>
    findings.map((finding) => ({ ...finding, file: path.posix.join(folder, finding.file) }));
  const findings = [
    ...of("src", [...checkArchitecture(source), ...checkLayers(source), ...checkDoors(source), ...checkNames(root)]),
    ...of("web/src", [...checkArchitecture(web, WEB_LAYERS), ...checkLayers(web)]),
  ];
  for (const finding of findings) {
    if (quiet && finding.severity === "warning") continue;
    console.log(`${finding.severity}: ${finding.file}: ${finding.message}`);
  }
  if (findings.some((finding) => finding.severity === "error")) process.exitCode = 1;
}
