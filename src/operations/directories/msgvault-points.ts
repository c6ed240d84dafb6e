import { chmodSync, mkdirSync, statSync } from "node:fs";
import { MsgvaultRepository } from "../../bundle/msgvault/repository.ts";
import type { MsgvaultPoints } from "../../contract/msgvault.ts";
import type { WorkspaceCallOptions } from "../../contract/words.ts";
import { failpoint } from "../../failpoint.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { recoverWorkspace } from "../../workspace/open/recovery.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { checkPointTags } from "../../workspace/points/targets.ts";
import { takeInFolder } from "../../workspace/save/receive.ts";
import { publicPoint } from "../public-point.ts";
import { verified, writeSnapshot } from "./import-msgvault.ts";

/**
 * Makes a point of each snapshot of a msgvault repository, with the snapshot's time and tag. Snapshots that are points
 * already are skipped, so a call after a kill goes on. The folder stays as it is, and based on the same point.
 */
export async function importMsgvaultPoints(
  workspace: Workspace,
  from: string,
  options: WorkspaceCallOptions,
): Promise<MsgvaultPoints> {
  using repository = MsgvaultRepository.open(realPathOf(from).toString("utf8"));
  const { repositoryId } = repository.config;
  using _lock = await workspace.lock("import", options);
  await recoverWorkspace(workspace, options);
  const taken = takenBefore(workspace, repositoryId);
  const points: Point[] = [];
  let made = 0;
  for (const each of repository.list()) {
    let point = taken.get(each.id);
    if (point === undefined) {
      if ("problem" in each) throw each.problem;
      const { manifest } = each;
      const snapshot = await verified(repository, manifest, options);
      const { temporary } = workspace.found.control;
      makeFolder(temporary);
      const folder = newWorkDirectory(temporary);
      mkdirSync(folder, { mode: 0o700 });
      try {
        await writeSnapshot(repository, snapshot, folder, options);
        chmodSync(folder, statSync(workspace.root).mode & 0o7777);
        failpoint("import-msgvault.written");
        point = await takeInFolder(workspace, {
          ...options,
          folder: Buffer.from(folder),
          undo: false,
          message: `msgvault ${manifest.id}`,
          tags: tagsOf(manifest.tag),
          createdAt: new Date(manifest.createdAt).toISOString(),
          cause: {
            kind: "import",
            imported: true,
            from: { kind: "msgvault", repository_id: repositoryId, snapshot_id: manifest.id, tag: manifest.tag },
          },
          head: points.at(-1) ?? null,
        });
      } finally {
        removeAll(folder);
      }
      made++;
      failpoint("import-msgvault.point-made");
    }
    points.push(point);
  }
  return { repository_id: repositoryId, points: points.map((point) => publicPoint(point)), made };
}

/** Points that an earlier call made, by the ids of their snapshots. */
function takenBefore({ points }: Workspace, repositoryId: string): Map<string, Point> {
  const taken = new Map<string, Point>();
  for (const point of points.list().points) {
    const from = point.descriptor.cause["from"] as Record<string, unknown> | undefined;
    if (from?.["kind"] === "msgvault" && from["repository_id"] === repositoryId)
      taken.set(String(from["snapshot_id"]), point);
  }
  return taken;
}

/** The snapshot's tag, if a point can have it; the cause has any tag. */
function tagsOf(tag: string): string[] {
  try {
    checkPointTags(tag === "" ? [] : [tag]);
    return tag === "" ? [] : [tag];
  } catch {
    return [];
  }
}
