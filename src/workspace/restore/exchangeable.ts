import fs from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { RULES_NOT_APPLIED } from "../../archive/scan/summary.ts";
import type { Descriptor, DescriptorContent } from "../../formats/records/descriptor.ts";
import {
  isSubvolume,
  nestedSubvolumes,
  subvolumeInfo,
  type SubvolumeInfo,
  hasNewName,
  mayBeLimited,
} from "../../fs/linux/btrfs.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import { inDirectory, openDirectory } from "../../fs/linux/syscalls.ts";
import { findHolders, boundSockets, mountedElsewhere } from "../../fs/linux/holders.ts";
import { attributesOf } from "../../fs/linux/own-attributes.ts";
import { isMountPoint, mountOf, mountsInside, readMounts, whyMountsUnknown } from "../../fs/linux/mounts.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { FOLDER_JOURNAL, isIntentPending } from "../journals.ts";
import { ownInside } from "../place/registry.ts";
import type { SavePointId } from "../../ids.ts";
import { treePlace, whyTreeIsNotThePoint } from "../points/held-trees.ts";
import { isOfAll, type Point } from "../points/point-files.ts";
import type { Workspace, WorkspaceCall } from "../workspace.ts";

/** Tells whether whole trees may change places, or stand for each other, and why not. */

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
function hasRules({ rules }: Descriptor): boolean {
  return rules.exclude.length > 0 || (rules.files?.length ?? 0) > 0 || rules.ignored_count > 0;
}

const HOLDERS_BUDGET_MS = 100;

/**
 * Tells why a writable copy of a point's tree would not be the point's state; null where it would. No walk: what the
 * tree holds beyond the state is known from the seal.
 */
export function whyNotCopied(workspace: Workspace, point: Point): string | null {
  if (!point.sealed || hasRules(point.descriptor)) return "ignore rules have a part in the point";
  return whyNotWhole(workspace, point);
}

function whyNotWhole(workspace: Workspace, point: Point): string | null {
  if (workspace.engine.holder?.atomic !== true) return "the engine does not hold trees of one moment";
  const other = whyTreeIsNotThePoint(workspace.points, point);
  if (other !== null) return other;
  const tree = treePlace(workspace.points, point);
  if (!isSubvolume(tree)) return "the point holds no tree of one moment";
  return hasNested(Buffer.from(tree)) ? "there are subvolumes inside" : null;
}

/**
 * Tells why the folder cannot change places with a copy of a point's tree, whoever has it open; null where it can. An
 * undo waits for no seal: what was displaced comes back as it was, also what rules hide in it; nor does a point in
 * which rules have no part.
 */
export function whyNotExchanged(
  workspace: Workspace,
  { target, kind, isRuleless }: { target: Point; kind: "restore" | "undo"; isRuleless: boolean },
): string | null {
  const { root } = workspace;
  const isUnread = (kind === "undo" || isRuleless) && !target.sealed;
  const whole = isUnread ? whyNotWhole(workspace, target) : whyNotCopied(workspace, target);
  if (whole !== null) return whole;
  if (!isSubvolume(root)) return "the folder is no subvolume";
  const mounts = readMounts();
  const unknown = whyMountsUnknown(mounts);
  if (unknown !== null) return unknown.reason;
  if (isMountPoint(root, mounts) || mountsInside(root, mounts).length > 0) return "something is mounted there";
  const [elsewhere] = mountedElsewhere(root, mounts);
  if (elsewhere !== undefined) return `it is mounted at ${printablePath(elsewhere)} too`;
  if (boundSockets(root).length > 0) return "a program listens on a socket in it";
  if (mountOf(root, mounts)?.id !== mountOf(workspace.found.control.root, mounts)?.id)
    return "the points lie on another mount";
  if (!mayMove(root, target)) return "a folder that its owner may not write to is moved by root alone";
  if (hasNested(root)) return "there are subvolumes inside";
  if (
    !isIntentPending(workspace.found.paths.journal, FOLDER_JOURNAL) &&
    !isDeepStrictEqual(attributesOf(root), attributesOf(Buffer.from(treePlace(workspace.points, target))))
  )
    return "the folder itself has other attributes or access lists than it had then, and no point records them";
  if (mayBeLimited(root))
    return "a quota group limits the folder's subvolume, and would not limit another in its place";
  return ownInside(root).length > 0 ? "what Cairn keeps for itself lies inside" : null;
}

/** Tells if this user may give the folder, and what takes its place, another parent. */
function mayMove(root: Buffer, { descriptor }: Point): boolean {
  if (process.geteuid?.() === 0) return true;
  const { mode } = (descriptor.content as DescriptorContent).root;
  return [fs.lstatSync(root).mode, mode].every((each) => (each & 0o200) !== 0);
}

/** Names who would go on working in what was displaced; null where nobody does. */
export function whyHeld(root: Buffer, isSure: boolean): string | null {
  const { holders, unknown } = findHolders(root, { budgetMs: HOLDERS_BUDGET_MS });
  if (holders.length > 0)
    return `process ${holders[0]!.pid} (${holders[0]!.command}) has the folder or something in it open`;
  return unknown.length > 0 && !isSure ? "whether a process has something in it open cannot be known" : null;
}

function hasNested(place: Buffer): boolean {
  return inDirectory(place, (fd) => nestedSubvolumes(fd).length > 0);
}
