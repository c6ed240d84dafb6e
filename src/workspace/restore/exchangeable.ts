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
import { FOLDER_JOURNAL, isIntentPending } from "../points/journals.ts";
import { ownInside } from "../place/registry.ts";
import { treePlace, whyTreeIsNotThePoint } from "../points/held-trees.ts";
import { isReverting } from "../points/operation-log.ts";
import type { Point } from "../points/point-files.ts";
import { hasRules } from "../open/ruleless.ts";
import type { Workspace } from "../open/workspace.ts";

/** Tells whether whole trees may change places, or stand for each other, and why not. */

const HOLDERS_BUDGET_MS = 100;
/** An exchange that was asked for goes on if processes cannot be asked, so time alone must not be the reason. */
const SURE_BUDGET_MS = 5_000;

/**
 * Tells why a writable copy of a point's tree would not be the point's state; null where it would. No walk: what the
 * tree holds beyond the state is known from the seal, or is nothing where the point is known to be ruleless (see ruleless.ts).
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
 * Tells why the folder cannot change places with a copy of a point's tree, whoever has it open; null where it can. An
 * undo waits for no seal: what was displaced comes back as it was, also what rules hide in it; nor does a point in
 * which rules have no part.
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
    !isIntentPending(workspace.found.paths.journal, FOLDER_JOURNAL) &&
    !isDeepStrictEqual(attributesOf(root), attributesOf(Buffer.from(treePlace(workspace.points, target))))
  )
    return "the attributes or access lists of the folder itself have changed since the save, and no point records them";
  if (mayBeLimited(root))
    return "a quota group limits the folder's subvolume, and would not limit the subvolume that replaces it";
  return ownInside(root).length > 0 ? "files of Cairn's own are inside" : null;
}

/** Tells if this user may give the folder, and what takes its place, another parent. */
function mayMove(root: Buffer, { descriptor }: Point): boolean {
  if (process.geteuid?.() === 0) return true;
  const { mode } = (descriptor.content as DescriptorContent).root;
  return [fs.lstatSync(root).mode, mode].every((each) => (each & 0o200) !== 0);
}

/** Names who would go on working in what was displaced; null where nobody does. */
export function whyHeld(root: Buffer, isSure: boolean): string | null {
  const { reason, isAll } = lookForHolders(root, isSure ? SURE_BUDGET_MS : HOLDERS_BUDGET_MS);
  return reason ?? (isAll || isSure ? null : "Cairn cannot find out if a process has files of the folder open");
}

/** Holds the folder's databases if some processes cannot be asked; tells why where that cannot be. */
export async function holdUnseen(root: Buffer, signal?: AbortSignal): Promise<string | QuietDatabase | null> {
  if (lookForHolders(root, SURE_BUDGET_MS).isAll) return null;
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

function lookForHolders(root: Buffer, budgetMs: number): { reason: string | null; isAll: boolean } {
  const { holders, unknown } = findHolders(root, { budgetMs });
  const [first] = holders;
  const reason =
    first === undefined ? null : `process ${first.pid} (${first.command}) has the folder, or a file in it, open`;
  return { reason, isAll: unknown.length === 0 };
}

function hasNested(place: Buffer): boolean {
  return inDirectory(place, (fd) => nestedSubvolumes(fd).length > 0);
}
