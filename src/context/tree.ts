import { isUtf8 } from "node:buffer";
import { hash } from "node:crypto";
import { type BigIntStats, closeSync, type Dirent, fstatSync, lstatSync, readdirSync, readSync } from "node:fs";
import { join } from "node:path";
import { CairnError, toCairnError } from "../errors.ts";
import { checkMemberPath } from "../formats/ovpack/member-path.ts";
import { byCodePoint } from "../formats/ovpack/manifest.ts";
import { openRegular } from "../fs/regular-file.ts";
import { printablePath, shellPath } from "../fs/paths/safe-path.ts";
import { contextTypeOf, isSession, joined, nameOf, SCOPES } from "./uri.ts";

/** Files of a context store, and the rules of which are indexed. */

export interface TreeEntry {
  /** Path below the store's folder. */
  path: string;
  isDirectory: boolean;
  size: number;
  /** Size and time, which show a change. */
  source: string;
}

export const ABSTRACT = ".abstract.md";
export const OVERVIEW = ".overview.md";

/** True for an entry that a walk skips, with everything below it. */
type Skip = (path: string, entry: Dirent) => boolean;

/**
 * The folder's own entry and everything below it except skipped entries, directories before their entries, by code
 * point. Throws `unsupported` for an entry that is neither file nor directory.
 */
export function* treeOf(folder: string, path: string, skip?: Skip): Generator<TreeEntry> {
  const found = entryAt(folder, path);
  if (found === null) return;
  yield found;
  if (found.isDirectory) yield* below(folder, path, { skip });
}

/** A place and its direct entries; at the root all existing scopes. */
export function* childrenOf(folder: string, path: string): Generator<TreeEntry> {
  if (path === "") {
    for (const scope of SCOPES) {
      const entry = entryAt(folder, scope);
      if (entry !== null) yield entry;
    }
    return;
  }
  const found = entryAt(folder, path);
  if (found !== null) yield found;
  if (found?.isDirectory === true) yield* below(folder, path, { isDeep: false });
}

/** A place and everything below it; at the root all scopes, which hold all content of a store. */
export function* entriesOf(folder: string, path: string): Generator<TreeEntry> {
  for (const at of path === "" ? SCOPES : [path]) yield* treeOf(folder, at);
}

function* below(
  folder: string,
  path: string,
  { isDeep = true, skip }: { isDeep?: boolean; skip?: Skip | undefined } = {},
): Generator<TreeEntry> {
  let names: Dirent[];
  try {
    names = readdirSync(join(folder, path), { withFileTypes: true });
  } catch (error) {
    throw toCairnError(error, `list ${printablePath(join(folder, path))}`);
  }
  for (const each of names.toSorted((a, b) => byCodePoint(a.name, b.name))) {
    const { name } = each;
    const at = joined(path, name);
    if (skip?.(at, each) === true) continue;
    if (name.includes("\ufffd") && lstatSync(join(folder, at), { throwIfNoEntry: false }) === undefined)
      throw new CairnError("unsupported", `a name in ${printablePath(join(folder, path))} is not UTF-8`);
    const entry = entryAt(folder, at);
    if (entry === null) continue;
    checkMemberPath(at);
    yield entry;
    if (isDeep && entry.isDirectory) yield* below(folder, at, { skip });
  }
}

