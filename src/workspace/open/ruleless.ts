import fs from "node:fs";
import { RULES_NOT_APPLIED } from "../../archive/scan/summary.ts";
import type { Descriptor } from "../../formats/records/descriptor.ts";
import { isSuperJournalName } from "../../formats/sqlite-journal.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import { hasNewName, isSubvolume, subvolumeInfo, type SubvolumeInfo } from "../../fs/linux/btrfs.ts";
import { inDirectory, openDirectory } from "../../fs/linux/syscalls.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { readRegular, writeRegular } from "../../fs/regular-file.ts";
import type { SavePointId } from "../../ids.ts";
import { treePlace, whyTreeIsNotThePoint } from "../points/held-trees.ts";
import { isOfAll, isSealedInPart, type Point } from "../points/point-files.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** Finds out, without reading a point, that no ignore rule has a part in it. */

/** Points, up to the newest one and up to the one that is asked about, among which one is looked for whose rules are known. */
const LOOK_BACK = 32;
const MOST_KEPT = 256;
const IGNORE_NAME = Buffer.from(IGNORE_FILE);

/**
 * Tells if it is certain, without a walk and before a point is sealed, that its tree is what a restore gives back: no
 * ignore rule has a part in it, and no transaction of SQLite over several databases is under way, whose journals name
 * a file by its path. Only root may ask btrfs for such names; what it said is kept with the snapshot that it was said of.
 */
export async function isRuleless(workspace: Workspace, point: Point, { signal }: WorkspaceCall): Promise<boolean> {
  const { points, engine } = workspace;
  if (point.sealed || point.descriptor.rules.exclude.length > 0 || engine.holder?.type !== "btrfs-snapshot")
    return false;
  const tree = treePlace(points, point);
  if (whyTreeIsNotThePoint(points, point) !== null || !isSubvolume(tree)) return false;
  // Of such a point ignore files leave nothing out.
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

/** Keeps that a point is ruleless, which was just made of one that is. */
export function noteRuleless(workspace: Workspace, point: Point): void {
  const tree = treePlace(workspace.points, point);
  if (isSubvolume(tree)) keep(workspace, point, inDirectory(tree, subvolumeInfo));
}

/** The transaction until which what a tree was made of had no ignore file; null where nothing tells. */
function ruledOutUntil(
  { points, root }: Workspace,
  { sequence: own }: Point,
  { made, kept }: { made: SubvolumeInfo; kept: Kept },
): number | null {
  // A folder that is a copy of a point's tree.
  const folder = isSubvolume(root) ? inDirectory(root, subvolumeInfo) : null;
  const copied = folder?.uuid === made.parentUuid ? folder : null;
  let original: SubvolumeInfo | undefined;
  const known: SubvolumeInfo[] = [];
  const all = points.sequences().toReversed();
  const before = all.filter((sequence) => sequence < own).slice(0, LOOK_BACK);
  // The nearest of which it was said is asked for first, however many points ago.
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

/** Tells if both were made of one subvolume, the first one before the other. */
function isEarlier(tree: SubvolumeInfo, than: SubvolumeInfo): boolean {
  return tree.parentUuid !== null && tree.parentUuid === than.parentUuid && tree.otransid <= than.otransid;
}

/**
 * Tells if no ignore file lies in a point. Of one that holds all of its tree, or what such a file hides, that is not
 * known.
 */
export function isSealedWithoutRules(point: Point): boolean {
  const { sealed, descriptor } = point;
  const { rules, labels } = descriptor;
  // Whoever sealed it in part saw no ignore file where that user may not look.
  if (!sealed || isSealedInPart(point)) return false;
  const isPlain = !labels.some(({ label, recovered }) => label === RULES_NOT_APPLIED || recovered === true);
  return rules.ignore_file && !hasRules(descriptor) && isPlain;
}

/** Tells if ignore rules had a part in a point that was read, or an ignore file lay there that could have had one. */
export function hasRules({ rules }: Pick<Descriptor, "rules">): boolean {
  return rules.exclude.length > 0 || (rules.files?.length ?? 0) > 0 || rules.ignored_count > 0;
}

/** By ids of points, the snapshots that were asked about. In the file one a line, `ID UUID:TRANSACTION`, the newest last. */
type Kept = ReadonlyMap<string, string>;

/**
 * The snapshot that an answer is about: another in its place has another UUID. That it was not written to since is found out of
 * itself, each time.
 */
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
  const line = `${descriptor.save_point_id} ${nameOf(tree)}\n`;
  try {
    makeFolder(control.cache);
    const size = fs.lstatSync(paths.ruleless, { throwIfNoEntry: false })?.size ?? 0;
    const { O_APPEND, O_CREAT, O_TRUNC, O_WRONLY } = fs.constants;
    // A save is waited for, and a line costs it less than a file.
    writeRegular(paths.ruleless, line, O_WRONLY | O_CREAT | (size < MOST_KEPT * line.length ? O_APPEND : O_TRUNC));
  } catch {
    // It is asked again.
  }
}
