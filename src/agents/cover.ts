import { execFile } from "node:child_process";
import { realpathSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { advice, CairnError } from "../errors.ts";
import { durableMkdir, durableWrite } from "../fs/durable.ts";
import type { Environment } from "../fs/home.ts";
import { acquireLock } from "../fs/lock.ts";
import { isOthersPlace, userStateDirectory } from "../fs/users.ts";
import { removeUnfinished } from "../fs/work-directory.ts";
import {
  type Cover,
  coveredFile,
  type CoveredFolder,
  type CoveredRepository,
  isSameFolder,
  readCovered,
  repositoryOf,
} from "./covered.ts";

/** Changes the list of covered folders. */

const GIT_MS = 10_000;

/** Reads, changes and writes the list under its lock. Throws `damaged` for a list that cannot be read. */
export async function changeCovered(
  env: Environment,
  change: (covers: readonly Cover[]) => readonly Cover[],
): Promise<readonly Cover[]> {
  const file = join(userStateDirectory(env), "agents", "covered.json");
  durableMkdir(dirname(file));
  using _lock = await acquireLock(`${file}.lock`, { purpose: "change the covered folders" });
  const covers = change(requireCovered(env));
  removeUnfinished(dirname(file));
  durableWrite(file, Buffer.from(`${JSON.stringify({ version: 1, covers }, null, 1)}\n`), { mode: 0o600 });
  return covers;
}

/** Returns the list. Throws `damaged` if it cannot be read. */
export function requireCovered(env: Environment): readonly Cover[] {
  const list = readCovered(env);
  if (list !== null) return list;
  throw new CairnError("damaged", `${coveredFile(env)} is no list of covered folders that this version can read`, {
    hint: advice`if no newer version of Cairn wrote it, remove the file, and run \`cairn agent install\` in each folder again`,
  });
}

/** Adds an entry, in place of an earlier one for the same tool, persons and folder. */
export const withCover = (covers: readonly Cover[], cover: Cover): readonly Cover[] => [
  ...covers.filter((each) => !isSame(each, cover)),
  cover,
];

/** True for entries of one tool for the same persons and the same folder. */
export function isSame(a: Cover, b: Pick<Cover, "tool" | "whom" | "folder">): boolean {
  if (a.tool !== b.tool || a.whom !== b.whom) return false;
  return a.folder === null || b.folder === null ? a.folder === b.folder : isSameFolder(a.folder, b.folder);
}

/**
 * Covers `to`, a fork or the new place of a folder, for each tool that covers exactly the folder `from`. `isGone`: `from` was moved,
 * released or removed, and is not covered any more. Never throws: `agent status` says which folders are covered.
 */
export async function passCover(env: Environment, from: string, to?: string, isGone = to === undefined): Promise<void> {
  const isFrom = ({ folder }: Cover): boolean => folder?.path === from;
  try {
    // The user could not read a list that root writes.
    if (readCovered(env)?.some(isFrom) !== true || isOthersPlace(userStateDirectory(env))) return;
    const folder = to === undefined ? null : await folderFacts(to);
    await changeCovered(env, (covers) => {
      const left = isGone ? covers.filter((each) => !isFrom(each)) : covers;
      if (folder === null) return left;
      return covers.filter(isFrom).reduce((all, cover) => withCover(all, { ...cover, folder }), left);
    });
  } catch {
    // The disk may be full.
  }
}

/** Returns path, identity and git repository of an existing folder. */
export async function folderFacts(folder: string): Promise<CoveredFolder> {
  const path = realpathSync.native(folder);
  const { ino, birthtimeNs } = statSync(path, { bigint: true });
  return { path, inode: ino.toString(), made: birthtimeNs.toString(), git: await repositoryFacts(path) };
}

async function repositoryFacts(path: string): Promise<CoveredRepository | null> {
  const repository = repositoryOf(path);
  if (repository === null) return null;
  const { top, common, inode } = repository;
  const first = await firstCommits(top);
  return { common, inode, below: relative(top, path), ...(first === undefined ? {} : { first }) };
}

/** Ids of the commits without a parent that lead to HEAD, sorted; undefined: there is none, or git cannot tell within 10 s. */
export async function firstCommits(top: string): Promise<string | undefined> {
  const { GIT_DIR: _, GIT_WORK_TREE: _tree, ...env } = process.env;
  try {
    const words = ["-C", top, "rev-list", "--max-parents=0", "HEAD"];
    const { stdout } = await promisify(execFile)("git", words, { env, timeout: GIT_MS, maxBuffer: 1 << 20 });
    return stdout.trim().split("\n").toSorted().join(" ") || undefined;
  } catch {
    return undefined;
  }
}
