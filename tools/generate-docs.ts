import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { COMMAND_DATA } from "../src/cli/program/command-data.ts";
import { phraseOf } from "../src/contract/schema.ts";
import { CallOptions } from "../src/contract/words.ts";
import { ERROR_TABLE, type ErrorRow } from "../src/errors.ts";
import { LIBRARY_VERBS } from "../src/verbs/index.ts";
import { EARLIER_FORMATS } from "../src/formats/records/unfinished.ts";
import { MACHINE_RESTORE } from "../src/capture/vm/life.ts";
import { CONTEXT_CHANGE } from "../src/context/change.ts";
import { FOLDER_MOVE } from "../src/daemon/move-folder.ts";
import type { Told } from "../src/fs/unfinished.ts";
import { allRecoveries } from "../src/workspace/care/recoveries.ts";
import { RELOCATION } from "../src/workspace/place/move-record.ts";
import { HINT_CASES, NOT_WALKED, type NotWalked } from "../test/hints/cases.ts";
import type { HintCase } from "../test/hints/hint-case.ts";
import { commandsPage, manualPages } from "./command-pages.ts";
import { withDecisions } from "./decisions.ts";
import { declarationOfMethod, named, type Node, TABLES, typeOf } from "./print-declarations.ts";

/**
 * Writes docs/errors.md from the table in src/errors.ts, docs/cli.md and the man pages of package.json from the commands,
 * docs/formats/unfinished-work.md from the lists of recoveries, the decisions in docs/reading-the-source.md from the rooms,
 * docs/api.md, the tables of docs/json.md and the exports of src/index.ts from the verbs; `--check` only compares.
 */

const DOCS = path.resolve(import.meta.dirname, "../docs");

const EXIT_MEANINGS: readonly (readonly [number, string])[] = [
  [0, "done"],
  [1, "internal, or the operating system failed"],
  [2, "usage"],
  [3, "not found"],
  [4, "conflict or stale"],
  [5, "busy"],
  [6, "damage found"],
  [7, "refused for safety"],
  [8, "no space"],
  [9, "permission"],
  [10, "partly done; what was left out is listed"],
  [130, "interrupted"],
];

/** Ids that the walk of the hints takes from the result of an earlier line. */
const shownLines = (lines: string): string =>
  lines
    .replaceAll(/\$\w+_id\b/g, "ID")
    .split("\n")
    .map((each) => `\`${cell(each.trim())}\``)
    .join(", ");

/** A row of docs/errors.md: the command that fails, and the commands that lead back. */
function reasonRow({ reason, fails, follow, where, back }: HintCase): string {
  const filled = Object.entries(where ?? {}).reduce(
    (text, [word, value]) => text.replaceAll(word, value),
    follow ?? "",
  );
  const cure = [filled, back ?? ""].filter((each) => each !== "").map(shownLines);
  return `| ${reason} | ${shownLines(fails)} | ${cure.join(", ")} |`;
}

/** Returns the part of a code's section that shows its reasons. */
function reasonsOf(code: string): string[] {
  const [cases, others] = [HINT_CASES, NOT_WALKED].map((all) => all.filter((each) => each.code === code));
  const rows = (cases as HintCase[]).map(reasonRow);
  const table =
    rows.length === 0 ? [] : ["", "| reason | for example | what leads back |", "| --- | --- | --- |", ...rows];
  const rest = (others as NotWalked[]).map(({ reason, why }) => `- ${reason}: ${why}`);
  return [...table, ...(rest.length === 0 ? [] : ["", "Not walked by a test:", "", ...rest])];
}

