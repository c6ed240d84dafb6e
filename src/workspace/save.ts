import { CairnError } from "../errors.ts";
import type { Point } from "./points.ts";
import { recordPoint, type Saved, type SaveInput } from "./record-point.ts";
import { recoverWorkspace } from "./recovery.ts";
import { guardSpace } from "./save-guard.ts";
import type { Workspace } from "./workspace.ts";

/** Saves a workspace: takes its lock, finishes what an earlier unclean end left, records the folder as one point. */
export async function saveWorkspace(workspace: Workspace, input: SaveInput): Promise<Saved> {
  workspace.engine.prepare();
  using _lock = await workspace.lock("save", input);
  await recoverWorkspace(workspace, input);
  const state = workspace.state();
  const head = workspace.byId(state.head);
  if (input.onDetached === "refuse") refuseDetached(workspace, head);
  await guardSpace(workspace, { ...input, first: head === null });
  return await recordPoint(workspace, input, { rules: null, undo: false });
}

function refuseDetached(workspace: Workspace, head: Point | null): void {
  const latest = workspace.points.latest();
  if (head === null || latest === null || head.descriptor.save_point_id === latest.descriptor.save_point_id) return;
  throw new CairnError("detached", `the workspace stands at ${head.descriptor.save_point_id.slice(0, 8)}, which is not the latest point`, {
    hint: "restore latest first, or save without refusing",
  });
}
