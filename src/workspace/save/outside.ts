import { CairnError, toCairnError } from "../../errors.ts";
import { NearPacks } from "../../repository/read/near-packs.ts";
import type { OutsidePoint } from "../open/siblings.ts";
import { takenOver } from "../open/siblings.ts";
import { recoverWorkspace } from "../open/recovery.ts";
import { Workspace, type WorkspaceCall } from "../open/workspace.ts";
import { realPathOf, workspaceAt } from "../place/find-workspace.ts";
import { neverRead, type Point } from "../points/point-files.ts";
import { rootOfPoint } from "../points/root-changes.ts";
import { storedTree } from "../store/store-care.ts";
import type { PointContent } from "../store/engine.ts";
import { plainFiles, viewOf } from "../../archive/databases/point-view.ts";
import { receivePoint } from "./receive.ts";
import { withSealed } from "./seal.ts";

/** Runs `work`. If `work` needs a point of a workspace with another store, receives that point and runs `work` again. */
export async function withOutside<T>(workspace: Workspace, call: WorkspaceCall, work: () => Promise<T>): Promise<T> {
  const received = new Set<string>();
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const outside = toCairnError(error).details?.["outside"] as OutsidePoint | undefined;
      if (outside === undefined || received.has(outside.id)) throw error;
      received.add(outside.id);
      await receiveOutside(workspace, outside, call);
      workspace.points.refresh();
    }
  }
}

/** Makes a point here from a point whose content another store has. The new point becomes neither head nor latest. */
export async function receiveOutside(
  workspace: Workspace,
  { folder, id }: OutsidePoint,
  call: WorkspaceCall,
): Promise<Point> {
  const found = workspaceAt(realPathOf(folder));
  if (found === null) throw new CairnError("not_a_workspace", `${folder} is not a workspace any more`);
  await using other = new Workspace(found, workspace.parts, workspace.removals);
  return await withSealed(other, call, async () => {
    const point = other.byId(id);
    if (point === null) throw new CairnError("not_found", `the point ${id.slice(0, 8)} of ${folder} is gone`);
    if (!point.sealed) throw neverRead(point);
    return other.engine.reading(async () => receive(workspace, { other, point }, call), call);
  });
}

async function receive(
  workspace: Workspace,
  { other, point }: { other: Workspace; point: Point },
  call: WorkspaceCall,
): Promise<Point> {
  const { save_point_id: id, workspace_name: name, message, content, rules } = point.descriptor;
  const store = await other.engine.store(call);
  const { repository, index, blobs } = store;
  const view = await viewOf(store, content as unknown as PointContent);
  const manifest = await other.manifest(point);
  if (manifest === null) throw new CairnError("damaged", `the point ${id.slice(0, 8)} has no manifest`);
  using _lock = await workspace.lock("receive", call);
  await recoverWorkspace(workspace, call);
  const known = takenOver(workspace.points, id);
  if (known !== null) return known;
  const near = new NearPacks(repository.storage, "");
  return await receivePoint(workspace, {
    ...call,
    content: {
      from: { repository, index, blobs, near, onDamagedPack: () => undefined },
      tree: Buffer.from(storedTree(content), "hex"),
      files: plainFiles(view),
      rootMetadata: rootOfPoint(point),
      manifest,
      paths: null,
    },
    excludes: rules.exclude,
    message: `${name}: ${message || id.slice(0, 8)}`.slice(0, 1000),
    cause: { kind: "adopt", from: id, from_workspace: name },
    undo: true,
  });
}
