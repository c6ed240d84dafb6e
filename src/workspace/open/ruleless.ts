import fs from "node:fs";
import { RULES_NOT_APPLIED } from "../../archive/scan/summary.ts";
import type { Descriptor } from "../../formats/records/descriptor.ts";
import { isSuperJournalName } from "../../formats/sqlite-journal.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import { hasNewName, isSubvolume, subvolumeInfo, type SubvolumeInfo } from "../../fs/linux/btrfs.ts";
import { inDirectory, openDirectory } from "../../fs/linux/syscalls.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { readRegular, writeRegular } from "../../fs/regular-file.ts";
import { isOthersPlace } from "../../fs/users.ts";
import type { SavePointId } from "../../ids.ts";
import { treePlace, whyTreeIsNotThePoint } from "../points/held-trees.ts";
import { isOfAll, isSealedInPart, type Point } from "../points/point-files.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** Finds points to which no ignore rule applies, without reading them. */

/** Number of points, before this one and before the newest, that are searched for one without ignore rules. */
const LOOK_BACK = 32;
const MOST_KEPT = 256;
const IGNORE_NAME = Buffer.from(IGNORE_FILE);

/**
 * Tells if an unsealed point's tree can be restored as it is: surely no ignore rule applies, and no SQLite
 * super-journal (which names files by path) lies in it. Asks btrfs for such names, which only root may, and keeps the
 * answer per snapshot.
 */
export async function isRuleless(workspace: Workspace, point: Point, { signal }: WorkspaceCall): Promise<boolean> {
  const { points, engine } = workspace;
  if (point.sealed || point.descriptor.rules.exclude.length > 0 || engine.holder?.type !== "btrfs-snapshot")
    return false;
  const tree = treePlace(points, point);
  if (whyTreeIsNotThePoint(points, point) !== null || !isSubvolume(tree)) return false;
  // Ignore files leave nothing out of such a point.
  const isAll = isOfAll(point.descriptor);
  const isWanted = (name: Uint8Array): boolean =>
    isSuperJournalName(name) || (!isAll && Buffer.compare(name, IGNORE_NAME) === 0);
  const fd = openDirectory(tree);
  try {
    const made = subvolumeInfo(fd);
    const kept = readKept(workspace);
    if (isKept(kept, point, made)) return true;
    const since = ruledOutUntil(workspace, point, { made, kept }) ?? 0;
    if ((await hasNewName(fd, isWanted, { since, signal })) !== false) return false;
    if (!isAll) keep(workspace, point, made);
    return true;
  } finally {
    fs.closeSync(fd);
  }
}

/** Keeps the answer for a point that was just made from a point without rules. */
export function noteRuleless(workspace: Workspace, point: Point): void {
  const tree = treePlace(workspace.points, point);
  if (isSubvolume(tree)) keep(workspace, point, inDirectory(tree, subvolumeInfo));
}

/** The transaction until which the source of a tree had no ignore file; null if unknown. */
function ruledOutUntil(
  { points, root }: Workspace,
  { sequence: own }: Point,
  { made, kept }: { made: SubvolumeInfo; kept: Kept },
): number | null {
  // The folder may be a snapshot of a point's tree.
  const folder = isSubvolume(root) ? inDirectory(root, subvolumeInfo) : null;
  const copied = folder?.uuid === made.parentUuid ? folder : null;
  let original: SubvolumeInfo | undefined;
  const known: SubvolumeInfo[] = [];
  const all = points.sequences().toReversed();
  const before = all.filter((sequence) => sequence < own).slice(0, LOOK_BACK);
  // Ask for the nearest point with a kept answer first, however old that point is.
  const ids: ReadonlyMap<SavePointId, number> = kept.size === 0 ? new Map() : points.ids();
  const said = [...kept.keys()].flatMap((id) => ids.get(id as SavePointId) ?? []).filter((each) => each < own);
  const nearest = said.toSorted((a, b) => b - a).slice(0, 1);
  for (const sequence of new Set([...nearest, ...before, ...all.slice(0, LOOK_BACK)])) {
    const point = points.readOrNull(sequence);
    if (point === null || whyTreeIsNotThePoint(points, point) !== null) continue;
    const tree = treePlace(points, point);
    if (!isSubvolume(tree)) continue;
    const info = inDirectory(tree, subvolumeInfo);
    const isOriginal = info.uuid === copied?.parentUuid;
    if (isOriginal) original = info;
    if (!isKept(kept, point, info) && !isSealedWithoutRules(point)) continue;
    if (isEarlier(info, made)) return info.otransid;
    if (isOriginal) return copied.otransid;
    known.push(info);
  }
  const source = original;
  return (source === undefined ? undefined : known.find((info) => isEarlier(info, source)))?.otransid ?? null;
}

/** Tells if both are snapshots of one subvolume, `tree` no later than `than`. */
function isEarlier(tree: SubvolumeInfo, than: SubvolumeInfo): boolean {
  return tree.parentUuid !== null && tree.parentUuid === than.parentUuid && tree.otransid <= than.otransid;
}

/** Tells if surely no ignore file lies in a point. False if unknown, as for a point with its whole tree or a partial seal. */
export function isSealedWithoutRules(point: Point): boolean {
  const { sealed, descriptor } = point;
  const { rules, labels } = descriptor;
  // A point that is sealed in part may have an ignore file that its sealer could not see.
  if (!sealed || isSealedInPart(point)) return false;
  const isPlain = !labels.some(({ label, recovered }) => label === RULES_NOT_APPLIED || recovered === true);
  return rules.ignore_file && !hasRules(descriptor) && isPlain;
}

/** Tells if ignore rules applied when a point was read, or if the point has an ignore file. */
export function hasRules({ rules }: Pick<Descriptor, "rules">): boolean {
  return rules.exclude.length > 0 || (rules.files?.length ?? 0) > 0 || rules.ignored_count > 0;
}

/** Snapshots with an answer, by point id. The file has lines `ID UUID:TRANSACTION`, the newest last. */
type Kept = ReadonlyMap<string, string>;

/** Names the snapshot that an answer is about. Each call checks anew that the snapshot was not written to. */
function nameOf({ uuid, otransid }: SubvolumeInfo): string {
  return `${uuid}:${otransid}`;
}

function isKept(kept: Kept, { descriptor }: Point, tree: SubvolumeInfo): boolean {
  return kept.get(descriptor.save_point_id) === nameOf(tree);
}

function readKept({ found }: Workspace): Map<string, string> {
  try {
    const lines = readRegular(found.paths.ruleless).toString("latin1").split("\n");
    return new Map(lines.slice(0, -1).map((line) => line.split(" ") as [string, string]));
  } catch {
    return new Map();
  }
}

function keep(workspace: Workspace, { descriptor }: Point, tree: SubvolumeInfo): void {
  const { control, paths } = workspace.found;
  if (isOthersPlace(control.root)) return;
  const line = `${descriptor.save_point_id} ${nameOf(tree)}\n`;
  try {
    makeFolder(control.cache);
    const size = fs.lstatSync(paths.ruleless, { throwIfNoEntry: false })?.size ?? 0;
    const { O_APPEND, O_CREAT, O_TRUNC, O_WRONLY } = fs.constants;
    // A save waits for this, and appending a line is faster than writing a file.
    writeRegular(paths.ruleless, line, O_WRONLY | O_CREAT | (size < MOST_KEPT * line.length ? O_APPEND : O_TRUNC));
  } catch {
    // The next call asks btrfs again.
  }
}
