import fs from "node:fs";
import { isSubvolume, subvolumeInfo, type SubvolumeInfo } from "../fs/btrfs.ts";
import { hasNewName } from "../fs/btrfs-names.ts";
import { IGNORE_FILE } from "../fs/ignore.ts";
import { whyTreeIsNotThePoint } from "./held-trees.ts";
import type { Point } from "./point-files.ts";
import { treePlace } from "./shared-trees.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** So many of the newest points are looked at for one whose rules are known. */
const LOOK_BACK = 16;

/**
 * Whether it is certain, without a walk and before a point is sealed, that no ignore rule has a part in it: nothing was
 * excluded at the save, and no ignore file lies in its tree. What btrfs has written of the tree since a sealed point
 * without rules was made of the same folder is searched for the name of one; all of the tree, where there is no such point.
 */
export async function isRuleless(workspace: Workspace, point: Point, { signal }: WorkspaceCall): Promise<boolean> {
  const { points, engine } = workspace;
  if (point.sealed || point.descriptor.rules.exclude.length > 0 || engine.holder?.type !== "btrfs-snapshot")
    return false;
  const tree = treePlace(points, point);
  if (whyTreeIsNotThePoint(points, point) !== null || !isSubvolume(tree)) return false;
  const fd = fs.openSync(tree, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW);
  try {
    const since = ruledOutUntil(workspace, subvolumeInfo(fd));
    return (await hasNewName(fd, Buffer.from(IGNORE_FILE), { since, signal })) === false;
  } finally {
    fs.closeSync(fd);
  }
}

/** The transaction until which the source of a tree had no ignore file; 0 where nothing tells. */
function ruledOutUntil({ points, root }: Workspace, made: SubvolumeInfo): number {
  const folder = infoOf(root);
  for (const sequence of points.sequences().toReversed().slice(0, LOOK_BACK)) {
    const point = points.readOrNull(sequence);
    if (point === null || !isKnownRuleless(point) || whyTreeIsNotThePoint(points, point) !== null) continue;
    const tree = treePlace(points, point);
    const known = isSubvolume(tree) ? infoOf(tree) : null;
    if (known === null) continue;
    // Both were made of one subvolume, one after the other.
    if (known.parentUuid !== null && known.parentUuid === made.parentUuid && known.otransid <= made.otransid)
      return known.otransid;
    // It was made of the folder, which is a copy of that point's tree.
    if (folder !== null && folder.uuid === made.parentUuid && folder.parentUuid === known.uuid) return folder.otransid;
  }
  return 0;
}

function isKnownRuleless({ sealed, descriptor: { rules } }: Point): boolean {
  return sealed && rules.exclude.length === 0 && (rules.files?.length ?? 0) === 0 && rules.ignored_count === 0;
}

function infoOf(place: string | Buffer): SubvolumeInfo | null {
  if (!isSubvolume(place)) return null;
  const fd = fs.openSync(place, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW);
  try {
    return subvolumeInfo(fd);
  } finally {
    fs.closeSync(fd);
  }
}
