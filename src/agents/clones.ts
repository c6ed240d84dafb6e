import { statSync } from "node:fs";
import { durableWrite, readSmallFile } from "../fs/durable.ts";
import type { Environment } from "../fs/home.ts";
import { firstCommits } from "./cover.ts";
import { type Cover, coverageOf, readCovered, realFolder, repositoryOf } from "./covered.ts";
import { type UncoveredRepository, uncoveredFile } from "./hook-start.ts";

/** Copies of covered repositories: a clone, or a teammate's. They are not covered until the person says so. */

const MOST_BYTES = 1 << 20;

/** A copy of a covered repository in which hooks ran in vain. */
export interface UncoveredClone {
  readonly tool: string;
  /** top of the copy */
  readonly folder: string;
  /** the covered folder of which it is a copy */
  readonly of: string;
  /** when a hook ran there first, RFC 3339 */
  readonly at: string;
}

interface Noted extends UncoveredRepository {
  /** ids of the first commits; null: git could not tell */
  readonly first?: string | null;
}

/** Returns the copies of covered repositories in which hooks ran, and that are not covered. Asks git once for each repository. */
export async function uncoveredClones(env: Environment): Promise<UncoveredClone[]> {
  const list = readCovered(env);
  const file = uncoveredFile(env);
  if (list === null || file === null) return [];
  const lines = readSmallFile(file, MOST_BYTES, true)?.toString("utf8").split("\n") ?? [];
  const noted = lines.flatMap(notedIn);
  const kept = noted.filter(({ common }) => statSync(common, { throwIfNoEntry: false }) !== undefined);
  const known = await Promise.all(
    kept.map(async (each): Promise<Noted> =>
      each.first === undefined ? { ...each, first: await firstCommits(each.top) } : each,
    ),
  );
  // A repository that a hook notes meanwhile is noted again by the next hook.
  if (noted.some(({ first }) => first === undefined) || kept.length < noted.length)
    durableWrite(file, Buffer.from(known.map((each) => `${JSON.stringify(each)}\n`).join("")), { mode: 0o600 });
  return known.flatMap(({ tool, top, at, first }) => {
    const of = originalOf(list.covers, tool, first ?? null);
    const isDecided = list.covers.some((each) => each.tool === tool && each.folder?.path === top);
    if (of === null || isDecided || coverageOf(list, tool, top)?.by === "folder") return [];
    return [{ tool, folder: top, of: of.folder!.path, at }];
  });
}

/** Returns the entry of a covered folder of which a folder is a copy, by git's first commits; null if there is none. */
export async function originalOfFolder(covers: readonly Cover[], tool: string, folder: string): Promise<Cover | null> {
  const repository = repositoryOf(realFolder(folder));
  if (repository === null || !covers.some((each) => each.tool === tool && each.folder?.git)) return null;
  return originalOf(covers, tool, await firstCommits(repository.top));
}

function originalOf(covers: readonly Cover[], tool: string, first: string | null): Cover | null {
  const ids = first?.split(" ") ?? [];
  const isCopy = ({ tool: by, each, folder }: Cover): boolean =>
    by === tool && each !== "never" && ids.some((id) => folder?.git?.first?.split(" ").includes(id) === true);
  return covers.find(isCopy) ?? null;
}

function notedIn(line: string): Noted[] {
  try {
    const noted = JSON.parse(line) as Noted;
    return [noted.tool, noted.top, noted.common, noted.at].every((each) => typeof each === "string") ? [noted] : [];
  } catch {
    return [];
  }
}
