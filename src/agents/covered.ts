import { type BigIntStats, closeSync, constants, openSync, readFileSync, realpathSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Environment, knownStateDirectory } from "../fs/home.ts";

/**
 * The list of folders that coding agents' hooks save: `agents/covered.json` in the user's state directory. A hook reads the list
 * before the command is loaded, so this file imports nothing else but modules that Node has loaded already. `cover.ts` writes the list.
 */

/** For whom `agent install` wrote a tool's entries. */
export type Whom = "me" | "all-mine" | "everybody";

export interface Cover {
  /** for example `claude-code` */
  readonly tool: string;
  /** `me`: this folder, by the user's settings; `all-mine`: all workspaces of the user; `everybody`: by the project's own files. */
  readonly whom: Whom;
  /** `turn`: hooks of tool calls do nothing; `never`: the person said that this folder is not covered */
  readonly each: "turn" | "tool" | "never";
  /** null if and only if `whom` is `all-mine` */
  readonly folder: CoveredFolder | null;
}

export interface FolderIdentity {
  /** real path */
  readonly path: string;
  /** inode and birth time in nanoseconds, by which a folder that was moved is found; birth time "0": unknown */
  readonly inode: string;
  readonly made: string;
}

export interface CoveredFolder extends FolderIdentity {
  /** null: the folder lies in no git repository */
  readonly git: CoveredRepository | null;
}

export interface CoveredRepository {
  /** real path of git's common directory, which all worktrees of a repository share */
  readonly common: string;
  readonly inode: string;
  /** path of the folder below the top of its worktree; "": the top */
  readonly below: string;
  /** ids of the first commits, sorted and joined by spaces; absent: unknown, or there was no commit yet */
  readonly first?: string;
}

/** Path of the list; null if no state directory is known. */
export function coveredFile(env: Environment = process.env): string | null {
  const state = knownStateDirectory(env);
  return state === null ? null : join(state, "agents", "covered.json");
}

/** Returns the list; null if it cannot be read, or if a newer version of Cairn wrote it. A missing list is empty. */
export function readCovered(env: Environment = process.env): readonly Cover[] | null {
  const file = coveredFile(env);
  if (file === null) return null;
  try {
    const { version, covers } = JSON.parse(readText(file)) as { version: number; covers: readonly Cover[] };
    return version === 1 && Array.isArray(covers) ? covers : null;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? [] : null;
  }
}

export interface Coverage {
  readonly cover: Cover;
  /**
   * `folder`: it is the covered folder, or lies in it. `family`: it lies in another worktree of the covered folder's
   * repository. `all`: all workspaces of the user are covered, if it is one.
   */
  readonly by: "folder" | "family" | "all";
  /** The folder that becomes a workspace, or is one already; null if `by` is `all`. */
  readonly root: string | null;
}

/** Returns by which entry of the list a tool's work in a folder is covered; null: it is not. The folder may be missing. */
export function coverageOf(list: readonly Cover[], tool: string, folder: string): Coverage | null {
  const covers = list.filter((each) => each.tool === tool);
  if (covers.length === 0) return null;
  const real = realFolder(folder);
  for (let above = real; ; above = dirname(above)) {
    const cover = coverAt(covers, above);
    if (cover !== undefined) return cover.each === "never" ? null : { cover, by: "folder", root: above };
    if (above === "/") break;
  }
  const known = covers.filter(({ each, folder: own }) => each !== "never" && own !== null && own.git !== null);
  const repository = known.length > 0 ? repositoryOf(real) : null;
  const relative = known.find(({ folder: each }) => isFamily(each!.git!, repository));
  if (repository !== null && relative !== undefined) {
    const root = join(repository.top, relative.folder!.git!.below);
    if (isIn(real, root)) return { cover: relative, by: "family", root };
  }
  const all = covers.find(({ whom }) => whom === "all-mine");
  return all === undefined ? null : { cover: all, by: "all", root: null };
}