/** Returns docs/errors.md, with one anchor per code. */
export function errorPage(table: Readonly<Record<string, ErrorRow>>): string {
  const rows = Object.entries(table);
  const exits = EXIT_MEANINGS.map(([exit, meaning]) => {
    const codes = rows.filter(([, row]) => row.exit === exit).map(([code]) => `[${code}](#${code})`);
    return `| ${exit} | ${meaning} | ${codes.join(", ")} |`;
  });
  const sections = rows.map(([code, row]) => {
    const retry = row.retryable ? "Trying again later may succeed." : "Trying again unchanged fails again.";
    const head = `### ${code}\n\nRaised when: ${row.when}.\n\nExit status ${row.exit}, HTTP status ${row.http}. ${retry}`;
    return `${[head, ...reasonsOf(code)].join("\n")}\n`;
  });
  return [
    "# Errors",
    "",
    "Generated from `src/errors.ts` and `test/hints/` by `npm run docs`; `npm run ok` fails when they differ.",
    "",
    "Every failure has a code, a message (what was tried, on which path, wanted and found), often a hint (what to do), and says",
    "whether trying again may help. With `--json` all of it is in `error` of the printed object, and the exit status is the same.",
    "",
    "| exit status | meaning | codes |",
    "| --- | --- | --- |",
    ...exits,
    "",
    "`ok` is true for 0 and 10.",
    "",
    "Each code has a table of reasons: a command that fails so, and the commands that lead back. A test runs each row in a new home directory and takes the first command out of the printed hint. `ID` stands for an id that an earlier command printed.",
    "",
    "## Codes",
    "",
    sections.join("\n"),
  ].join("\n");
}

/** All work that a kill can interrupt, of every room. */
export const ALL_WORK: readonly Told[] = [...allRecoveries(), CONTEXT_CHANGE, MACHINE_RESTORE, RELOCATION, FOLDER_MOVE];

/** Returns docs/formats/unfinished-work.md: how each kind of work is done, and what a kill leaves. */
export function unfinishedPage(all: readonly Told[]): string {
  const rows = all.map(
    ({ kind, where, before, after }) =>
      `| [${kind}](#${kind}) | ${where} | ${before ?? "nothing was changed"} | ${after ?? "the work is done"} |`,
  );
  const sections = all.flatMap(({ kind, steps }) => [
    `### ${kind}`,
    "",
    ...steps.map((step, at) => `${at + 1}. ${step}`),
    "",
  ]);
  return [
    "# Unfinished work: what happens after a kill",
    "",
    "Generated from the lists of recoveries by `npm run docs`; `npm run ok` fails when the two differ.",
    "",
    "Work that takes more than one step writes a record before it changes anything, and removes the record at its end. The last two kinds have their record in a file that exists anyway. ● marks the commit point. The next command that takes the same lock finds the record of a killed one: work that was killed before ● is taken back, other work is finished. `status` tells it under `recovered`.",
    "",
    'A record is one JSON object with a final newline. `format` is `cairn.unfinished`, `version` 1, `work` the kind of work, `by` the program that wrote it (for example `cairn 0.1.0`). Then come the members of that kind, and last `checksum`: the SHA-256 of all bytes before `,"checksum"`. A long list of decisions lies beside it, in a file that ends in `.steps`. Code: `src/fs/unfinished.ts`, `src/formats/records/unfinished.ts`.',
    "",
    `Points, repositories and states of earlier builds are read. Their unfinished work is not (${EARLIER_FORMATS.join(", ")}, links in a journal): every command that would have to finish it throws \`refused\` and names the record; a restore from a repository only warns. A command of the build that began the work finishes it. \`doctor --repair\` moves such a record in a workspace's journal aside, as it does with a damaged one. A seal that an earlier build began is ignored: it costs only space.`,
    "",
    "| work | record | after a kill before ● the next command | after a kill behind ● the next command |",
    "| --- | --- | --- | --- |",
    ...rows,
    "",
    "## Steps",
    "",
    ...sections,
  ].join("\n");
}

const isObject = (schema: Node): boolean => schema.type === "object";
const cell = (text: string): string => text.replaceAll("|", "\\|").replaceAll("\n", " ");

/** Returns a type as text, with a link to each object that has its own table. */
function linked(schema: Node): string {
  return cell(typeOf(schema).replaceAll(/\/\*\*.*?\*\/\n?/g, "")).replaceAll(/\b[A-Z]\w+/g, (name) => {
    const hasTable = [...named].some(([each, known]) => known === name && isObject(each as Node));
    return hasTable ? `[${name}](#${name.toLowerCase()})` : name;
  });
}

function membersOf(schema: Node): [string, Node][] {
  return Object.entries(schema.entries).map(([name, each]) => [each.type === "optional" ? `${name}?` : name, each]);
}

