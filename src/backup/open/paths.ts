import { dirname, normalize } from "node:path/posix";
import { append } from "../../append.ts";
import type { PathChoice, PathPattern } from "../../contract/snapshots.ts";
import type { PathInput } from "../../contract/words.ts";
import { exactNode, losslessByPath, manifestBelow } from "../../archive/write/exact-nodes.ts";
import { advice, CairnError, call, either, reworded, word } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { beside, LOGS, mayBeDatabase, SIDECARS } from "../../formats/sqlite-header.ts";
import { refuseBorgPattern } from "../../fs/borg-pattern.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import {
  isAtOrBelow,
  normalizeTyped,
  printablePath,
  quotedPath,
  rawBytes,
  shellQuote,
} from "../../fs/paths/safe-path.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { lackingIn } from "../../workspace/points/left-out.ts";
import { kindOf } from "../../workspace/points/listed-entry.ts";
import { savedNodes, type SnapshotContent } from "./content.ts";
import { nameOf, nodeAt, nodeIn } from "../../archive/databases/nodes.ts";

const SLASH = 0x2f;
const ROOT = Buffer.from("/");
/** Stands for bytes that are not UTF-8 and were lost in a line of text. */
const LOST = Buffer.from("\ufffd");
const NON_ASCII = /[\x80-\xff]/;
const MEANS_SOMETHING = /[\\^$.*+?()[\]{}|/]/;

const ANY = "[^/]*";
const DIRECTORIES = `(?:/${ANY})*`;

/** The requested part of a snapshot. */
export interface ChosenPaths {
  /** Raw paths below the saved folder, each with everything below it; null: everything. */
  readonly paths: Uint8Array[] | null;
  /** True if patterns chose the paths: then saved paths that the snapshot lacks were not asked for. */
  readonly byPattern: boolean;
}

type Saved = Pick<SnapshotContent, "root" | "only">;

/** `node`: null if `root` is the topmost tree, or `only` names a file. */
type Whole = Saved & Pick<SnapshotContent, "node" | "part">;

type Fits = (path: string) => boolean;

/**
 * The paths of a tree that names and patterns choose, each with everything below it, without excluded entries. A named
 * path, or a pattern with a leading slash, starts at the saved folder or the topmost tree, as `find` prints it. Throws
 * `not_found` for a missing named path, and if the patterns choose nothing.
 */
export async function chosenPaths(
  reader: BlobSource,
  saved: Whole,
  { savedPaths, ...choice }: PathChoice & { savedPaths: readonly string[]; signal?: AbortSignal },
): Promise<ChosenPaths> {
  const typed = choice.paths ?? [];
  const paths = typed.map((path) => pathBelow(saved, savedPaths, path));
  for (const [at, path] of paths.entries())
    await namedEntry(reader, saved, { path, savedPaths }).catch((error: unknown) => {
      // borg and tar write whole paths without their slash.
      const whole = Buffer.concat([Buffer.of(SLASH), rawBytes(typed[at]!)]);
      const top = baseOf(saved, savedPaths);
      const isWhole = top.length > 1 && isAtOrBelow(whole, top);
      if (!isWhole || !(error instanceof CairnError) || error.code !== "not_found") throw error;
      throw reworded(error, { hint: `begin an absolute path with a slash: ${printablePath(whole)}` });
    });
  for (const path of paths.slice()) append(paths, await sidecarsIn(reader, saved, path));
  const base = latin1(baseOf(saved, savedPaths));
  const fits = (given: PathPattern): Fits => {
    const pattern = fitting(given);
    return base === "/" ? pattern.fits : (path) => pattern.fits(path) || pattern.fitsWhole(`${base}${path}`);
  };
  const include = (choice.include ?? []).map(fits);
  const exclude = (choice.exclude ?? []).map(fits);
  const isAll = paths.length === 0 ? include.length === 0 : paths.some(({ length }) => length === 0);
  if (include.length === 0 && exclude.length === 0) return { paths: isAll ? null : paths, byPattern: false };
  const named = new PathSelection(paths);
  const walk = new ChoosingWalk(reader, { named, include, exclude, pace: newPacer(choice.signal) });
  const { chosen, isWhole } = await walk.directory(saved, "", isAll);
  if (isWhole) return { paths: null, byPattern: true };
  if (chosen.length === 0) throw new CairnError("not_found", "nothing in the snapshot fits these patterns");
  return { paths: chosen.map(rawPath), byPattern: true };
}

