import type { TreeHolder } from "../engines/tree/holder.ts";
import { toCairnError } from "../errors.ts";
import { hasSameRules, NO_CHANGES, sinceHead } from "./capture.ts";
import { lookUntilDifferent } from "./look.ts";
import type { Point } from "./point-files.ts";
import { isUnchanged, leftOutOf, type Saved, type SaveInput } from "./record-point.ts";
import { isSameRoot, rootOfFolder, rootOfPoint } from "./root-changes.ts";
import { sealPending } from "./seal.ts";
import type { Workspace } from "./workspace.ts";

/**
 * Head, where nothing has changed since; null where a point is to be made, also since something keeps that from being
 * told. No content is read for that while the holder tells that something was written and nobody has asked what head
 * holds: a point of a few milliseconds is made then, also where the same was written again. Elsewhere the folder is
 * looked at up to the first entry that differs, and head sealed for it.
 */
export async function unchangedHead(workspace: Workspace, input: SaveInput, holder: TreeHolder): Promise<Saved | null> {
  const head = workspace.byId(workspace.state().head);
  if (head === null || !hasSameRules(head, input)) return null;
  try {
    return await headIfSame(workspace, input, { head, holder });
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code === "interrupted") throw problem;
    // To hold the folder takes no store, and less room than to read it.
    input.onWarning?.(
      `a save point is made, as it could not be told whether something has changed: ${problem.message}`,
    );
    return null;
  }
}

async function headIfSame(
  workspace: Workspace,
  input: SaveInput,
  { head, holder }: { head: Point; holder: TreeHolder },
): Promise<Saved | null> {
  const since = await sinceHead(workspace, head, { holder, from: workspace.root });
  if (typeof since === "object") return { point: head, changes: NO_CHANGES, readBytes: 0, leftOut: [] };
  if (!head.sealed) {
    if (since === "written") return null;
    await sealPending(workspace, { ...input, forward: undefined });
  }
  const known = workspace.byId(head.descriptor.save_point_id);
  // What this user cannot read may have changed, and a held tree has it.
  if (known?.sealed !== true || !known.descriptor.complete) return null;
  const root = rootOfFolder(workspace.root);
  if (!isSameRoot(rootOfPoint(known), root)) return null;
  workspace.engine.prepare();
  const looked = await lookUntilDifferent(workspace, input, known);
  if (looked === null || !isUnchanged(known, looked.scan, root) || leftOutOf(looked.scan).length > 0) return null;
  return { point: known, changes: NO_CHANGES, readBytes: looked.scan.notes.bytesRead, leftOut: [] };
}