/** Yields the named objects in a schema, the schema itself first. */
function* objectsIn(schema: Node): Generator<Node> {
  const whole = (schema.original ?? schema) as Node;
  if (isObject(whole)) {
    if (named.has(whole)) yield whole;
    for (const each of Object.values(whole.entries)) yield* objectsIn(each);
  } else if (whole.wrapped !== undefined) yield* objectsIn(whole.wrapped);
  else if (whole.item !== undefined) yield* objectsIn(whole.item);
}

/** Returns the tables of docs/json.md: the output of each command, and the objects in it. */
export function jsonTables(): string {
  const data = Object.entries(COMMAND_DATA) as [string, Node][];
  const rows = data.map(([line, schema]) => {
    const inline = membersOf(schema).map(([name, each]) => `\`${name}\`: ${linked(each)}`);
    return `| \`${line}\` | ${named.has(schema) ? linked(schema) : inline.join("; ")} |`;
  });
  const objects = [...new Set(data.flatMap(([, schema]) => [...objectsIn(schema)]))];
  const sections = objects
    .toSorted((a, b) => (named.get(a)! < named.get(b)! ? -1 : 1))
    .map((schema) => {
      const members = membersOf(schema).map(
        ([name, each]) => `| \`${name}\` | ${linked(each)} | ${cell(phraseOf(each))} |`,
      );
      const about = phraseOf(schema) === "" ? "" : `${phraseOf(schema)}\n\n`;
      return `### ${named.get(schema)}\n\n${about}| key | type | meaning |\n| --- | --- | --- |\n${members.join("\n")}\n`;
    });
  return [
    "## Commands\n",
    "| command | `data` |",
    "| --- | --- |",
    ...rows,
    "",
    "## Objects\n",
    sections.join("\n"),
  ].join("\n");
}

const WHAT_TABLES_ARE: Readonly<Record<string, readonly [heading: string, about: string]>> = {
  CairnLibrary: ["The package", "Functions of `cairnstate`. Paths are absolute, or relative to the current directory."],
  Client: [
    "A client",
    "Given by `open`, `openOrInit` and `init`: one workspace. `close()` resolves when nothing goes on any more. Properties: `repoRoot`, `repoId`, `engineType`, `controlDirectory`, `workspace`, `created`, `engineReasons`, `conversion`.",
  ],
  BackupRepository: [
    "A repository",
    "Given by `openRepository` and `initRepository`. Property: `info`. `close()` ends calls under way on a repository off the machine with `interrupted`.",
  ],
};

/** Links a call's result to its table in docs/json.md, if it has one. */
function resultLink(output: Node): string[] {
  const schema = (output.original ?? output) as Node;
  const name = named.get(schema);
  const hasTable = Object.values(COMMAND_DATA).some((data) => [...objectsIn(data as Node)].includes(schema));
  return hasTable ? [`Returns [${name}](json.md#${name!.toLowerCase()}).`, ""] : [];
}

/** Returns docs/api.md: every call of the library with its options and errors. */
export function apiPage(): string {
  const sections = Object.entries(WHAT_TABLES_ARE).flatMap(([table, [heading, about]]) => [
    `## ${heading}`,
    "",
    about,
    "",
    ...Object.entries(TABLES[table]!).flatMap(([name, verb]) => {
      const ofEvery = Object.values(CallOptions.entries) as unknown as Node[];
      const options = verb.options === null ? [] : membersOf(verb.options as Node);
      const said = options.filter(([, each]) => !ofEvery.includes(each));
      const errors = verb.errors.map((code) => `[${code}](errors.md#${code})`).join(", ");
      return [
        `### ${name}`,
        "",
        verb.about,
        "",
        "```ts",
        declarationOfMethod([name, verb]).trimEnd(),
        "```",
        "",
        ...optionTable(said),
        ...resultLink(verb.output as Node),
        ...(errors === "" ? [] : [`Throws ${errors}.`, ""]),
      ];
    }),
  ]);
  return [
    "# The library",
    "",
    "Made from the contract by `npm run docs`; `npm run ok` fails when the two differ. How a program begins is in [agents.md](agents.md).",
    "",
    "Results are the objects of [json.md](json.md), with the same keys; the package has their types. Every call can throw `usage`, `io` and `interrupted` beside",
    "the codes that it names, always as a `CairnError`: [errors.md](errors.md). An option that is `undefined` counts as absent: a call with `plan: undefined` compares no plan.",
    "",
    "Options that every call takes which has any:",
    "",
    ...optionTable(membersOf(CallOptions as unknown as Node)),
    ...sections,
  ].join("\n");
}

