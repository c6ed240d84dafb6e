import { type BackedUp, createBackup as putPoint, type Forwarding, forwarding } from "../backup/create/create.ts";
import { checkProbes, rememberProbes } from "../backup/open/checks.ts";
import { callOf, type OpenRepository } from "../backup/open/open-repository.ts";
import { withoutOwn } from "../backup/open/own-folder.ts";
import { restoreBackupInPlace } from "../backup/restore/restore-in-place.ts";
import { checkSnapshotTags } from "../backup/open/snapshots.ts";
import type {
  BackupRepository,
  CreateBackupOptions,
  CreateBackupResult,
  RestoreInPlaceOptions,
  RestoreInPlaceResult,
} from "../contract/index.ts";
import { CairnError } from "../errors.ts";
import { publicLeftOut } from "../workspace/points/left-out.ts";
import { withSealed } from "../workspace/save/seal.ts";
import { prepareSave, saveWorkspace } from "../workspace/save/save.ts";
import { lookBesideHead } from "../workspace/save/look.ts";
import { isFolderThere } from "../workspace/place/control-directory.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { secretsOf } from "../look/public-point.ts";
import type { SavePointId } from "../ids.ts";
import { accessOf } from "./opened-repository.ts";
import type { Opened } from "./hand.ts";
import { duringHooks, hookedInput } from "./hooks.ts";
import { keptOnly, keptProbes, recordingEnd } from "./kept-runs.ts";

/** Backs up a save point into a repository. If no point is named, saves the folder first, in the same pass. */
export async function createBackup(
  hand: Opened,
  into: BackupRepository | Promise<BackupRepository>,
  options: CreateBackupOptions,
): Promise<CreateBackupResult> {
  const { kept, dryRun, probe } = options;
  if (kept !== true) return putBackup(hand, into, options);
  const own = probe ?? (await hand.within(options.workspaceName, async (workspace) => keptProbes(workspace)));
  const checked = keptOnly(hand.within, options, into);
  const backUp = async (): Promise<CreateBackupResult> => putBackup(hand, checked, { ...options, probe: own });
  return dryRun === true ? backUp() : recordingEnd(hand.within, options, backUp);
}

async function putBackup(
  { within }: Opened,
  into: BackupRepository | Promise<BackupRepository>,
  options: CreateBackupOptions,
): Promise<CreateBackupResult> {
  const { workspaceName: name, save, point } = options;
  if (save === true && point !== undefined)
    throw new CairnError("usage", "leave out `save`: `point` names the point to back up, so nothing is saved first");
  const { probe = [], onWarning } = options;
  checkProbes(probe);
  if (options.dryRun !== true) rememberProbes(probe, onWarning);
  // A dry run changes nothing: it reports head, and the changes of the folder since.
  const isSaved = save !== false && point === undefined && options.dryRun !== true;
  if (isSaved && into instanceof Promise) await within(name, async (workspace) => prepareSave(workspace));
  return accessOf("createBackup", await into).during(options, async (access) => {
    if (!isSaved)
      return within(name, async (workspace) => {
        if (point === undefined) await warnOfUnsaved(workspace, options);
        const result = await withSealed(workspace, options, async () => putPoint(workspace, access, options));
        return { ...result, ...(await factsIn(workspace, result, options)) };
      });
    // Checked before anything is saved.
    checkSnapshotTags(options.tags ?? []);
    const found = await within(name, async (workspace) => workspace.found);
    return duringHooks(found, "backup", options, async () => saveAndBackUp(within, access, options));
  });
}

async function factsIn(
  workspace: Workspace,
  { save_point_id: id, dry_run: isDry }: BackedUp,
  options: CreateBackupOptions,
): Promise<Pick<CreateBackupResult, "secrets" | "rows">> {
  const point = workspace.byId(id as SavePointId);
  if (point === null) return { secrets: null, rows: [] };
  return {
    secrets: secretsOf(point),
    rows: isDry ? [] : await (await import("../look/check-rows.ts")).checkRowsOfSaved(workspace, point, options),
  };
}

async function warnOfUnsaved(workspace: Workspace, options: CreateBackupOptions): Promise<void> {
  const head = workspace.byId(workspace.state().head);
  if (head === null || !isFolderThere(workspace.root)) return;
  const call = callOf(options);
  const { changes } = await lookBesideHead(workspace, { ...call, head });
  const counts = Object.entries(changes).flatMap(([what, count]) => (count === 0 ? [] : [`${count} ${what}`]));
  const saves = options.dryRun === true && options.save !== false;
  const why = saves
    ? "changed since the last save point, and not part of this dry run, which saves nothing"
    : "not in the backup, because these changes were not saved";
  if (counts.length > 0) options.onWarning?.(`${why}: ${counts.join(", ")}`);
}

async function saveAndBackUp(
  within: Opened["within"],
  access: OpenRepository,
  options: CreateBackupOptions,
): Promise<CreateBackupResult> {
  const { workspaceName: name } = options;
  return forwarding(access, options, async (to: Forwarding): Promise<CreateBackupResult> =>
    within(name, async (workspace) => {
      const forward = to.packs ?? undefined;
      const exclude = withoutOwn(access, workspace.root, options);
      // The tags are those of the snapshot.
      const input = { ...options, tags: [], exclude, skipUnchanged: true, forward };
      const { point, scan, leftOut } = await duringHooks(workspace.found, "save", input, async (hooked) =>
        saveWorkspace(workspace, hookedInput(input, hooked)),
      );
      const saved = { ...options, point: point.descriptor.save_point_id };
      const forwarded = { ...to, isNewPoint: scan !== undefined };
      const call = { ...options, forward: forward && { point: saved.point, to: forward } };
      const result = await withSealed(workspace, call, async () => putPoint(workspace, access, saved, forwarded));
      return { ...result, left_out: leftOut.map(publicLeftOut), ...(await factsIn(workspace, result, options)) };
    }),
  );
}

/** Makes the folder equal to a snapshot. */
export async function restoreBackup(
  { within }: Opened,
  from: BackupRepository,
  snapshot: string,
  options: RestoreInPlaceOptions,
): Promise<RestoreInPlaceResult> {
  return accessOf("restoreBackup", from).during(options, async (access) =>
    within(options.workspaceName, async (workspace) =>
      restoreBackupInPlace(workspace, access, { ...options, snapshot }),
    ),
  );
}
