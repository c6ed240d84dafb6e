import { createHash } from "node:crypto";
import { presentSource } from "../archive/scan/present-source.ts";
import { rawPath } from "../formats/record.ts";
import { displayPath, normalizeTyped } from "../fs/safe-path.ts";
import { lookBeforeRestore, recoverIfIdle } from "../workspace/look.ts";
import type { Point } from "../workspace/point-files.ts";
import { lackingIn, publicLeftOut } from "../workspace/left-out.ts";
import { leftOutBefore } from "../workspace/restore-apply.ts";
import { type PlannedEntry, planRestore as planOf } from "../workspace/restore-plan.ts";
import { manifestOf, rulesOf, unknownIn } from "../workspace/restore.ts";
import { rootDifference, rootOfFolder, rootOfPoint } from "../workspace/root-changes.ts";
import { withoutMovedTimes } from "../workspace/tree-diff.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { PlanEntry, RestoreOptions, RestorePlan } from "../contract/points.ts";
import type { WorkspaceCallOptions } from "../contract/words.ts";
import { kindOf } from "../workspace/listed-entry.ts";
import { nothingToUndo } from "./restore.ts";
import { holdersOf } from "./status.ts";

/** What a restore would do now. */
export async function planRestore(workspace: Workspace, options: RestoreOptions): Promise<RestorePlan> {
  await recoverIfIdle(workspace, options);
  const paths = options.paths === undefined ? null : options.paths.map(normalizeTyped);
  return planTo(workspace, options, {
    target: workspace.resolve(options.target),
    paths,
    keepPresent: options.keepPresent ?? false,
  });
}

/** What an undo would do now. */
export async function planUndo(workspace: Workspace, options: WorkspaceCallOptions): Promise<RestorePlan> {
  await recoverIfIdle(workspace, options);
  const last = workspace.state().last_restore;
  if (last === null) throw nothingToUndo(workspace);
  return planTo(workspace, options, {
    target: workspace.resolve(last.undo_id),
    paths: last.paths?.map((path) => rawPath(path)) ?? null,
    keepPresent: false,
    mayLackPaths: true,
    takesBack: true,
  });
}

async function planTo(
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
  const scan = await lookBeforeRestore(workspace, options, rulesOf(target));
  const { entries, manifest } = await workspace.engine.reading(async () => {
    const source = await workspace.source(target);
    const manifest = await manifestOf(workspace, target);
    const unknown = unknownIn(workspace, manifest);
    const { signal } = options;
    const fields = { before: scan.summarise().lossless, after: manifest?.lossless ?? [] };
    const present = presentSource(scan);
    const entries = await planOf({ ...what, ...unknown, present, scan, target: source, fields, signal });
    return { entries, manifest };
  }, options);
  const { paths } = what;
  const ownRoot = paths === null ? plannedRoot(workspace, target) : [];
  const published = [...ownRoot, ...withoutMovedTimes(entries)].map(publicEntry);
  const leftOut = leftOutBefore(entries, scan, { paths, lacking: lackingIn(manifest, paths), notSet: [] });
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

/** What becomes of the folder itself: of one that is missing, nothing that was there. */
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
