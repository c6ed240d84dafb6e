import fs from "node:fs";
import { setImmediate } from "node:timers/promises";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { plural } from "../../formats/sizes.ts";
import { writeState } from "../place/control-directory.ts";
import { isSubvolume } from "../../fs/linux/btrfs.ts";
import { displayPath, printablePath } from "../../fs/paths/safe-path.ts";
import type { SavePointId } from "../../ids.ts";
import { givingBack } from "../open/missing-folder.ts";
import { restoreByExchange } from "./exchange.ts";
import { nothingToDo, type Restored, restoreInPlace, restorePlanned, withSidecars } from "./restore.ts";
import { treePlace } from "../points/held-trees.ts";
import { isStillTree, withoutNeedlessRevert } from "./unedited.ts";
import { type Point, rulesOf } from "../points/point-files.ts";
import { sealPoint, sealPoints } from "../save/seal.ts";
import type { Workspace } from "../open/workspace.ts";
import type { MethodOption, RestoreResult } from "../../contract/points.ts";
import { publicLeftOut, warnOfDamaged } from "../points/left-out.ts";
import { isReverting, type RestoreInput } from "./prepare.ts";
import { planHeld } from "./restore-held.ts";
import { isRuleless } from "../open/ruleless.ts";

/**
 * Restores a folder, and makes it again if it is missing. The caller holds the workspace's lock and has recovered.
 * Throws `refused` if the folder's disk is not mounted. `started` is a time of `performance.now()`.
 */
export async function restoreLocked(
  workspace: Workspace,
  started: number,
  input: RestoreInput & MethodOption,
): Promise<RestoreResult> {
  const { crossMounts } = rulesOf(input.target);
  return givingBack(workspace, { ...input, crossMounts }, async () => restoreFolder(workspace, started, input));
}

async function restoreFolder(
  workspace: Workspace,
  started: number,
  asked: RestoreInput & MethodOption,
): Promise<RestoreResult> {
  requireWritable(workspace);
  // The paths of an undo come from its operation, sidecars included.
  const paths = isReverting(asked.kind)
    ? asked.paths
    : withSidecars(rootsOf(workspace, asked), asked.target.descriptor, asked.paths);
  const input = { ...(await withoutNeedlessRevert(workspace, asked)), paths };
  if (
    input.method !== "entries" &&
    whyNotWhole(workspace, input) === null &&
    (await isStillTree(workspace, input.target))
  )
    return restoredTo(input.target, nothingToDo(workspace, input), started);
  const exchanged = await exchangeIfPossible(workspace, input);
  if (exchanged !== null)
    return {
      restored_to: input.target.descriptor.save_point_id,
      undo_id: exchanged,
      changes: null,
      left_out: [],
      unlinked: [],
      method: "exchange",
      duration_ms: since(started),
    };
  const { operations } = workspace.state();
  const { target, restored } = await restoreByEntries(workspace, input);
  if (await isStopped(input)) await takeBack(workspace, input, { restored, operations });
  warnOfDamaged(workspace, target, { ...input, leftOut: restored.leftOut });
  return restoredTo(target, restored, started);
}

/** Returns the folder, and the tree of an unsealed point, whose databases have no labels yet. */
function rootsOf({ root, points }: Workspace, { target }: Pick<RestoreInput, "target">): Buffer[] {
  return target.sealed ? [root] : [root, Buffer.from(treePlace(points, target))];
}

/** Restores by clones if possible, else from the store. Returns the target, which a restore from the store seals first. */
async function restoreByEntries(
  workspace: Workspace,
  input: RestoreInput,
): Promise<{ target: Point; restored: Restored }> {
  const held = await restoreHeld(workspace, input);
  if (held !== null) return { target: input.target, restored: held };
  workspace.engine.prepare();
  const { changed, left } = input.reverts ?? {};
  const needed = [input.target, ...(changed === undefined ? [] : [changed.before, changed.after, left!])];
  const { problems } = await sealPoints(workspace, input, [...new Set(needed.map(({ sequence }) => sequence))]);
  if (problems[0] !== undefined) throw problems[0].problem;
  const sealed = (point: Point): Point => workspace.byId(point.descriptor.save_point_id) ?? point;
  const target = sealed(input.target);
  const reverts = input.reverts && {
    ...input.reverts,
    changed: { before: sealed(input.reverts.changed.before), after: sealed(input.reverts.changed.after) },
    left: sealed(input.reverts.left),
  };
  return { target, restored: await restoreInPlace(workspace, { ...input, target, ...(reverts && { reverts }) }) };
}

