import { existsSync } from "node:fs";
import { durableWrite, readSmallFile } from "../fs/durable.ts";
import type { Environment } from "../fs/home.ts";
import { firstCommits } from "./cover.ts";
import { type Cover, coverageOf, readCovered, realFolder, repositoryOf } from "./covered.ts";
import { type UncoveredRepository, uncoveredFile } from "./hook-start.ts";

/** Copies of covered repositories: a clone, or a teammate's. A copy is covered once a person has installed hooks for it. */

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
  /** when `agent status` asked the person about it, RFC 3339; null: not yet */
  readonly asked_at: string | null;
}

interface Noted extends UncoveredRepository {
  /** ids of the first commits; null: git could not tell */
  readonly first?: string | null;
  readonly asked_at?: string;
}

/** Returns the copies of covered repositories in which hooks ran, and that are not covered. Asks git once for each repository. */
export async function uncoveredClones(env: Environment): Promise<UncoveredClone[]> {
  const list = readCovered(env);
  const noted = readNoted(env);
  if (list === null || noted.length === 0) return [];
  // Also without an error for a repository on a dead mount.
  const kept = noted.filter(({ common }) => existsSync(common));
  const known = await Promise.all(
    kept.map(async (each): Promise<Noted> =>
      each.first === undefined ? { ...each, first: await firstCommits(each.top) } : each,
    ),
  );
  // A repository that a hook notes meanwhile is noted again by the next hook.
  if (noted.some(({ first }) => first === undefined) || kept.length < noted.length) writeNoted(env, known);
  return known.flatMap(({ tool, top, at, first, asked_at: asked = null }) => {
    const of = originalOf(list.covers, tool, first ?? null);
    const isDecided = list.covers.some((each) => each.tool === tool && each.folder?.path === top);
    if (of === null || isDecided || coverageOf(list, tool, top)?.by === "folder") return [];
    return [{ tool, folder: top, of: of.folder!.path, at, asked_at: asked }];
  });
}

/** Records that the person was asked about these copies. */
export function noteAsked(env: Environment, clones: readonly UncoveredClone[]): void {
  const isAsked = ({ tool, top }: Noted): boolean =>
    clones.some((each) => each.tool === tool && each.folder === top && each.asked_at === null);
  const now = new Date().toISOString();
  if (clones.some((each) => each.asked_at === null))
    writeNoted(
      env,
      readNoted(env).map((each) => (isAsked(each) ? { ...each, asked_at: now } : each)),
    );
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

function readNoted(env: Environment): Noted[] {
  const file = uncoveredFile(env);
  const content = file === null ? null : readSmallFile(file, MOST_BYTES, true);
  return content?.toString("utf8").split("\n").flatMap(notedIn) ?? [];
}

function writeNoted(env: Environment, noted: readonly Noted[]): void {
  const lines = noted.map((each) => `${JSON.stringify(each)}\n`);
  try {
    durableWrite(uncoveredFile(env)!, Buffer.from(lines.join("")), { mode: 0o600 });
  } catch {
    // The disk is full or read-only: git, and the person, are asked again.
  }
}

function notedIn(line: string): Noted[] {
  try {
    const noted = JSON.parse(line) as Noted;
    return [noted.tool, noted.top, noted.common, noted.at].every((each) => typeof each === "string") ? [noted] : [];
  } catch {
    return [];
  }
}
