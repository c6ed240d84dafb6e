import { append } from "../../append.ts";
import { dirname, normalize } from "node:path/posix";
import { CairnError, reworded } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/tree.ts";
import { refuseBorgPattern } from "../../fs/borg-pattern.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { isAtOrBelow, normalizeTyped, printablePath, quotedPath, rawBytes } from "../../fs/safe-path.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import type { PathChoice, PathPattern } from "../contract.ts";
import type { Look } from "./look.ts";
import { pathMatcher } from "./path-pattern.ts";
import { nameOf, readNodes, savedNodes, type SnapshotContent } from "./snapshot-content.ts";

/** What of a snapshot was asked for. */
export interface ChosenPaths {
  /** Raw paths below what was saved, each with all below it; null: everything. */
  readonly paths: Uint8Array[] | null;
  /** True when patterns chose them: then what a path that was saved does not have was not asked about. */
  readonly byPattern: boolean;
}

type Saved = Pick<SnapshotContent, "root" | "only">;

/** `node`: null where `root` is the topmost tree, or `only` names a file. */
type Whole = Saved & Pick<SnapshotContent, "node" | "part">;

type Fits = (path: string) => boolean;

/**
 * The paths that words and patterns choose of a tree. A path that is named, or fits a pattern, is chosen with all below it;
 * what fits an excluding pattern is not, nor anything below it. Patterns are restic's: one that begins with a slash is a path
 * from what was saved, or the whole one as `find` says it, one with a slash elsewhere the end of one, any other a name. A named path may also be the whole one,
 * as `find` says it. `not_found` for a named path that is not there, and where the patterns choose nothing.
 */
export async function chosenPaths(
  look: Look,
  saved: Whole,
  { savedPaths, ...choice }: PathChoice & { savedPaths: readonly string[]; signal?: AbortSignal },
): Promise<ChosenPaths> {
  const typed = choice.paths ?? [];
  const paths = typed.map((path) => pathBelow(saved, savedPaths, path));
  for (const [at, path] of paths.entries())
    await entryAt(look, saved, path).catch((error: unknown) => {
      throw withItsSlash(error, typed[at]!, baseOf(saved, savedPaths));
    });
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
  const walk = new ChoosingWalk(look, { named, include, exclude, pace: newPacer(choice.signal) });
  const { chosen, isWhole } = await walk.directory(saved, "", isAll);
  if (isWhole) return { paths: null, byPattern: true };
  if (chosen.length === 0) throw new CairnError("not_found", "nothing in the snapshot fits these patterns");
  return { paths: chosen.map(rawPath), byPattern: true };
}

/** Of a whole path as borg and tar write it. */
function withItsSlash(error: unknown, typed: string | Uint8Array, base: Buffer): unknown {
  const whole = Buffer.concat([Buffer.of(SLASH), rawBytes(typed)]);
  if (!(error instanceof CairnError) || error.code !== "not_found") return error;
  if (base.length === 1 || !isAtOrBelow(whole, base)) return error;
  return reworded(error, { hint: `a whole path begins with a slash: ${printablePath(whole)}` });
}

/** A path as it is typed, from what was saved on or the whole one, as the raw one below that. Throws `usage`. */
export function pathBelow(saved: Whole, savedPaths: readonly string[], typed: string | Uint8Array): Buffer {
  // A file that was saved alone is found by the name that it was given, from its root on, too.
  const given = Buffer.concat([Buffer.of(SLASH), rawBytes(typed)]);
  const isWhole = saved.only !== null && given.equals(Buffer.from(savedPaths[0] ?? ""));
  return normalizeTyped(withoutBase(isWhole ? given : typed, saved, savedPaths));
}

/** The whole path of `root`. */
export function baseOf({ node, only, part }: Whole, [path = "/"]: readonly string[]): Buffer {
  if (part !== undefined) return rawBytes(part.whole);
  if (only !== null) return Buffer.from(dirname(path));
  return Buffer.from(node === null ? "/" : path);
}