/** A worktree of a git repository. */
export interface Repository {
  /** Real path of the worktree's top. */
  readonly top: string;
  readonly common: string;
  readonly inode: string;
}

/** Returns the git repository in which a folder lies, by git's own files; null if it lies in none. `real`: a real path. */
export function repositoryOf(real: string): Repository | null {
  for (let top = real; ; top = dirname(top)) {
    const common = commonOf(top);
    if (common !== null) return { top, ...common };
    if (top === "/") return null;
  }
}

/** Git's common directory of a worktree: that of the file `.git` of `git worktree` lies elsewhere. */
function commonOf(top: string): { common: string; inode: string } | null {
  const link = join(top, ".git");
  const directory = factsOf(link)?.isDirectory() === true ? link : linkedDirectory(top, link);
  const below = directory && (textOf(join(directory, "commondir"))?.trim() ?? ".");
  const common = directory && below && orNull(() => realpathSync.native(resolve(directory, below)));
  const inode = common && factsOf(common)?.ino.toString();
  return common && inode ? { common, inode } : null;
}

function linkedDirectory(top: string, link: string): string | null {
  const [, directory] = /^gitdir: (.+)$/m.exec(textOf(link) ?? "") ?? [];
  return directory === undefined ? null : resolve(top, directory.trim());
}

/** Reads a file, and never waits for a pipe in its place. */
function readText(file: string): string {
  const fd = openSync(file, constants.O_NONBLOCK);
  try {
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}

/** Null for a file that is missing or cannot be read. */
export const textOf = (file: string): string | null => orNull(() => readText(file));

/** Returns null if `ask` throws. */
export function orNull<T>(ask: () => T): T | null {
  try {
    return ask();
  } catch {
    return null;
  }
}

const isFamily = (git: CoveredRepository, repository: Repository | null): boolean =>
  git.common === repository?.common && git.inode === repository.inode;

/**
 * Returns the entry of exactly this folder, by its real path, or by its identity if it was moved. Of two, that of this user
 * decides: the hooks in the project's files do not ask.
 */
function coverAt(covers: readonly Cover[], path: string): Cover | undefined {
  const facts = factsOf(path);
  const [inode, made] = [facts?.ino.toString() ?? "", facts?.birthtimeNs.toString() ?? "0"];
  const here = covers.filter(({ folder }) => folder?.path === path);
  const found =
    here.length > 0
      ? here
      : covers.filter(({ folder }) => folder !== null && isSameFolder(folder, { path, inode, made }));
  return found.find(({ whom }) => whom === "me") ?? found[0];
}

/**
 * True for one folder, at the same path or moved to another one. A snapshot of a btrfs subvolume has the inode and birth time of its
 * origin, but both are there, on devices of their own.
 */
export function isSameFolder(a: FolderIdentity, b: FolderIdentity): boolean {
  if (a.path === b.path) return true;
  if (a.made === "0" || a.inode !== b.inode || a.made !== b.made) return false;
  const [one, other] = [deviceOf(a), deviceOf(b)];
  return one === null || other === null || one === other;
}

/** The device of a folder; null if the folder is not at its path any more. */
function deviceOf({ path, inode, made }: FolderIdentity): bigint | null {
  const facts = factsOf(path);
  return facts?.ino.toString() === inode && facts.birthtimeNs.toString() === made ? facts.dev : null;
}

/** Null for a folder that is missing or cannot be looked at, for example on a dead mount. */
const factsOf = (path: string): BigIntStats | null => orNull(() => statSync(path, { bigint: true }));

/** True if a path is `folder` or lies in it. Both are real paths. */
export function isIn(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === "/" ? "/" : `${folder}/`);
}

/** The real path of a folder. If the folder is missing, the real path of the nearest one above that exists. */
export function realFolder(folder: string): string {
  for (let path = resolve(folder); ; path = dirname(path))
    try {
      return realpathSync.native(path);
    } catch {
      if (path === "/") return path;
    }
}