/** Undefined if nothing exists at `place`, also if a parent is a file. */
export function factsAt(place: string): BigIntStats | undefined {
  try {
    return lstatSync(place, { throwIfNoEntry: false, bigint: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOTDIR") return undefined;
    throw toCairnError(error, `look at ${printablePath(place)}`);
  }
}

/** Null if nothing exists at the path. */
export function entryAt(folder: string, path: string): TreeEntry | null {
  const facts = factsAt(join(folder, path));
  if (facts === undefined) return null;
  if (!facts.isDirectory() && !facts.isFile())
    throw new CairnError("unsupported", `${printablePath(join(folder, path))} is neither a file nor a directory`, {
      hint: `a context store can hold only files and directories: rm ${shellPath(join(folder, path))}`,
      details: { path },
    });
  const isDirectory = facts.isDirectory();
  return { path, isDirectory, size: isDirectory ? 0 : Number(facts.size), source: sourceOf(facts) };
}

function sourceOf({ size, mtimeNs }: BigIntStats): string {
  return `${size}:${mtimeNs}`;
}

/** An indexed level of an entry, and the file of its text. */
export interface Level {
  path: string;
  level: number;
  isDirectory: boolean;
  file: string;
  contextType: string;
  name: string;
}

/** The level of a file: its directory's abstract or overview, or its own content; null if the file is not indexed. */
export function levelOf(path: string): Level | null {
  if (isSession(path) || !path.includes("/")) return null;
  const name = nameOf(path);
  const level = name === ABSTRACT ? 0 : name === OVERVIEW ? 1 : 2;
  if (level === 2 && name.startsWith(".")) return null;
  const of = level === 2 ? path : path.slice(0, -name.length - 1);
  return { path: of, level, isDirectory: level < 2, file: path, contextType: contextTypeOf(of), name: nameOf(of) };
}

/** A unique key for each level of each entry. */
export function levelKey({ path, level }: { path: string; level: number }): string {
  return `${level} ${path}`;
}

/** The file of a row's text. */
export function fileOf(path: string, level: number): string {
  return level === 2 ? path : joined(path, level === 0 ? ABSTRACT : OVERVIEW);
}

/** Errors of the machine, not of a file. */
const OF_THE_MACHINE = new Set(["EMFILE", "ENFILE", "EIO", "ENOMEM"]);
/** Bytes of a file that are read for the word index. */
const HEAD = 64 << 10;
const ABSTRACT_LENGTH = 256;
const TEXT_LENGTH = 2000;
/** Bytes of a text that abstracts and vectors are made from. */
const BEGINNING = 8192;

export interface ReadText {
  /** UTF-8 for the word index; empty if the file is not text. */
  words: Buffer;
  /** Its beginning. */
  body: string;
  source: string;
  digest: string;
}

/** The beginning of a file as text; null if there is no file. An unreadable file has no text, and does not keep other files from being indexed. */
export function readHead(place: string): ReadText | null {
  let fd: number;
  try {
    fd = openRegular(place);
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (OF_THE_MACHINE.has(code)) throw toCairnError(error, `read ${printablePath(place)}`);
    // The file counts as changed until it can be read.
    return factsAt(place)?.isFile() === true ? { words: NO_WORDS, body: "", source: "unread", digest: "" } : null;
  }
  try {
    const facts = fstatSync(fd, { bigint: true });
    const bytes = Buffer.alloc(Math.min(Number(facts.size), HEAD));
    const length = readSync(fd, bytes, 0, bytes.length, 0);
    const head = bytes.subarray(0, length);
    const words = textIn(head);
    return { words, body: beginningOf(words), source: sourceOf(facts), digest: hash("sha256", head) };
  } finally {
    closeSync(fd);
  }
}

const NO_WORDS = Buffer.alloc(0);

/** The bytes without a truncated character at their end; empty if they are not text. */
function textIn(bytes: Buffer): Buffer {
  if (bytes.includes(0)) return NO_WORDS;
  for (let end = bytes.length; end >= Math.max(0, bytes.length - 3); end--)
    if (isUtf8(bytes.subarray(0, end))) return bytes.subarray(0, end);
  return NO_WORDS;
}

/** The beginning of a text, for abstracts and vectors. */
export function beginningOf(words: Buffer): string {
  return words.toString("utf8", 0, BEGINNING).replace(/\ufffd+$/, "");
}

/** Makes an abstract from a text's beginning, for a file without one: its first heading and paragraph. */
export function excerptOf(body: string): string {
  const lines = body.split("\n").map((line) => line.replace(/^[#>*\-\s]+/, "").trim());
  const text = lines.filter((line) => line !== "" && !/^[-=`~]{3,}$/.test(line)).join(" ");
  return cut(text, ABSTRACT_LENGTH);
}

/** The text from which a vector is made. */
export function textToEmbed({ name, abstract, body }: { name: string; abstract: string; body: string }): string {
  const words = name.replace(/\.[A-Za-z0-9]{1,5}$/, "").replaceAll(/[_\-.]+/g, " ");
  const head = body.startsWith(abstract) ? "" : abstract;
  return cut([words, head, body].filter((part) => part !== "").join("\n"), TEXT_LENGTH);
}

function cut(text: string, length: number): string {
  if (text.length <= length) return text;
  const end = text.lastIndexOf(" ", length);
  return text.slice(0, end > length / 2 ? end : length).toWellFormed();
}