/** Restores by clones of the point's files. Returns null if the point must be sealed first. */
async function restoreHeld(workspace: Workspace, input: RestoreInput): Promise<Restored | null> {
  const planned = await planHeld(workspace, input);
  if (planned === null) return null;
  if (planned === "same") return nothingToDo(workspace, input);
  try {
    return await restorePlanned(workspace, input, planned);
  } catch (error) {
    // A file could not be cloned.
    if (toCairnError(error).details?.["unsealed"] === input.target.descriptor.save_point_id) return null;
    throw error;
  }
}

function restoredTo(target: Point, { undoId, changes, leftOut, unlinked }: Restored, started: number): RestoreResult {
  const { created, updated, deleted, metadata } = changes;
  return {
    restored_to: target.descriptor.save_point_id,
    undo_id: undoId,
    changes: { created, updated, deleted, metadata },
    left_out: leftOut.map(publicLeftOut),
    unlinked: unlinked.map((where) => displayPath(where)),
    method: "entries",
    duration_ms: since(started),
  };
}

/** Tells if the caller aborted. A signal during the exchange of entries arrives two turns of the event loop later. */
async function isStopped({ signal }: RestoreInput): Promise<boolean> {
  for (let turn = 0; turn < 2 && signal?.aborted === false; turn++) await setImmediate();
  return signal?.aborted === true;
}

/**
 * Undoes a restore that was stopped after its commit, and throws `interrupted`. The list of operations stays unchanged,
 * so a later undo reverts the operation before.
 */
async function takeBack(
  workspace: Workspace,
  { signal, cause: _cause, reverts: _reverts, ...input }: RestoreInput,
  { restored, operations }: { restored: Restored; operations: ReturnType<Workspace["state"]>["operations"] },
): Promise<void> {
  const undo = restored.undoId === null ? null : workspace.byId(restored.undoId);
  if (undo === null) return;
  const back = { ...input, target: undo, kind: "undo", keepPresent: false } as const;
  const { leftOut } = (await restoreByEntries(workspace, back)).restored;
  writeState(workspace.found.paths, { ...workspace.state(), operations });
  failpoint("restore.taken-back");
  const but = leftOut.length === 0 ? "" : `, but for ${plural(leftOut.length, "entry")} that changed meanwhile`;
  throw new CairnError("interrupted", `the restore was stopped and taken back: the folder is as it was before${but}`, {
    cause: signal?.reason,
  });
}

/** Throws `permission` for a read-only folder, before anything is read. */
function requireWritable({ root }: Workspace): void {
  try {
    fs.accessSync(root, fs.constants.W_OK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EROFS") return;
    const shown = printablePath(root);
    const isOwn = isSubvolume(root);
    throw new CairnError("permission", `${shown} cannot be restored: it is read-only`, {
      hint: isOwn
        ? `if the subvolume is read-only, as after \`btrfs receive\`: btrfs property set -ts ${shown} ro false`
        : "find out why its file system is mounted read-only, then mount it again for writing",
      cause: error,
    });
  }
}

/**
 * Exchanges whole trees if possible and returns the undo point's id. Returns null if the restore must go entry by
 * entry, and warns if the caller asked for an exchange.
 */
async function exchangeIfPossible(
  workspace: Workspace,
  input: RestoreInput & MethodOption,
): Promise<SavePointId | null> {
  if (input.method === "entries") return null;
  const isAsked = input.method === "exchange";
  const exchanged = whyNotWhole(workspace, input) ?? (await exchange(workspace, input, isAsked));
  if ("undoId" in exchanged) return exchanged.undoId;
  if (isAsked) input.onWarning?.(`restored entry by entry, not by an exchange: ${exchanged.refused}`);
  return null;
}

function whyNotWhole({ engine }: Workspace, { paths, keepPresent, reverts }: RestoreInput): { refused: string } | null {
  if (engine.holder?.atomic !== true)
    return { refused: `the engine ${engine.holder?.type ?? engine.type} does not make atomic snapshots` };
  if (paths !== null) return { refused: "an exchange cannot restore only some paths" };
  if (reverts !== undefined)
    return {
      refused: "entries were changed since the operation that is reverted, and an exchange would revert them too",
    };
  return keepPresent ? { refused: "an exchange cannot keep present entries" } : null;
}

async function exchange(
  workspace: Workspace,
  input: RestoreInput,
  isSure: boolean,
): ReturnType<typeof restoreByExchange> {
  const isRestore = !isReverting(input.kind);
  const ruleless = isRestore && (await isRuleless(workspace, input.target, input));
  // The ignore rules of an unsealed point are known only after it was read.
  const target = isRestore && !ruleless ? await sealPoint(workspace, input.target, input) : input.target;
  return restoreByExchange(workspace, { ...input, target, isSure, isRuleless: ruleless });
}

function since(started: number): number {
  return Math.round(performance.now() - started);
}
