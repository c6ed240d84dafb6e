import { existsSync, globSync, readFileSync } from "node:fs";
import path from "node:path";
import { isLong } from "./tiers.ts";

/** A fault of tools/planted. The first lines of its patch are `promise:`, `fault:`, `kind:` and, if its author saw no test, `blind: true`. */
export interface Planted {
  name: string;
  promise: string;
  fault: string;
  kind: string;
  blind: boolean;
  /** Changed files, as paths from the repository's root. */
  files: string[];
}

/** `ok`: unit files, which `npm run ok` runs. `short`: `npm test`. `all`: the long tier, too. */
export type Tier = "ok" | "short" | "all";

/** The first file that failed. `seconds` and `spent`: processor seconds of this file, and of all files that ran. */
export interface Seen {
  tier: Tier;
  file: string;
  seconds: number;
  spent: number;
}

/** The content of tools/planted/results.json. `null`: nothing saw the fault. */
export interface Results {
  seen: Record<string, Seen | null>;
}

/**
 * The content of tools/planted/reach.json: by fault, the cheapest unit files that run a line that the fault changes, those beside
 * it first. All of them passed without the fault.
 */
export type Reach = Readonly<Record<string, readonly string[]>>;

/** Returns the faults of a folder of patches, sorted by name. Throws if the first lines of a patch are incomplete. */
export function readPlanted(folder: string): Planted[] {
  return globSync("*.patch", { cwd: folder })
    .toSorted()
    .map((file) => parsePatch(path.basename(file, ".patch"), readFileSync(path.join(folder, file), "utf8")));
}

/** Returns the fault that the text of a patch describes. Throws if `promise`, `fault` or `kind` is missing. */
export function parsePatch(name: string, text: string): Planted {
  const head = text.split(/^--- /m, 1)[0]!;
  const field = (key: string): string | undefined => new RegExp(`^${key}: (.+)$`, "m").exec(head)?.[1];
  const [promise, fault, kind] = [field("promise"), field("fault"), field("kind")];
  if (promise === undefined || fault === undefined || kind === undefined)
    throw new Error(`tools/planted/${name}.patch must begin with the lines \`promise:\`, \`fault:\` and \`kind:\``);
  const files = [...text.matchAll(/^\+\+\+ b\/(\S+)/gm)].map(([, file]) => file!);
  return { name, promise, fault, kind, blind: field("blind") === "true", files };
}

export function tierOf(file: string): Tier {
  if (isLong(file)) return "all";
  return file.endsWith(".flow.test.ts") ? "short" : "ok";
}

const IMPORT = /^(?:import|export)\b[^;'"]*?from\s*"(\.[^"]+)";|^import\s*"(\.[^"]+)";|\bimport\(\s*"(\.[^"]+)"\s*\)/gm;

/** Returns the files that `file` imports from, as paths from `root`. */
function importsOf(root: string, file: string): string[] {
  const text = readFileSync(path.join(root, file), "utf8");
  return [...text.matchAll(IMPORT)]
    .map((match) => path.join(path.dirname(file), (match[1] ?? match[2] ?? match[3])!))
    .filter((target) => existsSync(path.join(root, target)));
}

const known = new Map<string, Map<string, string[]>>();

/** Returns the files that import a file, by the file. Reads all files once. */
function importersIn(root: string): Map<string, string[]> {
  const importers = known.get(root) ?? new Map<string, string[]>();
  if (known.has(root)) return importers;
  known.set(root, importers);
  for (const file of globSync("{src,test,tools,web/src}/**/*.{ts,tsx}", { cwd: root, exclude: ["**/node_modules/**"] }))
    for (const target of importsOf(root, file)) importers.set(target, [...(importers.get(target) ?? []), file]);
  return importers;
}

/** Returns each file that reaches one of `targets` by imports, with the number of imports in between. */
function distances(root: string, targets: readonly string[]): Map<string, number> {
  const importers = importersIn(root);
  const found = new Map(targets.map((target) => [target, 0]));
  const queue = [...targets];
  for (let file = queue.shift(); file !== undefined; file = queue.shift())
    for (const importer of importers.get(file) ?? []) {
      if (found.has(importer)) continue;
      found.set(importer, found.get(file)! + 1);
      queue.push(importer);
    }
  return found;
}

/**
 * Returns the test files of `tier` that can see `fault`, in the order in which they run: the file that saw the fault the last
 * time, then the unit files of `reach`, or those that import the changed file, the nearest first. Then flows, and last
 * tests of the command, which reach every file.
 */
export function planOf(
  root: string,
  fault: Planted,
  tier: Tier,
  { seenBy, reach }: { seenBy?: string | undefined; reach?: readonly string[] | undefined } = {},
): string[] {
  const near = distances(root, fault.files);
  const rank: readonly Tier[] = ["ok", "short", "all"];
  const isBeside = (file: string): boolean =>
    fault.files.some((changed) => path.dirname(changed) === path.dirname(file));
  const cost = (file: string): number =>
    rank.indexOf(tierOf(file)) * 1000 + (isBeside(file) ? 0 : 10) + (near.get(file) ?? 500);
  const files = globSync("{src,test,tools,web/src}/**/*.test.ts", { cwd: root, exclude: ["**/node_modules/**"] })
    .filter((file) => (near.has(file) ? tierOf(file) !== "ok" || reach === undefined : file.startsWith("test/")))
    .filter((file) => rank.indexOf(tierOf(file)) <= rank.indexOf(tier))
    .toSorted((a, b) => cost(a) - cost(b) || (a < b ? -1 : 1));
  const all = [...(reach ?? []).filter((file) => existsSync(path.join(root, file))), ...files];
  return seenBy === undefined || !all.includes(seenBy) ? all : [seenBy, ...all.filter((file) => file !== seenBy)];
}

const TIER_NAMES: Readonly<Record<Tier, string>> = {
  ok: "`npm run ok`",
  short: "`npm test`",
  all: "`npm run test:long`",
};

/** Returns docs/proof.md. */
export function proofPage(faults: readonly Planted[], { seen }: Results): string {
  const kinds = Map.groupBy(faults, ({ kind }) => kind);
  const count = (tier: Tier): number => faults.filter(({ name }) => seen[name]?.tier === tier).length;
  const row = (fault: Planted): string => {
    const by = seen[fault.name];
    const file = by
      ? `${TIER_NAMES[by.tier]}: \`${by.file}\`, ${by.seconds} s`
      : by === null
        ? "nothing"
        : "not run yet";
    return `| ${fault.promise} | ${fault.fault}${fault.blind ? " †" : ""} | ${file} |`;
  };
  const sections = [...kinds]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(
      ([kind, some]) =>
        `## ${kind}\n\n| promised | planted fault | what saw it |\n| --- | --- | --- |\n${some.map(row).join("\n")}\n`,
    );
  return `# Proof: what the tests notice

Generated by \`npm run planted -- --record\` from \`tools/planted/\`. Each row is a promise of Cairn, a small fault that breaks it, and the first test file that failed with the fault, with its processor seconds. A † marks a fault whose author had not read the tests.

${faults.length} faults: ${count("ok")} are seen by \`npm run ok\`, ${count("short")} by \`npm test\`, ${count("all")} by \`npm run test:long\`.

${sections.join("\n")}`;
}