function optionTable(options: readonly [string, Node][]): string[] {
  if (options.length === 0) return [];
  const rows = options.map(([name, each]) => `| \`${name}\` | ${typeCell(each)} | ${cell(phraseOf(each))} |`);
  return ["| option | type | |", "| --- | --- | --- |", ...rows, ""];
}

/** Returns a type without the comments of its members. */
function typeCell(schema: Node): string {
  return `\`${cell(
    typeOf(schema)
      .replaceAll(/\/\*\*.*?\*\/\n?/g, "")
      .replaceAll(/\s+/g, " ")
      .trim(),
  )}\``;
}

const MADE = /<!-- made by `npm run docs` -->\n[^]*<!-- end -->/;

/** Returns docs/json.md with tables made from the contract. */
function jsonPage(): string {
  const page = readFileSync(path.join(DOCS, "json.md"), "utf8");
  return page.replace(MADE, () => `<!-- made by \`npm run docs\` -->\n${jsonTables()}<!-- end -->`);
}

/** Returns the keys that the tables of a page promise, with their command or object: `status: clean`, `SavePoint: tags`. */
export function promisedKeys(page: string): Set<string> {
  const keys = new Set<string>();
  let object: string | undefined;
  for (const line of page.slice(page.search(MADE)).split("\n")) {
    object = /^### (\w+)$/.exec(line)?.[1] ?? object;
    const [, first, rest] = /^\| `([^`]+)` \| (.*)/.exec(line) ?? [];
    if (first === undefined) continue;
    if (object === undefined) for (const [, key] of rest!.matchAll(/`(\w+)\??`: /g)) keys.add(`${first}: ${key}`);
    else keys.add(`${object}: ${first.replace("?", "")}`);
  }
  return keys;
}

/** Returns package.json with each man page by path, because npm links no pages of a folder. */
async function manifest(): Promise<string> {
  const before = JSON.parse(readFileSync(path.join(DOCS, "../package.json"), "utf8")) as object;
  const man = [...(await manualPages()).keys()].toSorted().map((name) => `dist/man/${name}`);
  return `${JSON.stringify({ ...before, man }, null, 2)}\n`;
}

/** Returns src/index.ts with the name of every verb of the library, because a module must name its exports. */
function libraryIndex(): string {
  const source = readFileSync(path.join(DOCS, "../src/index.ts"), "utf8");
  const names = Object.keys(LIBRARY_VERBS).toSorted();
  return source.replace(/(?<=export const \{\n)[^}]*/, () => names.map((name) => `  ${name},\n`).join(""));
}

if (import.meta.main) {
  const isCheck = process.argv.includes("--check");
  const json = jsonPage();
  const lost = [...promisedKeys(readFileSync(path.join(DOCS, "json.md"), "utf8")).difference(promisedKeys(json))];
  if (lost.length > 0) {
    console.log(
      `docs/json.md promises keys that no schema has: ${lost.join(", ")}. Keep them, or delete their rows by hand`,
    );
    process.exit(1);
  }
  const isWanted = ([name, wanted]: readonly [string, string]): boolean => {
    const file = path.join(DOCS, name);
    return existsSync(file) && readFileSync(file, "utf8") === wanted;
  };
  for (const [name, wanted] of [
    ["errors.md", errorPage(ERROR_TABLE)],
    ["formats/unfinished-work.md", unfinishedPage(ALL_WORK)],
    ["json.md", json],
    ["api.md", apiPage()],
    ["cli.md", await commandsPage()],
    [
      "reading-the-source.md",
      withDecisions(path.join(DOCS, ".."), readFileSync(path.join(DOCS, "reading-the-source.md"), "utf8")),
    ],
    ["../package.json", await manifest()],
    ["../src/index.ts", libraryIndex()],
  ] as const) {
    if (!isCheck) {
      writeFileSync(path.join(DOCS, name), wanted);
    } else if (!isWanted([name, wanted])) {
      console.log(`docs/${name} is not what the source says: run \`npm run docs\``);
      process.exitCode = 1;
    }
  }
}
