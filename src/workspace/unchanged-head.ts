import type { TreeHolder } from "../engines/tree/holder.ts";
import { cannotBeWritten, toCairnError } from "../errors.ts";
import { hasSameRules, NO_CHANGES, sinceHead } from "./capture.ts";
import { lookAtWorkspace } from "./look.ts";
import { isUnchanged, leftOutOf, type Saved, type SaveInput } from "./record-point.ts";
import { sealPending } from "./seal.ts";
import type { Workspace } from "./workspace.ts";

/**
 * Head, where nothing has changed since; null where a point is to be made. No content is read for that while the holder
 * tells that something was written and nobody has asked what head holds: a point of a few milliseconds is made then, also
 * where the same was written again. Elsewhere the folder is looked at, and head sealed for it.
 */
export async function unchangedHead(workspace: Workspace, input: SaveInput, holder: TreeHolder): Promise<Saved | null> {
  let head = workspace.byId(workspace.state().head);
  if (head === null || !hasSameRules(head, input)) return null;
  const since = await sinceHead(workspace, head, { holder, from: workspace.root });
  if (typeof since === "object") return { point: head, changes: NO_CHANGES, readBytes: 0, leftOut: [] };
  if (!head.sealed) {
    if (since === "written") return null;
    try {
      await sealPending(workspace, { ...input, forward: undefined });
    } catch (error) {
      // To hold the folder takes less room than to read it.
      if (cannotBeWritten(toCairnError(error))) return null;
      throw error;
    }
    head = workspace.byId(head.descriptor.save_point_id);
  }
  if (head?.sealed !== true) return null;
  workspace.engine.prepare();
  const { scan } = await lookAtWorkspace(workspace, input, head);
  if (!isUnchanged(head, scan)) return null;
  return { point: head, changes: NO_CHANGES, readBytes: scan.notes.bytesRead, leftOut: leftOutOf(scan) };
}
