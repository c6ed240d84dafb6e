import { isDeepStrictEqual } from "node:util";
import { append } from "../append.ts";
import { pathMatcher } from "../backup/open/paths.ts";
import type { Cause } from "../contract/words.ts";
import { advice, CairnError, option } from "../errors.ts";
import { plural } from "../formats/sizes.ts";
import type { TakenEntries } from "../repository/trees/tree-mender.ts";
import type { TextHolders } from "../workspace/keep/paths-to-remove.ts";
import type { Workspace, WorkspaceCall } from "../workspace/open/workspace.ts";
import { removeTexts as removeFromRecord } from "../workspace/points/agent-record.ts";

/**
 * Removes text that agents and people typed: from the records of agents' events, and from points of earlier builds, which have
 * prompts and commands in their causes. Each record and each descriptor is replaced as a whole. No journal names the text, so a
 * kill leaves some of it, and the same call removes the rest.
 */

export interface TextsToRemove {
  /** True for a prompt or command, and for the reason of a failed save */
  isTyped(text: string): boolean;
  /** True for the message of a point, and for other members of a cause */
  isMessage(text: string): boolean;
}

const REMOVED = "(removed)";

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
    append(found.events, await removeFromRecord(workspace.found, (text) => texts.isTyped(text), { dryRun }));
    const { points, damaged } = workspace.points.list();
    if (damaged.length > 0)
      onWarning?.(`${plural(damaged.length, "damaged point")} may have the text in the cause or message`);
    const changes = points.flatMap((point) => {
      const { cause, message } = point.made;
      const by = {
        cause: causeWithout(cause, texts),
        message: texts.isMessage(message) ? REMOVED : message,
      };
      return by.message === message && isDeepStrictEqual(by.cause, cause) ? [] : [{ point, by }];
    });
    append(
      found.points,
      changes.map(({ point }) => point),
    );
    if (dryRun || changes.length === 0) continue;
    workspace.requireLock();
    workspace.points.replaceCauses(changes);
  }
  return found;
}

/** Kinds of causes that callers make. Other kinds have ids that Cairn reads. */
const OF_CALLERS: ReadonlySet<string> = new Set(["person", "program", "tool_call", "command"]);
const TYPED: ReadonlySet<string> = new Set(["prompt", "command"]);
/** Ids and names, which tell whose changes are whose. */
const IDS: ReadonlySet<string> = new Set(["kind", "agent", "event", "session", "turn", "tool", "call"]);

function causeWithout(cause: Cause, texts: TextsToRemove): Cause {
  const members = Object.entries(cause).map(([key, value]) => {
    if (TYPED.has(key)) return [key, without(value, (text) => texts.isTyped(text))];
    const isKept = IDS.has(key) || !OF_CALLERS.has(cause.kind);
    return [key, isKept ? value : without(value, (text) => texts.isMessage(text))];
  });
  return Object.fromEntries(members) as Cause;
}

/** Returns a value of JSON with `(removed)` for each text that fits, also for words of a command that fit together. */
function without(value: unknown, fits: (text: string) => boolean): unknown {
  if (typeof value === "string") return fits(value) ? REMOVED : value;
  if (typeof value !== "object" || value === null) return value;
  if (!Array.isArray(value))
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, without(each, fits)]));
  const kept = value.map((each) => without(each, fits));
  return isDeepStrictEqual(kept, value) && fits(value.filter((each) => typeof each === "string").join(" "))
    ? [REMOVED]
    : kept;
}
