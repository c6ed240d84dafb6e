import { createHash } from "node:crypto";
import { displayPath, normalizeTyped } from "../fs/paths/safe-path.ts";
import { rawPath } from "../formats/records/record.ts";
import { neverRead, type Workspace } from "../workspace/open/workspace.ts";
import type { PlanEntry, RestoreOptions, RestorePlan, WorkspaceCallOptions } from "../contract/index.ts";
import { lackingIn, type LeftOutEntry, noteDamaged, publicLeftOut } from "../workspace/points/left-out.ts";
import { presentSource } from "../archive/scan/present-source.ts";
import { lookBeforeRestore, recoverIfIdle } from "../workspace/save/look.ts";
import { type Point, rulesOf } from "../workspace/points/point-files.ts";
import { leftOutBefore } from "../workspace/restore/apply.ts";
import { type PlannedEntry, planRestore as planOf } from "../workspace/restore/plan.ts";
import { rootDifference, rootOfFolder, rootOfPoint } from "../workspace/points/root-changes.ts";
import { withoutMovedTimes } from "../workspace/points/tree-diff.ts";
import { kindOf } from "../workspace/points/listed-entry.ts";
import { holdersOf } from "./status.ts";
import { withSidecars } from "../workspace/restore/open-databases.ts";
import { unknownIn } from "../workspace/restore/prepare.ts";
import { advice, CairnError, line, see } from "../errors.ts";
import type { LastRestore } from "../formats/records/control.ts";
import { requireFolder } from "../workspace/open/missing-folder.ts";

/** Plans what a restore would do now. */
export async function planRestore(workspace: Workspace, options: RestoreOptions): Promise<RestorePlan> {
  await recoverIfIdle(workspace, options);
  const paths = options.paths === undefined ? null : options.paths.map(normalizeTyped);
  const target = workspace.resolve(options.target);
  return planTo(workspace, options, {
    target,
    paths: withSidecars([workspace.root], target.descriptor, paths),
    keepPresent: options.keepPresent ?? false,
  });
}

/** Plans what an undo would do now. */
export async function planUndo(workspace: Workspace, options: WorkspaceCallOptions): Promise<RestorePlan> {
  await recoverIfIdle(workspace, options);
  const last = restoreToUndo(workspace);
  return planTo(workspace, options, {
    target: workspace.resolve(last.undo_id),
    paths: last.paths?.map((path) => rawPath(path)) ?? null,
    keepPresent: false,
    mayLackPaths: true,
    takesBack: true,
  });
}

/** Plans a restore to a point; nothing is changed. */
export async function planTo(
  workspace: Workspace,
  options: WorkspaceCallOptions,
  wanted: {
    target: Point;
    paths: readonly Uint8Array[] | null;
    keepPresent: boolean;
    mayLackPaths?: boolean;
    takesBack?: boolean;
  },
): Promise<RestorePlan> {
  const { target, ...what } = wanted;
  if (!target.sealed) throw neverRead(target);
  const scan = await lookBeforeRestore(workspace, options, rulesOf(target));
  const damaged: LeftOutEntry[] = [];
  const { entries, manifest } = await workspace.engine.reading(async () => {
    const source = await workspace.source(target);
    const manifest = await workspace.manifest(target);
    const unknown = unknownIn(workspace, manifest);
    const { signal } = options;
    const fields = { before: scan.summarise().lossless, after: manifest?.lossless ?? [] };
    const present = presentSource(scan);
    const onDamaged = noteDamaged(damaged, what.paths);
    const entries = await planOf({ ...what, ...unknown, present, scan, target: source, fields, onDamaged, signal });
    return { entries, manifest };
  }, options);
  const { paths } = what;
  const ownRoot = paths === null ? plannedRoot(workspace, target) : [];
  const published = [...ownRoot.map(publicEntry), ...withoutMovedTimes(entries).map(publicEntry)];
  const lacking = [...lackingIn(manifest, paths), ...damaged];
  const leftOut = leftOutBefore(entries, scan, { paths, lacking, notSet: [] });
  return {
    id: createHash("sha256")
      .update(JSON.stringify([target.descriptor.save_point_id, published]))
      .digest("hex")
      .slice(0, 32),
    restored_to: target.descriptor.save_point_id,
    entries: published,
    left_out: leftOut.map(publicLeftOut),
    holders: holdersOf(workspace),
  };
}

/** Plans what becomes of the folder itself: of one that is missing, nothing that was there. */
function plannedRoot({ root }: Workspace, target: Point): PlannedEntry[] {
  const difference = rootDifference(rootOfPoint(target), rootOfFolder(root));
  if (difference === null) return [];
  const { before: after, after: before } = difference;
  return [{ ...difference, before, after, action: "metadata", old: null }];
}

function publicEntry({ path, action, before, after, reason }: PlannedEntry): PlanEntry {
  return {
    ...displayPath(path),
    action,
    kind: kindOf((after ?? before)!),
    ...(after?.type === "file" && (action === "create" || action === "update") ? { size: after.size } : {}),
    ...(reason === undefined ? {} : { reason }),
  };
}

/** Returns the restore that an undo takes back. Throws `nothing_to_undo` also if the last restore changed nothing. */
export function restoreToUndo(workspace: Workspace): LastRestore {
  const last = workspace.state().last_restore;
  if (last === null) throw nothingToUndo(workspace);
  const { undo_id: undo, restored_to: before, then_unchanged: later } = last;
  if (later === undefined) return last;
  throw new CairnError(
    "nothing_to_undo",
    `the last restore, to ${later.restored_to.slice(0, 8)}, changed nothing, so there is nothing to undo`,
    {
      hint: advice`to undo the earlier restore (to ${before.slice(0, 8)}): ${line(`restore ${undo.slice(0, 8)}`, "restore", { target: undo.slice(0, 8) })}`,
    },
  );
}

/**
 * Makes the error for an undo without a restore; where the folder itself is missing, that is what somebody wants back.
 */
function nothingToUndo(workspace: Workspace): CairnError {
  requireFolder(workspace);
  return new CairnError("nothing_to_undo", "nothing has been restored here, so there is nothing to undo", {
    hint: see("history"),
  });
}
