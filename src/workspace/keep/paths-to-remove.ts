import fs from "node:fs";
import { pathsBelow } from "../../clones/walk-entries.ts";
import { advice, CairnError, line, throwIfAborted } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { planIdOf, requirePlan } from "../../crypto/plan-id.ts";
import { rawPath } from "../../formats/records/record.ts";
import { plural } from "../../formats/sizes.ts";
import { acquireLock, type Lock } from "../../fs/lock.ts";
import { IGNORE_FILE, IgnoreRules, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import { joinRaw, listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";
import type { TakenEntries } from "../../repository/trees/tree-mender.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { isReleased, listLeases } from "../place/control-directory.ts";
import { lockingOf } from "../place/registry.ts";
import { heldTreeProblem, holdsMore, treePlace } from "../points/held-trees.ts";
import type { Point } from "../points/point-files.ts";
import type { CopyContent } from "../store/copy-content.ts";
import type { StoredPoint } from "../store/content-without.ts";
import { pathsInPoints } from "../store/removed-paths.ts";
import type { CleanupCall } from "./cleanup.ts";

/** Finds the points that hold paths to remove. */

/** A point that holds paths to remove. */
export interface PathHolder {
  readonly workspace: Workspace;
  readonly point: Point;
  /** Raw paths. They include ignored files, which only the clone of the point has. */
  readonly paths: readonly Uint8Array[];
}

/** Places that have texts to remove. */
export interface TextHolders {
  /** Events, as recorded lines. */
  events: string[];
  /** Points that have such a text in the cause, message, tags or chosen id. */
  points: Point[];
}

/** Returns the id of a removal's plan. Throws `stale_plan` if the caller was shown another one. */
export function requireShown(
  shown: string | undefined,
  { paths, text }: Record<"paths" | "text", readonly string[]>,
  { holders, events, points }: TextHolders & { holders: readonly PathHolder[] },
): string {
  const factsOf = ({ descriptor, checksum, pin }: Point) => [descriptor.save_point_id, checksum, pin !== null];
  const id = planIdOf([
    ["removePaths", paths, text],
    ...holders.map(({ point, paths: own }) => [factsOf(point), own.map(latin1).toSorted()]),
    ...points.map(factsOf),
    ...events,
  ]);
  const named = (all: readonly Point[]): string => {
    const ids = all.map(({ descriptor }) => descriptor.save_point_id.slice(0, 8));
    return `${plural(all.length, "point")}${ids.length === 0 ? "" : ` (${listedNames(ids)})`}`;
  };
  const now = (): string =>
    `it would now remove paths from ${named(holders.map(({ point }) => point))}, and text from ${plural(events.length, "event")} and the records of ${named(points)}`;
  requirePlan(shown, id, now);
  return id;
}

/** Takes the lock of a workspace, also of a released one, on which no other command works. */
export async function lockOf(workspace: Workspace, call: WorkspaceCall): Promise<Lock> {
  const { found } = workspace;
  return isReleased(found.workspace)
    ? acquireLock(found.paths.lock, lockingOf("cleanup", call))
    : workspace.lock("cleanup", call);
}

/**
 * Seals unsealed points. Finds the points with entries that `takes` matches, and the ids (latin1) of those files'
 * blobs. The caller holds all locks. Throws `damaged` for unreadable points, `permission` for clones that this user
 * cannot read completely.
 */
export async function findHolders(
  workspaces: readonly Workspace[],
  takes: TakenEntries,
  { seal, ...call }: CleanupCall,
): Promise<{ holders: PathHolder[]; content: Set<string> }> {
  const holders: PathHolder[] = [];
  const content = new Set<string>();
  for (const workspace of workspaces) {
    const isOpen = (point: Point): boolean => !point.sealed || holdsMore(workspace.points, point);
    const before = workspace.points.list().points.filter(isOpen);
    if (before.length > 0) await seal(workspace, call, before.map(({ sequence }) => sequence).toReversed());
    const { points, damaged } = workspace.points.list();
    if (damaged.length > 0) throw damaged[0]!.problem;
    const sealed = points.filter((point) => point.sealed || requireGone(workspace, point, call));
    const stored = await workspace.engine.reading(
      async () =>
        pathsInPoints(await workspace.engine.store(call), sealed.map(storedPoint), { takes, content, ...call }),
      call,
    );
    for (const point of sealed) {
      throwIfAborted(call.signal);
      const own = stored.get(point.descriptor.save_point_id) ?? [];
      const inClone = await pathsInClone(workspace, point, { takes, call });
      const paths = [...new Map([...own, ...inClone].map((path) => [latin1(path), path])).values()];
      if (paths.length === 0) continue;
      if (holdsMore(workspace.points, point)) throw unreadable(point);
      holders.push({ workspace, point, paths });
    }
  }
  requireNoViews(holders);
  return { holders, content };
}

/** Returns false for a point whose content is gone with its clone. Throws if the clone exists and could not be sealed. */
function requireGone({ points }: Workspace, point: Point, { onWarning }: WorkspaceCall): boolean {
  const id = point.descriptor.save_point_id.slice(0, 8);
  const place = treePlace(points, point);
  if (fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined)
    throw (
      heldTreeProblem(points, point) ??
      new CairnError(
        "unsupported",
        `the point ${id} could not be sealed, so Cairn does not know which paths it holds`,
        {
          hint: line("seal"),
        },
      )
    );
  onWarning?.(`the point ${id} is passed over: its clone is missing, and with it its content`);
  return false;
}

/** Finds paths in a point's clone. The clone also has ignored files, which the store lacks. */
async function pathsInClone(
  { points }: Workspace,
  point: Point,
  { takes, call }: { takes: TakenEntries; call: WorkspaceCall },
): Promise<Buffer[]> {
  const tree = treePlace(points, point);
  const isThere = fs.lstatSync(tree, { throwIfNoEntry: false })?.isDirectory() === true;
  return isThere ? pathsBelow(Buffer.from(tree), (path) => takes.fits(path), call.signal) : [];
}

function unreadable({ descriptor: { save_point_id: id } }: Point): CairnError {
  return new CairnError(
    "permission",
    `the point ${id.slice(0, 8)} holds such a path, and its clone has files that this user cannot read: they are in no other place, so the clone cannot be removed`,
    { hint: advice`as a user who can read all files, run ${line("seal")}, then try again` },
  );
}

function requireNoViews(holders: readonly PathHolder[]): void {
  const [first] = holders;
  const lease =
    first &&
    listLeases(first.workspace.found.control).find(({ save_point_id: id }) =>
      holders.some(({ point }) => point.descriptor.save_point_id === id),
    );
  if (lease === undefined) return;
  throw new CairnError(
    "refused",
    `a view of ${lease.save_point_id.slice(0, 8)} is open, which holds such a path: ${lease.path}`,
    { hint: line(`view --close ${lease.view_id}`, "closeView", lease.view_id) },
  );
}

export function storedPoint({ descriptor: { save_point_id: id, content, entries, bytes } }: Point): StoredPoint {
  return { id, content: content as unknown as CopyContent, entries, bytes };
}

/** Returns the paths of SQLite databases in points, by their labels. */
export function databasesIn(workspaces: readonly Workspace[]): string[] {
  const labels = workspaces.flatMap(({ points }) =>
    points.list().points.flatMap(({ descriptor }) => descriptor.labels),
  );
  const databases = labels.filter(({ label }) => label === "transaction-consistent" || label === "crash-consistent");
  return [...new Set(databases.map((label) => printablePath(rawPath(label))))].toSorted();
}

/** Returns the ignore file of a directory as it is now. Null for no file, and for one that a save warns of and ignores. */
export function ignoreFileNow(directory: Buffer): Buffer | null {
  try {
    return readRegular(joinRaw(directory, Buffer.from(IGNORE_FILE)), { limit: MAX_IGNORE_FILE_BYTES });
  } catch {
    return null;
  }
}

/** Tells if the `.cairnignore` files of a folder, as they are now, leave out a path below it. */
export function isIgnoredNow(root: Buffer, path: Uint8Array): boolean {
  const parts = Buffer.from(path).toString("latin1").split("/");
  let rules = IgnoreRules.fromExcludes([]);
  for (const [depth, name] of parts.entries()) {
    const directory = parts.slice(0, depth).join("/");
    const place = joinRaw(root, Buffer.from(directory, "latin1"));
    rules = IgnoreRules.enterDirectory(rules, directory, ignoreFileNow(place));
    const facts = fs.lstatSync(joinRaw(place, Buffer.from(name, "latin1")), { throwIfNoEntry: false });
    if (rules.ignores(name, facts?.isDirectory() === true)) return true;
  }
  return false;
}
