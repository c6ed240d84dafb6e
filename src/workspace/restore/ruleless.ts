import fs from "node:fs";
import { RULES_NOT_APPLIED } from "../../archive/scan/summary.ts";
import type { Descriptor } from "../../formats/records/descriptor.ts";
import { hasNewName, isSubvolume, subvolumeInfo, type SubvolumeInfo } from "../../fs/linux/btrfs.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import { inDirectory, openDirectory } from "../../fs/linux/syscalls.ts";
import type { SavePointId } from "../../ids.ts";
import { treePlace, whyTreeIsNotThePoint } from "../points/held-trees.ts";
import { isOfAll, type Point } from "../points/point-files.ts";
import type { Workspace, WorkspaceCall } from "../workspace.ts";

/** Points, from the newest on, among which one is looked for whose rules are known. */
const LOOK_BACK = 32;
/** Points that are not sealed of which this process has found it: their trees are read-only, and looked at each time. */
const found = new Set<SavePointId>();
const MOST_FOUND = 1000;

/**
 * Tells if it is certain, without a walk and before a point is sealed, that no ignore rule has a part in it: nothing
 * was excluded, and btrfs has written no name of an ignore file since a sealed point without rules was made of the same
 * folder. Without such a point it is not certain.
 */
export async function isRuleless(workspace: Workspace, point: Point, { signal }: WorkspaceCall): Promise<boolean> {
  const { points, engine } = workspace;
  if (point.sealed || point.descriptor.rules.exclude.length > 0 || engine.holder?.type !== "btrfs-snapshot")
    return false;
  const tree = treePlace(points, point);
  if (whyTreeIsNotThePoint(points, point) !== null || !isSubvolume(tree)) return false;
  if (isOfAll(point.descriptor)) return true;
  const { save_point_id: id } = point.descriptor;
  if (found.has(id)) return true;
  const fd = openDirectory(tree);
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
  // A folder that is a copy of a point's tree.
  const folder = isSubvolume(root) ? inDirectory(root, subvolumeInfo) : null;
  const copied = folder?.uuid === made.parentUuid ? folder : null;
  let original: SubvolumeInfo | undefined;
  const known: SubvolumeInfo[] = [];
  for (const sequence of points.sequences().toReversed().slice(0, LOOK_BACK)) {
    const point = points.readOrNull(sequence);
    if (point === null || whyTreeIsNotThePoint(points, point) !== null) continue;
    const tree = treePlace(points, point);
    if (!isSubvolume(tree)) continue;
    const info = inDirectory(tree, subvolumeInfo);
    const isOriginal = info.uuid === copied?.parentUuid;
    if (isOriginal) original = info;
    if (!isKnownRuleless(point)) continue;
    if (isEarlier(info, made)) return info.otransid;
    if (isOriginal) return copied.otransid;
    known.push(info);
  }
  const before = original;
  return (before === undefined ? undefined : known.find((info) => isEarlier(info, before)))?.otransid ?? null;
}

/** Tells if both were made of one subvolume, the first one before the other. */
function isEarlier(tree: SubvolumeInfo, than: SubvolumeInfo): boolean {
  return tree.parentUuid !== null && tree.parentUuid === than.parentUuid && tree.otransid <= than.otransid;
}

/**
 * Tells if no ignore file lies in a point. Of one that holds all of its tree, or what such a file hides, that is not
 * known.
 */
function isKnownRuleless({ sealed, descriptor }: Point): boolean {
  if (found.has(descriptor.save_point_id)) return true;
  const { rules, labels } = descriptor;
  return (
    sealed && rules.ignore_file && !hasRules(descriptor) && !labels.some(({ label }) => label === RULES_NOT_APPLIED)
  );
}

/** Tells if ignore rules had a part in a point that was read, or an ignore file lay there that could have had one. */
export function hasRules({ rules }: Descriptor): boolean {
  return rules.exclude.length > 0 || (rules.files?.length ?? 0) > 0 || rules.ignored_count > 0;
}
