import fs from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { inWords, QuietDatabase } from "../../capture/sqlite/quiet-database.ts";
import { joinPath } from "../../formats/bytes.ts";
import type { OperationKind } from "../../formats/records/control.ts";
import type { DescriptorContent } from "../../formats/records/descriptor.ts";
import { isSubvolume, nestedSubvolumes, mayBeLimited } from "../../fs/linux/btrfs.ts";
import { inDirectory } from "../../fs/linux/syscalls.ts";
import { findHolders, boundSockets, mountedElsewhere } from "../../fs/linux/holders.ts";
import { attributesOf } from "../../fs/linux/own-attributes.ts";
import { isMountPoint, mountOf, mountsInside, readMounts, whyMountsUnknown } from "../../fs/linux/mounts.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { ownInside } from "../place/registry.ts";
import { treePlace, whyTreeIsNotThePoint } from "../points/held-trees.ts";
import { isReverting } from "../points/operation-log.ts";
import type { Point } from "../points/point-files.ts";
import { hasRules } from "../open/ruleless.ts";
import type { Workspace } from "../open/workspace.ts";

/** Tells whether whole trees can change places or replace each other, and the reason if they cannot. */

const HOLDERS_BUDGET_MS = 100;
/** A requested exchange goes on if processes cannot be inspected, so time alone must not stop it. */
const SURE_BUDGET_MS = 5_000;

/**
 * Tells why a writable copy of a point's tree would differ from the point's state; null if it would not. The tree is
 * not walked: the seal, or a ruleless point (see ruleless.ts), tells whether the tree has more than the state.
 */
export function whyNotCopied(workspace: Workspace, point: Point, isRuleless = false): string | null {
  if (!isRuleless && (!point.sealed || hasRules(point.descriptor))) return "the point was saved with ignore rules";
  return whyNotWhole(workspace, point);
}

function whyNotWhole(workspace: Workspace, point: Point): string | null {
  if (workspace.engine.holder?.atomic !== true) return "the engine does not make atomic snapshots";
  const other = whyTreeIsNotThePoint(workspace.points, point);
  if (other !== null) return other;
  const tree = treePlace(workspace.points, point);
  if (!isSubvolume(tree)) return "the clone of the point is not an atomic snapshot";
  return hasNested(Buffer.from(tree)) ? "there are subvolumes inside" : null;
}

/**
 * Tells why the folder cannot change places with a copy of a point's tree; null if it can. Open files are not looked
 * at. An undo and a ruleless point need no seal: the displaced tree comes back with the entries that rules hide.
 */
export function whyNotExchanged(
  workspace: Workspace,
  { target, kind, isRuleless }: { target: Point; kind: OperationKind; isRuleless: boolean },
): string | null {
  const { root } = workspace;
  const isUnread = (isReverting(kind) || isRuleless) && !target.sealed;
  const whole = isUnread ? whyNotWhole(workspace, target) : whyNotCopied(workspace, target);
  if (whole !== null) return whole;
  if (!isSubvolume(root)) return "the folder is not a subvolume";
  const mounts = readMounts();
  const unknown = whyMountsUnknown(mounts);
  if (unknown !== null) return unknown.reason;
  if (isMountPoint(root, mounts) || mountsInside(root, mounts).length > 0)
    return "a file system is mounted at the folder or inside it";
  const [elsewhere] = mountedElsewhere(root, mounts);
  if (elsewhere !== undefined) return `the folder is also mounted at ${printablePath(elsewhere)}`;
  if (boundSockets(root).length > 0) return "a program listens on a socket in the folder";
  if (mountOf(root, mounts)?.id !== mountOf(workspace.found.control.root, mounts)?.id)
    return "the points are on another mount";
  if (!mayMove(root, target)) return "only root may move a folder that its owner may not write to";
  if (hasNested(root)) return "there are subvolumes inside";
  if (
    !workspace.unfinished("missing-folder").isBegun &&
    !isDeepStrictEqual(attributesOf(root), attributesOf(Buffer.from(treePlace(workspace.points, target))))
  )
    return "the attributes or access lists of the folder itself have changed since the save, and no point records them";
  if (mayBeLimited(root))
    return "a quota group limits the folder's subvolume, and would not limit the subvolume that replaces it";
  return ownInside(root).length > 0 ? "files of Cairn's own are inside" : null;
}

/** Tells if this user may move the folder and the tree that replaces it to another parent. */
function mayMove(root: Buffer, { descriptor }: Point): boolean {
  if (process.geteuid?.() === 0) return true;
  const { mode } = (descriptor.content as DescriptorContent).root;
  return [fs.lstatSync(root).mode, mode].every((each) => (each & 0o200) !== 0);
}

/** Names a process that would keep working in the displaced tree; null if no process would. */
export function whyHeld(root: Buffer, isSure: boolean): string | null {
  const { reason, isAll } = lookForHolders(root, isSure ? SURE_BUDGET_MS : HOLDERS_BUDGET_MS);
  return reason ?? (isAll || isSure ? null : "Cairn cannot find out if a process has files of the folder open");
}

/** Holds the folder's databases, for when some processes cannot be inspected. Returns the reason if that fails. */
export async function holdDatabases(root: Buffer, signal?: AbortSignal): Promise<string | QuietDatabase> {
  const { DatabaseProcess } = await import("../../capture/sqlite/database-process.ts");
  const sqlite = new DatabaseProcess();
  try {
    const { databases } = await sqlite.do("find", root, { signal });
    const held = QuietDatabase.holdAll(databases.map(({ path }) => joinPath(root, path)));
    return held instanceof QuietDatabase ? held : `the database ${printablePath(held.place)} ${inWords(held)}`;
  } finally {
    await sqlite.close();
  }
}

interface FolderLook {
  /** Names a process that has the folder open; null if none was found. */
  reason: string | null;
  /** True if all processes were inspected. */
  isAll: boolean;
}

export const NO_HOLDERS: FolderLook = { reason: null, isAll: true };

export function lookForHolders(root: Buffer, budgetMs = SURE_BUDGET_MS): FolderLook {
  const { holders, unknown } = findHolders(root, { budgetMs });
  const [first] = holders;
  const reason =
    first === undefined ? null : `process ${first.pid} (${first.command}) has the folder, or a file in it, open`;
  return { reason, isAll: unknown.length === 0 };
}

function hasNested(place: Buffer): boolean {
  return inDirectory(place, (fd) => nestedSubvolumes(fd).length > 0);
}
