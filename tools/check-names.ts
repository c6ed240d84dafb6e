import { existsSync, globSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import type { Finding } from "./check-architecture.ts";
import { productionFiles } from "./source-files.ts";

/**
 * Checks the names in the pages that explain the source: each file exists, and each function lies in the file that the
 * same paragraph gives for it. In the row of a table each class, list and number is looked for, too.
 */

/** Pages that lead through the source, as globs from the root. */
const PAGES = ["{src,web}/**/README.md", "docs/reading-the-source.md", "CONTRIBUTING.md"];

const NAMED = /`([^`\n]+)`/g;
const FILE = /^[\w./@-]*\w\.tsx?$/;
/** `name()`, `#name()` or `Class.name()`. */
const CALL = /^(?:(\w+)\.)?(#?\w+)\(\)$/;
/** `ClassName` or `LIST_NAME`. Checked only in rows of tables: elsewhere such a word may be anything. */
const CAPITALS = /^[A-Z]\w{3,}$/;

interface Place {
  at: number;
  /** absolute path of the file */
  file: string;
}

/** Returns findings about the pages below `root`. `file` is a path below its src/, as in the other checks. */
export function checkNames(root: string): Finding[] {
  const exclude = (name: string): boolean => path.basename(name) === "node_modules";
  return globSync(PAGES, { cwd: root, exclude }).flatMap((page) =>
    blocksOf(readFileSync(path.join(root, page), "utf8")).flatMap((block) =>
      checkBlock(root, page, block).map((message): Finding => ({
        severity: "error",
        file: path.posix.relative("src", page),
        message,
      })),
    ),
  );
}

/** Returns the rows of tables, items of lists and paragraphs of a page. */
function blocksOf(text: string): string[] {
  return text.split(/\n(?=\s*\n|\||- |\d+\. )/);
}

function checkBlock(root: string, page: string, block: string): string[] {
  const names = [...block.matchAll(NAMED)].map(({ 1: name = "", index }) => ({ name, at: index }));
  const near = nearFolders(root, page, names);
  const problems: string[] = [];
  const places: Place[] = [];
  for (const { name, at } of names.filter((each) => FILE.test(each.name))) {
    const file = near.map((folder) => path.join(folder, name)).find(isFile);
    if (file === undefined)
      problems.push(`there is no \`${name}\` beside the page or in a folder that is named with it`);
    else places.push({ at, file });
  }
  const isRow = block.startsWith("|");
  for (const { name, at } of names) {
    const [, owner, called] = CALL.exec(name) ?? [];
    const sought = called ?? (isRow && CAPITALS.test(name) ? name : undefined);
    if (sought === undefined) continue;
    const given = places.find((place) => place.at > at) ?? places.at(-1);
    const files = given === undefined ? everyFile(root) : [given.file];
    const isThere = files.some((file) => declares(file, sought) && (owner === undefined || declares(file, owner)));
    const where = given === undefined ? "in no file of src/" : `not in ${path.relative(root, given.file)}`;
    if (!isThere) problems.push(`\`${name}\` is ${where}`);
  }
  return problems;
}

/** Returns the folders in which a block's file may be: the page's own, the root, and the folders that the block names. */
function nearFolders(root: string, page: string, names: readonly { name: string }[]): string[] {
  const own = [path.join(root, path.dirname(page)), root].flatMap((folder) => [folder, path.join(folder, "src")]);
  const named = names.flatMap(({ name }) =>
    own
      .map((folder) => path.join(folder, name))
      .flatMap((place) => (FILE.test(name) ? (isFile(place) ? [path.dirname(place)] : []) : [place]))
      .filter((place) => statSync(place, { throwIfNoEntry: false })?.isDirectory() === true),
  );
  return [...own, ...named];
}

function isFile(place: string): boolean {
  return statSync(place, { throwIfNoEntry: false })?.isFile() === true;
}

function everyFile(root: string): string[] {
  const source = path.join(root, "src");
  return existsSync(source) ? productionFiles(source).map((file) => path.join(source, file)) : [];
}

/** True if `file` declares `name`. A line that ends with `);` is a call, not a member's declaration. */
function declares(file: string, name: string): boolean {
  const declared = `\\b(?:function\\*?|class|const|let|type|interface) ${name}\\b`;
  const member = `^  (?:(?:static|async|get|override|private|protected) )*\\*?${name}[(<](?!.*\\);$)`;
  return new RegExp(`${declared}|${member}`, "m").test(readFileSync(file, "utf8"));
}
