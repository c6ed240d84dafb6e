import { copyFileSync, type Dirent, lstatSync, mkdirSync, realpathSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { advice, CairnError, option, toCairnError } from "../errors.ts";
import { folderOf } from "../formats/bytes.ts";
import { IGNORE_FILE, IgnoreRules } from "../fs/ignore.ts";
import { readRegular } from "../fs/regular-file.ts";
import { isAtOrBelow, printablePath } from "../fs/paths/safe-path.ts";
import { SECRET_PATTERNS } from "../fs/secret-names.ts";
import { rowOf, type StagedRow, stageRecords } from "./staged-records.ts";
import type { ContextStore, StoreCall } from "./store.ts";
import { ABSTRACT, childrenOf, entriesOf, entryAt, factsAt, fileOf, levelOf, type TreeEntry, treeOf } from "./tree.ts";
import { invalidUri, isControlName, joined, noSuch, parseUri, toUri } from "./uri.ts";

/** Adds, lists, reads and removes files of a context store. */

export interface AddOptions extends StoreCall {
  /** A file or a folder; or the bytes of a file. */
  from: string | Buffer;
  /** False: throws `already_exists` if an entry exists at the URI. */
  overwrite?: boolean | undefined;
  /** Short text of a directory, which becomes its level 0. */
  abstract?: string | undefined;
}

export interface Added {
  uri: string;
  files: number;
  directories: number;
  bytes: number;
  left_out: LeftOut[];
}

/** An entry of a folder that was not added, with everything below it. */
interface LeftOut {
  /** Relative to the folder. */
  path: string;
  /** `rule`: by its name or a `.cairnignore` file; `special`: a link, pipe, socket or device. */
  reason: "rule" | "special";
}

/** Left out of a folder: data of version control and package managers, and files whose names suggest credentials. */
const NEVER_ADDED = [".git", ".hg", ".svn", ".jj", "node_modules", ...SECRET_PATTERNS];

/** Puts a file or a folder's content at a place, completely or not at all. */
export async function addFiles(store: ContextStore, uri: string, options: AddOptions): Promise<Added> {
  const { from, overwrite = false, abstract, signal } = options;
  const root = changeable(uri);
  const source = typeof from === "string" ? filesToAdd(from) : null;
  if (typeof from === "string" && isAtOrBelow(store.folder, realpathSync(from)))
    throw new CairnError("usage", `${printablePath(from)} contains the store itself`);
  if (abstract !== undefined && source?.isDirectory !== true)
    throw new CairnError("usage", "only a directory can have an abstract", {
      hint: `to give ${toUri(root)} an abstract, add a folder`,
    });
  return await store.writing(async (changes) => {
    const there = factsAt(store.placeOf(root));
    if (there !== undefined && !overwrite)
      throw new CairnError("already_exists", `${toUri(root)} already exists`, {
        hint: advice`to replace it: ${option("overwrite")}`,
        details: { resource: toUri(root) },
      });
    changes.begin();
    const added: Added = { uri: toUri(root), files: 0, directories: 0, bytes: 0, left_out: [] };
    const rows: StagedRow[] = [];
    const stage = (path: string, write: ((place: string) => void) | null, size: number): void => {
      signal?.throwIfAborted();
      if (isControlName(path)) throw invalidUri(toUri(path), "is a control file");
      parseUri(toUri(path));
      const place = changes.staged(path);
      mkdirSync(write === null ? place : dirname(place), { recursive: true });
      write?.(place);
      added[write === null ? "directories" : "files"]++;
      added.bytes += size;
      const level = write === null ? null : levelOf(path);
      if (level !== null) rows.push(rowOf(level));
    };
    try {
      if (source === null) stage(root, (place) => writeFileSync(place, from), from.length);
      else
        for (const { path, isDirectory, size } of source.entries(added.left_out)) {
          const write = (place: string): void =>
            copyFileSync(path === "" ? (from as string) : join(from as string, path), place);
          stage(joined(root, path), isDirectory ? null : write, size);
        }
      if (abstract !== undefined)
        stage(joined(root, ABSTRACT), (place) => writeFileSync(place, abstract), Buffer.byteLength(abstract));
      await stageRecords(changes, rows);
    } catch (error) {
      changes.discard();
      throw toCairnError(error, `add to ${toUri(root)}`);
    }
    await store.commit({ replaced: there === undefined ? [] : [root], has_records: true });
    return added;
  }, options);
}

interface ToAdd {
  isDirectory: boolean;
  /** Lists the entries to add, and puts the others into `leftOut`. */
  entries: (leftOut: LeftOut[]) => Iterable<TreeEntry>;
}

function filesToAdd(from: string): ToAdd {
  const facts = lstatSync(from, { throwIfNoEntry: false });
  if (facts === undefined) throw new CairnError("not_found", `there is no ${printablePath(from)}`);
  if (facts.isDirectory())
    return { isDirectory: true, entries: (leftOut) => treeOf(from, "", leaverOut(from, leftOut)) };
  if (!facts.isFile()) throw new CairnError("unsupported", `${printablePath(from)} is neither a file nor a folder`);
  return { isDirectory: false, entries: () => [{ path: "", isDirectory: false, size: facts.size, source: "" }] };
}

/** Returns a filter that leaves entries of a folder out, and lists them in `leftOut`. */
function leaverOut(folder: string, leftOut: LeftOut[]): (path: string, entry: Dirent) => boolean {
  const known = new Map<string, IgnoreRules>();
  const rulesIn = (directory: string): IgnoreRules => {
    const found = known.get(directory);
    if (found !== undefined) return found;
    const above = directory === "" ? IgnoreRules.fromExcludes(NEVER_ADDED) : rulesIn(folderOf(directory));
    const file = join(folder, directory, IGNORE_FILE);
    const bytes = factsAt(file)?.isFile() === true ? readRegular(file) : null;
    const rules = IgnoreRules.enterDirectory(above, latin1(directory), bytes);
    known.set(directory, rules);
    return rules;
  };
  return (path, entry) => {
    const isPlain = entry.isFile() || entry.isDirectory();
    const reason = rulesIn(folderOf(path)).ignores(latin1(entry.name), entry.isDirectory())
      ? "rule"
      : isPlain
        ? null
        : "special";
    if (reason !== null) leftOut.push({ path, reason });
    return reason !== null;
  };
}

/** The ignore rules compare bytes. */
function latin1(text: string): string {
  return Buffer.from(text).toString("latin1");
}

/** A changeable path: one below a scope. */
function changeable(uri: string): string {
  const path = parseUri(uri);
  if (!path.includes("/")) throw invalidUri(uri, "is not a path below a scope");
  return path;
}

/** Removes a file or directory, with everything below it. Throws `not_found`. */
export async function removeFiles(
  store: ContextStore,
  uri: string,
  call: StoreCall = {},
): Promise<{ uri: string; files: number }> {
  const root = parseUri(uri);
  return await store.writing(async (changes) => {
    store.placeOf(root);
    const entries = root === "" ? [] : [...treeOf(store.folder, root)];
    // A scope is removed only if it is empty.
    if (entries.length > 1 && !root.includes("/")) throw invalidUri(uri, "is a scope that is not empty");
    if (entries.length === 0) changeable(uri);
    if (entries.length === 0) throw noSuch(root);
    changes.begin();
    await store.commit({ replaced: [root], has_records: false });
    return { uri: toUri(root), files: entries.filter(({ isDirectory }) => !isDirectory).length };
  }, call);
}

export interface Listed {
  uri: string;
  kind: "file" | "directory";
  size: number;
  /** Empty if it has none. */
  abstract: string;
}

/** Lists a directory; `recursive`: everything below it. `all`: also files of levels and other hidden ones. */
export function listFiles(
  store: ContextStore,
  uri: string,
  { recursive = false, all = false }: { recursive?: boolean | undefined; all?: boolean | undefined },
): Listed[] {
  const root = parseUri(uri);
  store.placeOf(root);
  const entries = recursive ? [...entriesOf(store.folder, root)] : [...childrenOf(store.folder, root)];
  if (root !== "" && entries.length === 0) throw noSuch(root);
  const abstracts = new Map<string, string>();
  for (const { path, level, abstract } of store.index.rows(root)) if (level !== 1) abstracts.set(path, abstract);
  const isShown = ({ path }: TreeEntry): boolean => {
    const below = path.slice(root === "" ? 0 : root.length + 1);
    if (path === root) return !entries[0]!.isDirectory;
    return all || !below.split("/").some((name) => name.startsWith("."));
  };
  return entries.filter(isShown).map(({ path, isDirectory, size }) => ({
    uri: toUri(path),
    kind: isDirectory ? "directory" : "file",
    size,
    abstract: abstracts.get(path) ?? "",
  }));
}

const MOST_READ = 1 << 30;

/** The content of a file; for a directory the text of a level: 0 its abstract, 1 its overview. */
export function readFiles(store: ContextStore, uri: string, { level }: { level?: number | undefined } = {}): Buffer {
  const path = parseUri(uri);
  const entry = entryAt(store.folder, path);
  store.placeOf(path);
  if (entry === null) throw noSuch(path);
  if (!entry.isDirectory && level !== undefined && level !== 2)
    throw new CairnError("usage", `${toUri(path)} is a file: its content is level 2`);
  if (entry.isDirectory && level !== undefined && level !== 0 && level !== 1)
    throw new CairnError("usage", `the level of a directory is 0 or 1; found ${level}`);
  if (entry.isDirectory && level === undefined)
    throw new CairnError("usage", `${toUri(path)} is a directory`, {
      hint: advice`its abstract: ${option({ level: 0 })}; its overview: ${option({ level: 1 })}`,
    });
  if (!entry.isDirectory) return readRegular(store.placeOf(path), { limit: MOST_READ });
  const file = fileOf(path, level!);
  if (entryAt(store.folder, file) === null)
    throw new CairnError("not_found", `${toUri(path)} has no ${level === 0 ? "abstract" : "overview"}`, {
      details: { resource: toUri(path) },
    });
  return readRegular(store.placeOf(file), { limit: MOST_READ });
}