function withoutBase(path: string | Uint8Array, saved: Whole, savedPaths: readonly string[]): string | Uint8Array {
  const base = baseOf(saved, savedPaths);
  const bytes = rawBytes(path);
  if (bytes[0] !== SLASH) return path;
  const normal = Buffer.from(normalize(bytes.toString("latin1")).replace(/(?<=.)\/$/, ""), "latin1");
  if (isAtOrBelow(normal, base)) return normal.subarray(base.length === 1 ? 1 : base.length + 1);
  const what = saved.part === undefined ? "which the snapshot is of" : "the folder that was named";
  throw new CairnError("usage", `${printablePath(bytes)} is not below ${printablePath(base)}, ${what}`, {
    hint: "name paths as `cairn backup find` does, or from there on: src/main.ts",
  });
}

const SLASH = 0x2f;

export interface Fitting {
  /** Whether a path fits, from what was saved on, with a slash before it, in latin1. */
  fits: Fits;
  /** Whether a path fits as a whole, from the topmost tree on, likewise: only patterns that begin with a slash say so. */
  fitsWhole: Fits;
  /** Whether nothing but a path's last name counts. */
  isName: boolean;
}

/** Throws `usage`. */
export function fitting(given: PathPattern): Fitting {
  const { pattern, ignoreCase } = typeof given === "string" ? { pattern: given, ignoreCase: false } : given;
  if (pattern.startsWith("!"))
    throw new CairnError("usage", `patterns are not taken back by others: ${JSON.stringify(pattern)}`, {
      hint: "for a name that begins with it: \\!",
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
  readonly #look: Look;
  readonly #by: ChoosingBy;

  constructor(look: Look, by: ChoosingBy) {
    this.#look = look;
    this.#by = by;
  }

  /** The topmost entries in a directory that are chosen whole, and whether it is itself. `chosen`: something above it is. */
  async directory(saved: Saved, path: string, chosen: boolean): Promise<{ chosen: string[]; isWhole: boolean }> {
    const found: string[] = [];
    let isWhole = chosen;
    await this.#by.pace();
    for (const node of await savedNodes(this.#look, saved)) {
      const own = path === "" ? nameOf(node) : `${path}/${nameOf(node)}`;
      if (this.#by.exclude.some((fits) => fits(`/${own}`))) {
        isWhole = false;
        continue;
      }
      const isChosen = chosen || this.#chooses(own);
      const tree = node.subtree;
      const below =
        tree !== undefined && this.#isWalked(own, isChosen)
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

  #chooses(path: string): boolean {
    const { named, include } = this.#by;
    return named.chosenAt(rawPath(path)) !== null || include.some((fits) => fits(`/${path}`));
  }

  /** Whether what lies below a directory can be something else than what it is itself. */
  #isWalked(path: string, isChosen: boolean): boolean {
    const { named, include, exclude } = this.#by;
    return isChosen ? exclude.length > 0 : include.length > 0 || named.leadsOn(rawPath(path));
  }
}

/** The entry at a raw path below what was saved, or a folder in it; null for the empty one. `not_found`. */
export async function entryAt(
  look: Look,
  { root, part }: Pick<SnapshotContent, "root" | "part">,
  path: Uint8Array,
): Promise<TreeNode | null> {
  if (path.length === 0) return null;
  let tree: Uint8Array | undefined = root;
  let found: TreeNode | null = null;
  for (const name of latin1(path).split("/")) {
    const nodes: TreeNode[] = tree === undefined ? [] : await readNodes(look, tree);
    const node = nodes.find((each) => nameOf(each) === name);
    if (node === undefined)
      throw new CairnError("not_found", `${quotedPath(path)} is not in ${placeOf(part)}`, {
        hint: "`cairn backup find` looks for a name in all snapshots",
      });
    found = node;
    tree = node.subtree;
  }
  return found;
}

function placeOf(part: SnapshotContent["part"]): string {
  return part === undefined ? "the snapshot" : `the folder ${quotedPath(part.path)} of the snapshot`;
}

function rawPath(path: string): Buffer {
  return Buffer.from(path, "latin1");
}
