import { CairnError } from "../errors.ts";
import { printablePath } from "../fs/safe-path.ts";
import { capturePoint, whyNotHeld } from "./capture.ts";
import { removeOriginal } from "./kept-original.ts";
import { givenPatterns } from "./given-patterns.ts";
import { requireFolder } from "./missing-folder.ts";
import type { Point } from "./point-files.ts";
import { recordPoint, type Saved, type SaveInput } from "./record-point.ts";
import { isOtherFolder, recordFolder } from "./recorded-folder.ts";
import { recoverWorkspace } from "./recovery.ts";
import { guardSpace } from "./save-guard.ts";
import { keepSpareRoom } from "./temporaries.ts";
import { unchangedHead } from "./unchanged-head.ts";
import type { Workspace } from "./workspace.ts";

/** Starts what a save will want, so that it overlaps with other work. */
export function prepareSave({ engine }: Workspace): void {
  if (engine.holder === null) engine.prepare();
  else engine.holder.prepare?.();
}

export interface SavedOrHead extends Saved {
  /** false: nothing had changed, and it is head */
  made: boolean;
}

/** Saves a workspace: takes its lock, finishes what an earlier unclean end left, records the folder as one point. */
export async function saveWorkspace(workspace: Workspace, given: SaveInput): Promise<SavedOrHead> {
  const { holder } = workspace.engine;
  requireFolder(workspace);
  const exclude = givenPatterns(workspace.root, given.exclude ?? [], given.onWarning);
  const input: SaveInput = { ...given, exclude };
  prepareSave(workspace);
  using _lock = await workspace.lock("save", input);
  await recoverWorkspace(workspace, input);
  requireFolder(workspace);
  acceptOtherFolder(workspace, input);
  const state = workspace.state();
  const head = workspace.byId(state.head);
  if (input.onDetached === "refuse") refuseDetached(workspace, head);
  if (holder !== null) {
    // What a held tree comes to cost is known when it is sealed.
    await guardSpace(workspace, { ...input, first: false });
    keepSpareRoom(workspace.found.control);
    const passedOver = whyNotHeld(workspace, input);
    const isAsked = input.skipUnchanged === true && passedOver === null;
    const same = isAsked ? await unchangedHead(workspace, input, holder) : null;
    const saved = same ?? (await capturePoint(workspace, input, { holder, passedOver }));
    return await withoutOriginal(workspace, input, { saved, head });
  }
  await guardSpace(workspace, { ...input, first: head === null });
  const saved = await recordPoint(workspace, input, { rules: null, undo: false });
  return await withoutOriginal(workspace, input, { saved, head });
}

async function withoutOriginal(
  workspace: Workspace,
  input: SaveInput,
  { saved, head }: { saved: Saved; head: Point | null },
): Promise<SavedOrHead> {
  await removeOriginal(workspace, saved.point, input);
  return { ...saved, made: saved.point.descriptor.save_point_id !== head?.descriptor.save_point_id };
}

/** The path decides which folder is kept; that another one lies there now is said once, by the save that records it. */
function acceptOtherFolder({ found }: Workspace, input: SaveInput): void {
  // What was recovered a moment ago may have recorded it.
  if (!found.rootChanged || !isOtherFolder(found)) return;
  recordFolder(found);
  input.onWarning?.(
    `${printablePath(found.folder)} is another folder than the one that was saved before; the path decides, so its save points go on`,
  );
}

function refuseDetached(workspace: Workspace, head: Point | null): void {
  const latest = workspace.points.latest();
  if (head === null || latest === null || head.descriptor.save_point_id === latest.descriptor.save_point_id) return;
  throw new CairnError(
    "detached",
    `the workspace stands at ${head.descriptor.save_point_id.slice(0, 8)}, which is not the latest point`,
    {
      hint: "restore latest first, or save without refusing",
    },
  );
}
