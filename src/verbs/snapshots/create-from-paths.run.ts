import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { DUMPS } from "../../archive/scan/task.ts";
import { createFromPaths as backUpPaths } from "../../backup/create/create-from-paths.ts";
import { checkSnapshotTags } from "../../backup/open/snapshots.ts";
import type { PathsBackupOptions, PathsBackupResult } from "../../contract/snapshots.ts";
import type { HookRun } from "../../contract/words.ts";
import { toCairnError } from "../../errors.ts";
import { isAtOrBelow, joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import type { RepositoryHand } from "../../keep/hand.ts";
import { duringHooks } from "../../keep/hooks.ts";
import { recoverWorkspace } from "../../workspace/open/recovery.ts";
import { Workspace } from "../../workspace/open/workspace.ts";
import { findWorkspace, type FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import { isFolderThere } from "../../workspace/place/control-directory.ts";
import { realOrItself } from "../../workspace/place/registry.ts";
import { withDumps } from "../../workspace/save/dumps.ts";

/**
 * Backs up folders and files as one snapshot, between the hooks of the workspaces in which they lie. The dumps of a
 * workspace are in the snapshot, also if `paths` name only a part of its folder.
 */
export async function createFromPaths(
  { access, parts }: RepositoryHand,
  paths: readonly string[],
  options: PathsBackupOptions,
): Promise<PathsBackupResult> {
  checkSnapshotTags(options.tags ?? []);
  const runs: HookRun[][] = [];
  const backUp = async ([found, ...more]: FoundWorkspace[], given: readonly string[]): Promise<PathsBackupResult> => {
    if (found === undefined) return backUpPaths(access, given, options);
    return duringHooks(found, "backup", options, async () =>
      duringHooks(found, "save", options, async (hooked) => {
        runs.push(hooked.runs);
        const others = more.filter(({ workspace: { id } }) => id !== found.workspace.id);
        if (hooked.dumps === null) return backUp(others, given);
        await using workspace = new Workspace(found, parts);
        using _lock = await workspace.lock("backup", options);
        await recoverWorkspace(workspace, options);
        const place = String(joinRaw(found.folder, DUMPS));
        const hasAll = given.some((each) => isAtOrBelow(found.folder, realOrItself(each)));
        return await withDumps(workspace, hooked.dumps, options, async () =>
          backUp(others, hasAll || !existsSync(place) ? given : [...given, place]),
        );
      }),
    );
  };
  const result = await backUp(options.hooks === false ? [] : workspacesOf(paths, options), paths);
  const hooks = runs.flat();
  return hooks.length === 0 ? result : { ...result, hooks };
}

/** The workspaces in which paths lie. Warns of a path whose workspace cannot be opened. */
function workspacesOf(paths: readonly string[], { onWarning }: PathsBackupOptions): FoundWorkspace[] {
  const found = new Map<string, FoundWorkspace | null>();
  for (const path of paths)
    try {
      const folder = isFolderThere(Buffer.from(path)) ? path : dirname(path);
      if (!found.has(folder)) found.set(folder, findWorkspace(folder));
    } catch (error) {
      onWarning?.(`no hooks run for ${printablePath(path)}: ${toCairnError(error).message}`);
    }
  return [...found.values()].filter((each) => each !== null);
}