/** The log files of a database in a snapshot: without its log a database lacks its last commits. */
async function sidecarsIn(reader: BlobSource, saved: Whole, path: Uint8Array): Promise<Buffer[]> {
  const found: Buffer[] = [];
  for (const ending of SIDECARS) {
    const place = beside(path, ending);
    const node = await entryAt(reader, saved, place).catch(() => null);
    if (node?.type === "file") found.push(place);
  }
  return found;
}

/** The raw path below the saved folder for a typed path, which is relative to that folder or whole. Throws `usage`. */
export function pathBelow(saved: Whole, savedPaths: readonly string[], typed: string | Uint8Array): Buffer {
  // A file saved alone is also found by the name given at the save.
  const given = Buffer.concat([Buffer.of(SLASH), rawBytes(typed)]);
  const isWhole = saved.only !== null && given.equals(Buffer.from(savedPaths[0] ?? ""));
  const bytes = isWhole ? given : rawBytes(typed);
  if (bytes[0] !== SLASH) return normalizeTyped(typed);
  const base = baseOf(saved, savedPaths);
  const normal = Buffer.from(normalize(bytes.toString("latin1")).replace(/(?<=.)\/$/, ""), "latin1");
  if (isAtOrBelow(normal, base)) return normalizeTyped(normal.subarray(base.length === 1 ? 1 : base.length + 1));
  const what = saved.part === undefined ? "the path that was saved" : "the folder that was named";
  throw new CairnError("usage", `${printablePath(bytes)} is not below ${printablePath(base)}, ${what}`, {
    hint: advice`name paths as ${call("backup find NAME", "find", word("pattern"))} prints them, or relative to that path: src/main.ts`,
  });
}

/** The whole path of `root`. */
function baseOf({ node, only, part }: Whole, [path = "/"]: readonly string[]): Buffer {
  if (part !== undefined) return rawBytes(part.whole);
  if (only !== null) return Buffer.from(dirname(path));
  return Buffer.from(node === null ? "/" : path);
}

export interface Fitting {
  /** Tests a path from the saved folder, with a leading slash, in latin1. */
  fits: Fits;
  /** Tests a path from the topmost tree; only patterns with a leading slash can fit. */
  fitsWhole: Fits;
  /** True if only the last name of a path counts. */
  isName: boolean;
}

/** Throws `usage`. */
export function fitting(given: PathPattern): Fitting {
  const { pattern, ignoreCase } = typeof given === "string" ? { pattern: given, ignoreCase: false } : given;
  if (pattern.startsWith("!"))
    throw new CairnError("usage", `patterns with ! (negation) are not supported here: ${JSON.stringify(pattern)}`, {
      hint: 'for a name that begins with "!", write \\!',
    });
  refuseBorgPattern(pattern);
  const fits = pathMatcher(pattern, ignoreCase);
  const isName = !normalize(pattern).replace(/\/$/, "").includes("/");
  return { fits, fitsWhole: pattern.startsWith("/") ? fits : () => false, isName };
}

interface ChoosingBy {
  named: PathSelection;
  include: readonly Fits[];
  exclude: readonly Fits[];
  pace: Pacer;
}

class ChoosingWalk {
  readonly #reader: BlobSource;
  readonly #by: ChoosingBy;

  constructor(reader: BlobSource, by: ChoosingBy) {
    this.#reader = reader;
    this.#by = by;
  }

