import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { CairnError, see } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { ViewFile } from "../../formats/records/view.ts";
import { durableMkdir } from "../../fs/durable.ts";
import { removeAll, requireUnmounted } from "../../fs/remove-all.ts";
import { leasePath, listLeases, removeLease, writeLease } from "../place/control-directory.ts";
import { NewFolder } from "./new-folder.ts";
import { neverRead, type Point } from "../points/point-files.ts";
import type { LeftOutEntry } from "../points/left-out.ts";
import { requireStillThere, writeContent } from "./write-point.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";

/**
 * Opens a view: a read-only copy of a point in the control directory. The lease is the commit point. The lease protects
 * the point until the view is closed, even after the opening process has ended.
 */
export async function openView(
  workspace: Workspace,
  point: Point,
  call: WorkspaceCall,
): Promise<{ lease: ViewFile; leftOut: LeftOutEntry[] }> {
  const { control } = workspace.found;
  if (!point.sealed) throw neverRead(point);
  workspace.requireNotOthers();
  return workspace.engine.reading(async () => {
    requireStillThere(workspace, point);
    const id = randomBytes(8).toString("hex");
    const folder = join(control.views, id);
    durableMkdir(control.views);
    const partial = NewFolder.begin(control, "view", Buffer.from(folder));
    try {
      const { leftOut } = await writeContent(workspace, {
        ...call,
        point,
        folder: partial.staging,
        paths: null,
        readOnly: true,
      });
      const lease: ViewFile = {
        view_id: id,
        save_point_id: point.descriptor.save_point_id,
        workspace_id: workspace.found.workspace.id,
        path: folder,
        opened_at: new Date().toISOString(),
        method: "copy",
      };
      partial.commit();
      // The mode is set only now: the folder had to be writable for the rename.
      fs.chmodSync(folder, 0o555);
      failpoint("view.folder-named");
      await leaseNow(workspace, { point, lease }, call);
      failpoint("view.leased");
      partial.end();
      return { lease, leftOut };
    } catch (error) {
      removeAll(folder);
      partial.abandon();
      throw error;
    }
  }, call);
}

/** Writes the lease under the workspace's lock, so that no cleanup runs at the same time. */
async function leaseNow(
  workspace: Workspace,
  { point, lease }: { point: Point; lease: ViewFile },
  call: WorkspaceCall,
): Promise<void> {
  using _lock = await workspace.lock("view", call);
  requireStillThere(workspace, point);
  writeLease(workspace.found.control, lease);
}

/**
 * Closes a view and removes its folder. Throws `not_found` if the view is not open.
 * - Intent: the folder is recorded. Commit: the lease is removed, and with it the point's protection. Then the folder.
 * - A kill before the commit leaves the view open. A kill later leaves a folder that the next command removes.
 */
export function closeView(workspace: Workspace, id: string): ViewFile {
  const { control } = workspace.found;
  leasePath(control, id);
  const lease = listLeases(control).find(({ view_id }) => view_id === id);
  if (lease === undefined)
    throw new CairnError("not_found", `no view ${id} is open here`, { hint: see("view", "listViews") });
  const folder = Buffer.from(join(control.views, id));
  requireUnmounted(folder);
  const closing = NewFolder.beginClosing(control, "view", folder);
  try {
    removeLease(control, id);
  } catch (error) {
    closing.end();
    throw error;
  }
  failpoint("view.lease-removed");
  removeAll(folder);
  failpoint("view.folder-removed");
  closing.end();
  return lease;
}
