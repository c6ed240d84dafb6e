import { MsgvaultRepository } from "../../bundle/msgvault/repository.ts";
import { restoreSnapshot } from "../../change/import-msgvault.ts";
import type { WorkspaceCallOptions } from "../../contract/words.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { Manifest } from "../../formats/msgvault/manifest.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { publicPoint } from "../../look/public-point.ts";
import { FolderOutput } from "../../output/folder.ts";
import { recoverWorkspace } from "../../workspace/open/recovery.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { checkPointTags } from "../../workspace/points/targets.ts";
import { takeInFolder } from "../../workspace/save/receive.ts";
import type { MsgvaultPoints } from "./import-msgvault.ts";
import { chmodSync, mkdirSync, statSync } from "node:fs";

/**
 * Makes a point of each snapshot of a msgvault repository, with the snapshot's time and tag. Snapshots that are points
 * already are skipped, so a call after a kill goes on; damaged ones are listed. The folder stays as it is.
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
  const damaged: MsgvaultPoints["damaged"] = [];
  let made = 0;
  for (const each of repository.list()) {
    let point = taken.get(each.id);
    try {
      if (point === undefined) {
        if ("problem" in each) throw each.problem;
        point = await makePoint(workspace, repository, {
          manifest: each.manifest,
          parent: points.at(-1) ?? null,
          options,
        });
        made++;
        failpoint("import-msgvault.point-made");
      }
      points.push(point);
    } catch (error) {
      const { code, message: detail } = toCairnError(error);
      if (!["damaged", "newer_version", "unsupported"].includes(code)) throw error;
      damaged.push({ snapshot_id: each.id, detail });
    }
  }
  return { repository_id: repositoryId, points: points.map((point) => publicPoint(point)), made, damaged };
}

/** Restores a snapshot into a temporary folder, and makes a point of this. */
async function makePoint(
  workspace: Workspace,
  repository: MsgvaultRepository,
  { manifest, parent, options }: { manifest: Manifest; parent: Point | null; options: WorkspaceCallOptions },
): Promise<Point> {
  const { temporary } = workspace.found.control;
  makeFolder(temporary);
  const folder = newWorkDirectory(temporary);
  mkdirSync(folder, { mode: 0o700 });
  try {
    await restoreSnapshot(repository, manifest, new FolderOutput(folder, 0o700), options);
    chmodSync(folder, statSync(workspace.root).mode & 0o7777);
    failpoint("import-msgvault.written");
    const { repositoryId } = repository.config;
    const from = { kind: "msgvault", repository_id: repositoryId, snapshot_id: manifest.id, tag: manifest.tag };
    return await takeInFolder(workspace, {
      ...options,
      folder: Buffer.from(folder),
      undo: false,
      message: `msgvault ${manifest.id}`,
      tags: tagsOf(manifest.tag),
      createdAt: new Date(manifest.createdAt).toISOString(),
      cause: { kind: "import", imported: true, from },
      head: parent,
    });
  } finally {
    removeAll(folder);
  }
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
    checkPointTags([tag]);
    return [tag];
  } catch {
    return [];
  }
}