  /** The topmost entries of a directory that are chosen whole. `isWhole`: the directory is chosen itself; `chosen`: a parent is. */
  async directory(saved: Saved, path: string, chosen: boolean): Promise<{ chosen: string[]; isWhole: boolean }> {
    const { named, include, exclude } = this.#by;
    const found: string[] = [];
    let isWhole = chosen;
    const nodes = [...(await savedNodes(this.#reader, saved))];
    const unitOf = unitsOf(nodes);
    for (const node of nodes) {
      await this.#by.pace();
      const at = (name: string): string => (path === "" ? name : `${path}/${name}`);
      const own = at(nameOf(node));
      const unit = unitOf(nameOf(node)).map((name) => `/${at(name)}`);
      if (exclude.some((fits) => fits(unit[0]!))) {
        isWhole = false;
        continue;
      }
      const fitsOne = include.some((fits) => unit.some(fits));
      const isChosen = chosen || fitsOne || named.chosenAt(rawPath(own)) !== null;
      // The pattern may choose otherwise for entries below than for the directory itself.
      const isWalked = isChosen ? exclude.length > 0 : include.length > 0 || named.leadsOn(rawPath(own));
      const tree = node.subtree;
      const below =
        tree !== undefined && isWalked
          ? await this.directory({ root: tree, only: null }, own, isChosen)
          : { chosen: [], isWhole: isChosen };
      if (below.isWhole) found.push(own);
      else {
        append(found, below.chosen);
        isWhole = false;
      }
    }
    return { chosen: found, isWhole };
  }
}

/**
 * Returns for a name in a directory the names that patterns choose together, first the one that excludes decide by: a
 * database and its logs, or the name alone.
 */
function unitsOf(nodes: readonly TreeNode[]): (name: string) => string[] {
  const sizes = new Map(nodes.map((node) => [nameOf(node), node.type === "file" ? node.size : 0]));
  return (name) => {
    const ending = LOGS.find((each) => name.endsWith(each));
    const database = ending === undefined ? name : name.slice(0, -ending.length);
    if (!mayBeDatabase({ size: sizes.get(database) ?? 0 })) return [name];
    return [database, ...LOGS.map((each) => `${database}${each}`).filter((each) => (sizes.get(each) ?? 0) > 0)];
  };
}

function rawPath(path: string): Buffer {
  return Buffer.from(path, "latin1");
}

/** Like {@link entryAt}. If another program made the snapshot from absolute paths, the error names the path from the root. */
export async function namedEntry(
  reader: BlobSource,
  saved: Whole,
  { path, savedPaths }: { path: Uint8Array; savedPaths: readonly string[] },
): Promise<TreeNode | null> {
  try {
    return await entryAt(reader, saved, path);
  } catch (error) {
    const isWhole = saved.node === null && saved.only === null && saved.part === undefined;
    if (!isWhole || !(error instanceof CairnError) || error.code !== "not_found") throw error;
    const isThere = async (whole: string): Promise<boolean> =>
      entryAt(reader, saved, rawPath(whole.slice(1))).then(
        () => true,
        () => false,
      );
    const found = new Set<string>();
    let example: string | undefined;
    for (const top of savedPaths.map((each) => latin1(Buffer.from(normalize(each))))) {
      if (!/^\/./.test(top) || !(await isThere(top))) continue;
      example ??= top;
      for (let above = top; above !== "/"; above = dirname(above)) {
        const place = `${above}/${latin1(path)}`;
        if (await isThere(place)) found.add(place);
      }
    }
    const [only] = found;
    if (example === undefined) throw error;
    const hint =
      only !== undefined && found.size === 1
        ? `this snapshot has absolute paths: name ${printablePath(rawPath(only))}`
        : advice`this snapshot has absolute paths, for example ${printablePath(rawPath(example))}; ${call("backup find NAME", "find", word("pattern"))} looks for a name`;
    throw reworded(error, { hint });
  }
}

/** The entry at a raw path below the saved folder, or below a folder in it; null for the empty path. Throws `not_found`. */
export async function entryAt(
  reader: BlobSource,
  { root, part }: Pick<SnapshotContent, "root" | "part">,
  path: Uint8Array,
): Promise<TreeNode | null> {
  if (path.length === 0) return null;
  const where = part === undefined ? "the snapshot" : `the folder ${quotedPath(part.path)} of the snapshot`;
  const found = await nodeAt(reader, root, latin1(path).split("/"));
  if (found === undefined)
    throw new CairnError("not_found", `${quotedPath(path)} is not in ${where}`, {
      hint: advice`${call("backup find NAME", "find", word("pattern"))} looks for a name in all snapshots`,
    });
  return found;
}

/**
 * The content of one folder of a snapshot, as if only this folder had been saved. Without `subfolder`, or for the saved
 * folder itself, all of it. Paths are those of `pathBelow`. Follows no link. Throws `not_found`, `usage`, and
 * `conflict` if the path is not a folder.
 */
export async function contentOf<T extends SnapshotContent>(
  reader: BlobSource,
  { listed, content }: { listed: ListedSnapshot; content: T },
  subfolder: PathInput | undefined,
): Promise<T | SnapshotContent> {
  if (subfolder === undefined) return content;
  const { paths } = listed.snapshot;
  const path = pathBelow(content, paths, subfolder);
  if (path.length === 0) return content;
  const { manifest } = content;
  const found = await folderAt(reader, { listed, content }, path);
  const base = baseOf(content, paths);
  return {
    ...content,
    root: found.subtree!,
    only: null,
    node: exactNode(found, losslessByPath(manifest?.lossless ?? []).get(latin1(path))),
    manifest: manifest === null ? null : manifestBelow(manifest, path),
    part: { path, whole: base.equals(ROOT) ? Buffer.concat([ROOT, path]) : joinPath(base, path) },
  };
}

async function folderAt(
  reader: BlobSource,
  { listed: { id }, content }: { listed: ListedSnapshot; content: SnapshotContent },
  path: Buffer,
): Promise<TreeNode> {
  const names = latin1(path).split("/");
  const snapshot = id.slice(0, 8);
  let tree = content.root;
  for (let depth = 1; ; depth++) {
    const name = Buffer.from(names[depth - 1]!, "latin1");
    const node = await nodeIn(reader, tree, name);
    const isSaved = depth > 1 || content.only === null || name.equals(content.only);
    if (node === undefined || !isSaved) throw notThere(path, { snapshot, manifest: content.manifest });
    const at = Buffer.from(names.slice(0, depth).join("/"), "latin1");
    if (node.type !== "dir") throw noFolder(at, node, snapshot);
    if (depth === names.length) return node;
    tree = node.subtree!;
  }
}

function notThere(path: Buffer, of: { snapshot: string; manifest: Manifest | null }): CairnError {
  const { snapshot, manifest } = of;
  const [lacking] = lackingIn(manifest && { omitted: manifest.omitted }, [path]);
  const why = lacking === undefined ? "" : `: ${printablePath(lacking.path)} is not in it (${lacking.detail})`;
  return new CairnError("not_found", `there is no folder ${quotedPath(path)} in snapshot ${snapshot}${why}`, {
    hint: path.includes(LOST)
      ? advice`a folder whose name is not UTF-8 is restored by its path, with ${either("--path-b64", "its bytes")}`
      : advice`${call(`backup show ${snapshot}`, "show", snapshot)} lists what is in it, and ${call("backup find NAME", "find", word("pattern"))} looks for a name in all snapshots`,
  });
}

function noFolder(path: Buffer, node: TreeNode, snapshot: string): CairnError {
  const target =
    node.type === "symlink" ? `; it leads to ${quotedPath(node.linktarget!)}, and no link is followed` : "";
  const shown = printablePath(path);
  const named = shellQuote(shown);
  return new CairnError(
    "conflict",
    `${quotedPath(path)} is not a folder in snapshot ${snapshot}, but a ${kindOf(node)}${target}`,
    {
      hint: advice`${call(`backup restore ${snapshot} ${named} --to DIR`, "restore", snapshot, word("folder"), { paths: [shown] })} restores it by its path, and ${call(`backup show ${snapshot}:${named}`, "show", snapshot, shown)} shows it`,
    },
  );
}

/**
 * Compiles a pattern of restic: Go's `filepath.Match` for each part between slashes, and `**` as a part for any number
 * of directories. Paths are latin1 and begin with `/`; a pattern with a leading slash fits whole paths, others fit
 * their ends. Characters are UTF-8. Throws `usage` for a pattern that is empty or can fit nothing.
 */
export function pathMatcher(pattern: string, ignoreCase: boolean): (path: string) => boolean {
  if (pattern === "") throw new CairnError("usage", "the pattern is empty");
  const wanted = normalize(pattern).replace(/(?<=.)\/$/, "");
  if (wanted === "/") return () => true;
  const isWhole = wanted.startsWith("/");
  const parts = wanted.slice(isWhole ? 1 : 0).split("/");
  const source = (isWhole ? parts : ["**", ...parts]).map((part) => partOf(part, pattern));
  const below = source.filter((part, i) => part !== DIRECTORIES || source[i - 1] !== DIRECTORIES).join("");
  const expression = new RegExp(`^${below}$`, ignoreCase ? "iu" : "u");
  return (path) => expression.test(NON_ASCII.test(path) ? Buffer.from(path, "latin1").toString("utf8") : path);
}

/** A regular expression for a slash and one part of a pattern. */
function partOf(part: string, pattern: string): string {
  if (part === "**") return DIRECTORIES;
  const characters = Array.from(part);
  let source = "/";
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at]!;
    if (character === "*") {
      if (!source.endsWith(ANY)) source += ANY;
    } else if (character === "?") source += "[^/]";
    else if (character === "[") {
      const set = setAt(characters, at + 1, pattern);
      source += set.source;
      at = set.end;
    } else {
      if (character === "\\") at++;
      const literal = characters[at];
      if (literal === undefined) throw unfit(pattern);
      source += MEANS_SOMETHING.test(literal) ? `\\${literal}` : literal;
    }
  }
  return source;
}

/** Translates the set after an opening bracket. `end`: the place of the closing bracket. */
function setAt(characters: readonly string[], start: number, pattern: string): { source: string; end: number } {
  let at = start;
  const isNegated = characters[at] === "^";
  if (isNegated) at++;
  const member = (): string => {
    if (characters[at] === "-" || characters[at] === "]") throw unfit(pattern);
    if (characters[at] === "\\") at++;
    const character = characters[at++];
    if (character === undefined) throw unfit(pattern);
    return character;
  };
  let ranges = "";
  do {
    const first = member();
    let last = first;
    if (characters[at] === "-") {
      at++;
      last = member();
    }
    if (first.codePointAt(0)! <= last.codePointAt(0)!) ranges += `${escaped(first)}-${escaped(last)}`;
  } while (characters[at] !== "]");
  // A set must not match the slash between two names.
  return { source: isNegated ? `[^${ranges}/]` : ranges === "" ? "[]" : `[${ranges}]`, end: at };
}

function escaped(character: string): string {
  return `\\u{${character.codePointAt(0)!.toString(16)}}`;
}

function unfit(pattern: string): CairnError {
  return new CairnError("usage", `a bracket or a backslash in this pattern has no end: ${JSON.stringify(pattern)}`, {
    hint: "put a backslash before a character that stands for itself: \\[ \\] \\* \\? \\\\ and, between brackets, \\-",
  });
}
