import { existsSync } from "node:fs";
import { durableWrite } from "../fs/durable.ts";
import type { Environment } from "../fs/home.ts";
import { firstCommits } from "./cover.ts";
import { type Cover, coverageOf, orNull, readCovered, realFolder, repositoryOf, textOf } from "./covered.ts";
import { type UncoveredRepository, uncoveredFile } from "./hook-start.ts";

/** Copies of covered repositories: a clone, or a teammate's. A copy is covered once a person has installed hooks for it. */

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
  /** ids of the first commits; absent: not asked yet, or git could not tell */
  readonly first?: string;
  readonly asked_at?: string;
}

/** Returns the copies of covered repositories in which hooks ran, and that are not covered. Asks git once for each repository. */
export async function uncoveredClones(env: Environment): Promise<UncoveredClone[]> {
  const list = readCovered(env);
  if (list === null) return [];
  const noted = readNoted(env);
  // Also without an error for a repository on a dead mount.
  const known = await Promise.all(noted.filter(({ common }) => existsSync(common)).map(withFirst));
  // A repository that a hook notes meanwhile is noted again by the next hook.
  if (known.length < noted.length || known.some((each) => !noted.includes(each))) writeNoted(env, known);
  const clones = known.map(async ({ tool, top, at, first, asked_at = null }): Promise<UncoveredClone[]> => {
    const isDecided = list.some((each) => each.tool === tool && each.folder?.path === top);
    if (isDecided || coverageOf(list, tool, top)?.by === "folder") return [];
    const of = await originalOf(list, tool, first);
    return of === null ? [] : [{ tool, folder: top, of, at, asked_at }];
  });
  return (await Promise.all(clones)).flat();
}

async function withFirst(noted: Noted): Promise<Noted> {
  const first = noted.first ?? (await firstCommits(noted.top));
  return first === undefined || first === noted.first ? noted : { ...noted, first };
}

/** Records that the person was asked about these copies. */
export function noteAsked(env: Environment, clones: readonly UncoveredClone[]): void {
  const asked = clones.filter((each) => each.asked_at === null);
  const isAsked = ({ tool, top }: Noted): boolean => asked.some((each) => each.tool === tool && each.folder === top);
  const now = new Date().toISOString();
  if (asked.length > 0)
    writeNoted(
      env,
      readNoted(env).map((each) => (isAsked(each) ? { ...each, asked_at: now } : each)),
    );
}

/** True if a folder lies in a copy of a repository that is covered for the tool, by git's first commits. */
export async function isInCopy(covers: readonly Cover[], tool: string, folder: string): Promise<boolean> {
  const repository = repositoryOf(realFolder(folder));
  return repository !== null && (await originalOf(covers, tool, await firstCommits(repository.top))) !== null;
}

/** Returns the covered folder of which a repository with these first commits is a copy; null if there is none. */
async function originalOf(covers: readonly Cover[], tool: string, first = ""): Promise<string | null> {
  const ids = new Set(first.split(" "));
  for (const { tool: by, each, folder } of covers) {
    if (first === "" || by !== tool || each === "never" || !folder?.git) continue;
    // The repository may have had no commit when it was covered.
    const own = folder.git.first ?? (await firstCommits(folder.path));
    if (own?.split(" ").some((id) => ids.has(id)) === true) return folder.path;
  }
  return null;
}

function readNoted(env: Environment): Noted[] {
  const file = uncoveredFile(env);
  return file === null ? [] : (textOf(file)?.split("\n").flatMap(notedIn) ?? []);
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
  const noted = orNull(() => JSON.parse(line) as Noted);
  const members = [noted?.tool, noted?.top, noted?.common, noted?.at];
  return noted !== null && members.every((each) => typeof each === "string") ? [noted] : [];
}
