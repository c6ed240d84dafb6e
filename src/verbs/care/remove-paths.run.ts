import { recordsWith, removeTexts, takesOf, textsToRemove } from "../../change/remove-texts.ts";
import { CairnError, cannotBeWritten, toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { plural } from "../../formats/sizes.ts";
import { acquireLock, type Lock } from "../../fs/lock.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import { displayPath, joinRaw, listedNames, printablePath, shellQuote } from "../../fs/paths/safe-path.ts";
import { warnOfFreed } from "../../workspace/keep/cleanup.ts";
import {
  databasesIn,
  findHolders,
  isIgnoredNow,
  lockOf,
  type PathHolder,
  requireShown,
  type TextHolders,
} from "../../workspace/keep/paths-to-remove.ts";
import { finishRemovals, removePaths as removeFound } from "../../workspace/keep/remove-paths.ts";
import { pathsWith } from "../../workspace/keep/still-held.ts";
import { recoverWorkspace } from "../../workspace/open/recovery.ts";
import { makingRoom } from "../../workspace/open/temporaries.ts";
import { type Workspace, type WorkspaceCall, workspacesBeside } from "../../workspace/open/workspace.ts";
import { readBackupNotes } from "../../workspace/place/backup-notes.ts";
import { isFolderThere, isReleased, listWorkspaces } from "../../workspace/place/control-directory.ts";
import { lockingOf } from "../../workspace/place/registry.ts";
import { sealPoints } from "../../workspace/save/seal.ts";
import type { RemovePathsOptions, RemovePathsResult } from "./remove-paths.ts";
import { lstatSync } from "node:fs";

/** The most points, paths of a point, and databases in an answer. */
const [MOST_POINTS, MOST_PATHS, MOST_DATABASES] = [1000, 20, 20];

/** Removes paths and texts from all points of the control directory, or with `dryRun` lists the points that have them. */
export async function removePaths(workspace: Workspace, options: RemovePathsOptions): Promise<RemovePathsResult> {
  const { control } = workspace.found;
  // A path completed by the shell may begin with the folder's path.
  const lead = `${workspace.root.toString("utf8")}/`;
  const { paths: given = [], text = [], dryRun = false } = options;
  const paths = given.map((path) => (path.startsWith(lead) ? path.slice(lead.length - 1) : path));
  const takes = paths.length === 0 && text.length > 0 ? null : takesOf(paths);
  const texts = textsToRemove(text, { takes, lead });
  const others = workspacesBeside(workspace);
  const all = [workspace, ...others];
  const locks: Lock[] = [];
  const begin = async (): Promise<void> => {
    // All calls take the locks in the same order, so two calls never wait for each other.
    for (const each of all.toSorted((a, b) => (a.found.workspace.name < b.found.workspace.name ? -1 : 1)))
      locks.push(await makingRoom(control, async () => lockOf(each, options)));
    for (const each of all)
      if (!isReleased(each.found.workspace)) await makingRoom(control, async () => recoverWorkspace(each, options));
    locks.push(await acquireLock(control.lock, lockingOf("cleanup", options)));
    await finishRemovals(all, options);
  };
  try {
    const seal = await begin().then(
      () => sealPoints,
      (error: unknown) => {
        // A plan only reads. On a read-only disk nobody writes meanwhile.
        if (!dryRun || !cannotBeWritten(toCairnError(error))) throw error;
        return async () => undefined;
      },
    );
    const found = await removeTexts(all, texts, { ...options, dryRun: true });
    if (takes !== null) requireNothingMade(workspace);
    const none = { holders: [], content: new Set<string>() };
    const { holders, content } = takes === null ? none : await findHolders(all, takes, { ...options, seal });
    const id = requireShown(options.plan, { paths, text }, { holders, ...found });
    const answer = answerOf(all, holders, { id, paths, dryRun, found });
    if (dryRun) return answer;
    // Events that came meanwhile, and lines that a full disk cut off, go too.
    await makingRoom(control, async () => removeTexts(all, texts, { dryRun }));
    const records = text.length === 0 ? [] : recordsWith(text, control.root);
    if (records.length > 0) {
      answer.complete = false;
      options.onWarning?.(
        `such a text is still in ${listedNames(records)}: change the rule, hook, schedule or name that has it; the daemon's records of calls end after a day`,
      );
    }
    if (holders.length === 0) return answer;
    const freed = await removeFound(all, holders, options);
    warnOfFreed(control, freed, options);
    // The store then has content of these blobs only for files at other paths.
    if (freed.complete) answer.same_content = (await pathsWith(all, content, options)).map((path) => displayPath(path));
    warnOfRest(workspace, answer, options);
    const isAlone = listWorkspaces(control).length === all.length;
    if (!isAlone) options.onWarning?.("a workspace was added meanwhile: run the command again");
    return { ...answer, bytes_freed: freed.bytesFreed, complete: answer.complete && freed.complete && isAlone };
  } finally {
    for (const lock of locks.toReversed()) lock.release();
    for (const other of others) await other.close();
  }
}

/** Throws `busy` while a fork, view or restored folder is made: the new folder would still get the removed paths. */
function requireNothingMade({ found }: Workspace): void {
  if (namesIfThere(found.control.partial).length === 0) return;
  throw new CairnError("busy", "another process makes a folder from one of the points", {
    hint: "try again when its command has ended",
  });
}

function answerOf(
  all: readonly Workspace[],
  holders: readonly PathHolder[],
  { id: plan, paths, dryRun, found }: { id: string; paths: readonly string[]; dryRun: boolean; found: TextHolders },
): RemovePathsResult {
  const ids = new Set<string>(holders.map(({ point }) => point.descriptor.save_point_id));
  return {
    dry_run: dryRun,
    plan_id: plan,
    points: holders.slice(0, MOST_POINTS).map(({ workspace, point, paths: own }) => ({
      save_point_id: point.descriptor.save_point_id,
      workspace_name: workspace.found.workspace.name,
      undo: point.descriptor.undo,
      pinned: point.pin !== null,
      paths: own.slice(0, MOST_PATHS).map((path) => displayPath(path)),
      path_count: own.length,
    })),
    point_count: holders.length,
    event_count: found.events.length,
    cause_count: found.points.length,
    bytes_freed: 0,
    complete: true,
    repositories: all.flatMap(({ found }) =>
      readBackupNotes(found.paths).flatMap(({ location, save_point_id: id, earlier = [] }) => {
        const points = [id, ...earlier].filter((each) => ids.has(each));
        const excludes = paths.map((path) => `--exclude ${shellQuote(path)}`).join(" ");
        const command = `cairn backup rewrite -r ${shellQuote(location)} ${excludes} --forget`;
        return points.length === 0 ? [] : [{ location, save_point_ids: points.slice(0, 100), command }];
      }),
    ),
    same_content: [],
    in_folders: all.flatMap((workspace) => inFolder(workspace, holders)),
    databases: databasesIn(all).slice(0, MOST_DATABASES),
  };
}

/** Returns removed paths that the next save of a workspace's folder would store again. */
function inFolder({ root, found }: Workspace, holders: readonly PathHolder[]): RemovePathsResult["in_folders"] {
  if (isReleased(found.workspace) || !isFolderThere(root)) return [];
  const own = holders.filter(({ workspace }) => workspace.found === found).flatMap(({ paths }) => paths);
  const paths = new Map(own.map((path) => [latin1(path), path]));
  return [...paths.values()]
    .filter(
      (path) => lstatSync(joinRaw(root, path), { throwIfNoEntry: false }) !== undefined && !isIgnoredNow(root, path),
    )
    .slice(0, MOST_POINTS)
    .map((path) => ({ ...displayPath(path), workspace_name: found.workspace.name }));
}

/** Warns of other places that may hold the removed content. */
function warnOfRest({ found }: Workspace, answer: RemovePathsResult, { onWarning }: WorkspaceCall): void {
  const { repositories, same_content: same, in_folders: present, databases } = answer;
  for (const { location, command, save_point_ids: ids } of repositories)
    onWarning?.(
      `${plural(ids.length, "point")} with these paths ${ids.length === 1 ? "was" : "were"} backed up into ${location}. To remove the paths there: ${command}; then: cairn backup prune -r ${shellQuote(location)} --max-unused 0 --instant`,
    );
  if (same.length > 0)
    onWarning?.(
      `the points have content of the removed files at other paths, too: ${listedNames(same.map(({ path }) => path))}`,
    );
  const places = present.map(({ path, workspace_name: name }) =>
    name === found.workspace.name ? path : `${path} (workspace ${name})`,
  );
  if (present.length > 0)
    onWarning?.(
      `still in the folder: ${listedNames(places)}. The next save stores it again: remove it, or name it in .cairnignore`,
    );
  if (databases.length > 0)
    onWarning?.(
      `rows inside SQLite databases are out of reach, also deleted ones: the points have ${listedNames(databases)}`,
    );
  const kept = namesIfThere(found.control.kept).map((name) =>
    printablePath(Buffer.from(`${found.control.kept}/${name}`)),
  );
  if (kept.length > 0)
    onWarning?.(`interrupted commands left files in ${listedNames(kept)}: look into them, then remove them`);
}
