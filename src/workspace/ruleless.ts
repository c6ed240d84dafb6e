import fs from "node:fs";
import { isSubvolume, subvolumeInfo, type SubvolumeInfo } from "../fs/btrfs.ts";
import { hasNewName } from "../fs/btrfs-names.ts";
import { IGNORE_FILE } from "../fs/ignore.ts";
import type { SavePointId } from "../ids.ts";
import { whyTreeIsNotThePoint } from "./held-trees.ts";
import type { Point } from "./point-files.ts";
import { treePlace } from "./shared-trees.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** So many of the newest points are looked at for one whose rules are known. */
const LOOK_BACK = 32;
/** Points that are not sealed of which this process has found it: their trees are read-only, and looked at each time. */
const found = new Set<SavePointId>();
const MOST_FOUND = 1000;

/**
 * Whether it is certain, without a walk and before a point is sealed, that no ignore rule has a part in it: nothing was
 * excluded at the save, and no ignore file lies in its tree. What btrfs has written of the tree since a sealed point
 * without rules was made of the same folder is searched for the name of one. Where there is no such point that would be
 * all of the tree, each time anew: it is sealed once, and is one then.
 */
export async function isRuleless(workspace: Workspace, point: Point, { signal }: WorkspaceCall): Promise<boolean> {
  const { points, engine } = workspace;
  if (point.sealed || point.descriptor.rules.exclude.length > 0 || engine.holder?.type !== "btrfs-snapshot")
    return false;
  const tree = treePlace(points, point);
  if (whyTreeIsNotThePoint(points, point) !== null || !isSubvolume(tree)) return false;
  const { save_point_id: id } = point.descriptor;
  if (found.has(id)) return true;
  const fd = fs.openSync(tree, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW);
  try {
    const since = ruledOutUntil(workspace, subvolumeInfo(fd));
    if (since === null || (await hasNewName(fd, Buffer.from(IGNORE_FILE), { since, signal })) !== false) return false;
    if (found.size >= MOST_FOUND) found.clear();
    found.add(id);
    return true;
  } finally {
    fs.closeSync(fd);
  }
}

/** The transaction until which what a tree was made of had no ignore file; null where nothing tells. */
function ruledOutUntil({ points, root }: Workspace, made: SubvolumeInfo): number | null {
  const held: HeldTree[] = [];
  for (const sequence of points.sequences().toReversed().slice(0, LOOK_BACK)) {
    const point = points.readOrNull(sequence);
    if (point === null || whyTreeIsNotThePoint(points, point) !== null) continue;
    const info = infoOf(treePlace(points, point));
    if (info !== null) held.push({ info, isRuleless: isKnownRuleless(point) });
  }
  /** Both were made of one subvolume, one after the other. */
  const before = (tree: SubvolumeInfo): number | null =>
    held.find(
      ({ info, isRuleless: known }) =>
        known && info.parentUuid !== null && info.parentUuid === tree.parentUuid && info.otransid <= tree.otransid,
    )?.info.otransid ?? null;
  const direct = before(made);
  const folder = infoOf(root);
  if (direct !== null || folder === null || folder.uuid !== made.parentUuid) return direct;
  // It was made of the folder, which is a copy of a point's tree.
  const from = held.find(({ info }) => info.uuid === folder.parentUuid);
  if (from === undefined) return null;
  return from.isRuleless ? folder.otransid : before(from.info);
}

interface HeldTree {
  info: SubvolumeInfo;
  /** It is known that no rule has a part in it. */
  isRuleless: boolean;
}

function isKnownRuleless({ sealed, descriptor: { rules, save_point_id: id } }: Point): boolean {
  if (found.has(id)) return true;
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
