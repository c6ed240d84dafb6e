import { join } from "node:path";
import { makeFolder } from "../../fs/make-folder.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import type { Point } from "../../workspace/point-files.ts";
import { takeInFolder } from "../../workspace/receive.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/workspace.ts";
import type { LeftOut, RestoreInPlaceOptions } from "../contract.ts";
import type { LookAtSnapshots } from "./look.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { writeSnapshot } from "./restore.ts";
import type { WantedInPlace } from "./wanted-in-place.ts";

/**
 * A point of a snapshot that another program made, or of chosen paths of it, and what of it could not be made here.
 *
 * Its trees are not ours: other times and numbers in them, large files cut elsewhere, no digests. So it is written into a
 * folder of this process in the control directory, read again and compared, and what is there is recorded as a save
 * records it; then the folder goes. A kill leaves that folder, which the next command removes, or a point more.
 */
export async function takeIn(
  workspace: Workspace,
  access: RepositoryAccess,
  by: { wanted: WantedInPlace; look: LookAtSnapshots; options: RestoreInPlaceOptions; call: WorkspaceCall },
): Promise<{ point: Point; leftOut: LeftOut[] }> {
  const { wanted, look, options, call } = by;
  const { listed, content, chosen } = wanted;
  const work = newWorkDirectory(workspace.found.control.temporary);
  makeFolder(work);
  const folder = Buffer.from(join(work, "tree"));
  try {
    const { prove, ...others } = options;
    const { leftOut } = await writeSnapshot(folder, {
      ...look,
      access,
      listed,
      content,
      paths: chosen.paths,
      options: { ...others, ...(prove === false ? { prove } : { prove: true }) },
    });
    const part = chosen.paths === null ? "" : "parts of ";
    const point = await takeInFolder(workspace, {
      ...call,
      folder,
      undo: chosen.paths !== null,
      message: `${part}snapshot ${listed.id.slice(0, 8)} of ${access.location}`,
      cause: { kind: "backup", snapshot_id: listed.id, repository_id: access.repository.id },
    });
    return { point, leftOut };
  } finally {
    clearAway(work);
  }
}
