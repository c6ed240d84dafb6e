import { lstatSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { append } from "../append.ts";
import { pathMatcher } from "../backup/open/paths.ts";
import type { Cause } from "../contract/words.ts";
import { advice, CairnError, option } from "../errors.ts";
import { plural } from "../formats/sizes.ts";
import { readSmallFile } from "../fs/durable.ts";
import { namesIn } from "../fs/paths/names-in.ts";
import { userStateDirectory } from "../fs/users.ts";
import type { TakenEntries } from "../repository/trees/tree-mender.ts";
import type { TextHolders } from "../workspace/keep/paths-to-remove.ts";
import type { Workspace, WorkspaceCall } from "../workspace/open/workspace.ts";
import { systemStateDirectory } from "../workspace/place/daemon-marks.ts";
import { removeTexts as removeFromRecord, renamer, type TextsToRemove } from "../workspace/points/agent-record.ts";

/**
 * Removes text that agents and people typed: from the records of agents' events, and from causes, messages, tags and chosen ids
 * of points. Each record and each descriptor is replaced as a whole. No journal names the text, so a
 * kill leaves some of it, and the same call removes the rest.
 */

const REMOVED = "(removed)";
const MOST_RECORD_BYTES = 512 << 20;

/**
 * Compiles patterns as `backup rewrite` does: a name anywhere, the end of a path, or with a leading slash a whole path.
 * Throws `usage`.
 */
export function takesOf(patterns: readonly string[]): TakenEntries {
  if (patterns.length === 0)
    throw new CairnError("usage", "no path to remove is given", {
      hint: advice`name it with ${option("paths", "--path PATH")}`,
    });
  const matchers = patterns.map((pattern) => {
    const fits = pathMatcher(pattern, false);
    if (fits("/")) throw new CairnError("usage", `the pattern ${JSON.stringify(pattern)} fits every path`);
    return fits;
  });
  const isName = patterns.every((pattern) => !pattern.replace(/\/$/, "").includes("/"));
  return { fits: (path) => matchers.some((fits) => fits(`/${path}`)), isAnywhere: () => isName };
}

/** Returns the rules of `cleanup purge --text` and `--path` for texts. `lead`: the folder's path and a slash. Throws `usage` for an empty pattern. */
export function textsToRemove(
  patterns: readonly string[],
  { takes, lead }: { takes: TakenEntries | null; lead: string },
): TextsToRemove {
  if (patterns.some((pattern) => pattern.trim() === ""))
    throw new CairnError("usage", "the text to remove is empty, so it would be in every event");
  const isMessage = (text: string): boolean => patterns.some((pattern) => text.includes(pattern));
  const namesPath = (text: string): boolean => takes !== null && pathsIn(text, lead).some((path) => takes.fits(path));
  return { isMessage, isTyped: (text) => isMessage(text) || namesPath(text) };
}

/** Returns the words of a text as paths in the folder, each with the folders above it. */
function pathsIn(text: string, lead: string): string[] {
  const words = text.match(/[^\s"'`=:;|&<>(),]+/g) ?? [];
  return words.flatMap((word) => {
    const parts = (word.startsWith(lead) ? word.slice(lead.length) : word)
      .split("/")
      .filter((part) => part !== "" && part !== ".");
    return parts.map((_part, i) => parts.slice(0, i + 1).join("/"));
  });
}

/** Removes texts from all workspaces, or with `dryRun` finds the places. The caller holds the locks of the workspaces. */
export async function removeTexts(
  workspaces: readonly Workspace[],
  texts: TextsToRemove,
  { dryRun, onWarning }: WorkspaceCall & { dryRun: boolean },
): Promise<TextHolders> {
  const found: TextHolders = { events: [], points: [] };
  for (const workspace of workspaces) {
    append(found.events, await removeFromRecord(workspace.found, texts, { dryRun }));
    const { points, damaged } = workspace.points.list();
    if (damaged.length > 0)
      onWarning?.(`${plural(damaged.length, "damaged point")} may have the text in the cause, message, tags or id`);
    const named = renamer(workspace.found, texts);
    const changes = points.flatMap((point) => {
      const { cause, message, tags, chosen_id: id } = point.made;
      const by = {
        cause: causeWithout(cause, texts, named),
        message: texts.isMessage(message) ? REMOVED : message,
        tags: tags.map(named),
        ...(id === undefined ? {} : { chosen_id: named(id) }),
      };
      const isSame = isDeepStrictEqual({ ...point.made, ...by }, point.made) && !point.tags.some(texts.isMessage);
      return isSame ? [] : [{ point, by, tags: point.tags.map(named) }];
    });
    append(
      found.points,
      changes.map(({ point }) => point),
    );
    if (dryRun || changes.length === 0) continue;
    workspace.requireLock();
    workspace.points.replaceCauses(changes);
    for (const { point, by, tags } of changes)
      if (!isDeepStrictEqual(tags, by.tags)) workspace.points.writeTags(point.sequence, tags);
  }
  return found;
}

const TYPED: ReadonlySet<string> = new Set(["prompt", "command"]);
/** Ids and names, which tell whose changes are whose: equal ones stay equal. */
const IDS: ReadonlySet<string> = new Set(["agent", "session", "turn", "tool", "call"]);
/** Members that Cairn reads. {@link recordsWith} names the point if one has the text. */
const READ: ReadonlySet<string> = new Set(
  "kind event plan request restored_to snapshot snapshot_id repository_id backup from from_workspace tree".split(" "),
);

function causeWithout(cause: Cause, texts: TextsToRemove, named: (name: string) => string): Cause {
  const members = Object.entries(cause).map(([key, value]) => {
    if (READ.has(key)) return [key, value];
    if (IDS.has(key) && typeof value === "string") return [key, named(value)];
    const fits = TYPED.has(key) ? texts.isTyped : texts.isMessage;
    return [named(key), without(value, fits, named)];
  });
  return Object.fromEntries(members) as Cause;
}

/** Returns a value of JSON with `(removed)` for each text that fits, also for words of a command that fit together. */
function without(value: unknown, fits: (text: string) => boolean, named: (name: string) => string): unknown {
  if (typeof value === "string") return fits(value) ? REMOVED : value;
  if (typeof value !== "object" || value === null) return value;
  if (!Array.isArray(value))
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [named(key), without(each, fits, named)]));
  const kept = value.map((each) => without(each, fits, named));
  return isDeepStrictEqual(kept, value) && fits(value.filter((each) => typeof each === "string").join(" "))
    ? [REMOVED]
    : kept;
}

/** Folders without records in plain text. */
const NO_RECORDS: ReadonlySet<string> = new Set(["store", "cache", "tree", "control", "kept", "views", "tmp"]);

/** Returns records in plain text that still have one of the patterns, for example a policy that names a tag, or jobs of the daemon. */
export function recordsWith(patterns: readonly string[], control: string): string[] {
  const written = patterns.flatMap((each) => [each, JSON.stringify(each).slice(1, -1)]);
  const isIn = (path: string): boolean => {
    try {
      const bytes = readSmallFile(path, MOST_RECORD_BYTES);
      return bytes !== null && written.some((each) => bytes.includes(each));
    } catch {
      // Another user's record, for example of root's daemon.
      return false;
    }
  };
  const below = (folder: string): string[] =>
    namesIn(folder).flatMap((name) => {
      const path = join(folder, name);
      const entry = lstatSync(path, { throwIfNoEntry: false });
      if (entry?.isDirectory() === true) return NO_RECORDS.has(name) ? [] : below(path);
      return entry?.isFile() === true && isIn(path) ? [path] : [];
    });
  return [...new Set([control, userStateDirectory(), systemStateDirectory()].flatMap(below))];
}
