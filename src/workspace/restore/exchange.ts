import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { holderOf } from "../../clones/holder-of.ts";
import { STAGING_PREFIX } from "../../archive/scan/task.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { type OperationKind, withOperation } from "../../formats/records/control.ts";
import type { Cause } from "../../formats/records/descriptor.ts";
import { isSubvolume, subvolumeUuid } from "../../fs/linux/btrfs.ts";
import { durableMkdir, durableRename } from "../../fs/durable.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { newSavePointId, type SavePointId } from "../../ids.ts";
import { type HeldPoint, holdPoint } from "../save/capture.ts";
import { isFolderThere, noteReplaced, writeState } from "../place/control-directory.ts";
import { newKeptPlace } from "../place/control-layout.ts";
import { treePlace } from "../points/held-trees.ts";
import { journaled, restoredInPart } from "../open/unfinished-work.ts";
import { keepAnnounced } from "../open/missing-folder.ts";
import { type ExchangeWork, NOT_MADE } from "../../formats/records/unfinished.ts";
import { beforeRestore, type Point } from "../points/point-files.ts";
import { takeInFolder } from "../save/receive.ts";
import { holdDatabases, lookForHolders, NO_HOLDERS, whyHeld, whyNotExchanged } from "./exchangeable.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { isWrittenSince, swapFolder } from "./swap-folder.ts";

/**
 * Restores by exchanging whole trees: a whole folder lies at the path at every instant. The displaced tree becomes the
 * undo point after the exchange, because a process with an open file may write to it until then.
 * - Intent: the record, which is part of the exchange's own transaction. Stage: a writable copy of the target.
 * - Commit ●: copy and folder change places in one call. After a kill before it the copy is removed; after a kill
 * later the next command goes on.
 * - The undo point, head; the displaced tree is moved aside and removed in the background; the record is removed.
 */
interface ExchangeInput extends WorkspaceCall {
  target: Point;
  kind: OperationKind;
  cause?: Cause | undefined;
  /** Ignore rules hide nothing in the target, though it is not sealed (see ruleless.ts). */
  isRuleless: boolean;
  /** The caller vouches that processes that Cairn cannot inspect have nothing in the folder open. */
  isSure: boolean;
}

type ChangeState = HeldPoint["changeState"];

/** Restores by an exchange, or leaves the folder as it is and returns the reason. The caller holds the workspace's lock. */
export async function restoreByExchange(
  workspace: Workspace,
  input: ExchangeInput,
): Promise<{ undoId: SavePointId } | { refused: string }> {
  // A sure caller hardly has the folder open, so holders are looked up once, after the copy. Other callers are spared a
  // needless copy.
  const refused = whyNotExchanged(workspace, input) ?? (input.isSure ? null : whyHeld(workspace.root, false));
  if (refused !== null) return { refused };
  const holder = workspace.engine.holder!;
  const { control } = workspace.found;
  const record = workspace.unfinished("exchange");
  const { descriptor } = input.target;
  makeFolder(control.temporary);
  const name = `${STAGING_PREFIX}${randomBytes(8).toString("hex")}`;
  let intent: ExchangeWork = {
    target: descriptor.save_point_id,
    undo_id: newSavePointId(),
    kind: input.kind,
    staging: name,
    uuid: NOT_MADE,
  };
  const staging = placeOf(workspace, intent);
  record.begin(intent);
  failpoint("exchange.intent");
  try {
    const tree = treePlace(workspace.points, input.target);
    await holder.materialise(tree, Buffer.from(staging), { signal: input.signal });
    const { reason, isAll } = input.isSure ? lookForHolders(workspace.root) : NO_HOLDERS;
    const quiet = reason ?? (isAll ? null : await holdDatabases(workspace.root, input.signal));
    if (typeof quiet === "string") {
      await takeBack(workspace, intent, input);
      return { refused: quiet };
    }
    using _quiet = quiet;
    failpoint("exchange.staged");
    intent = { ...intent, uuid: subvolumeUuid(staging) };
    record.begin(intent);
    failpoint("exchange.known");
    workspace.requireLock();
    let shownSince = 0n;
    const late = await swapFolder(workspace.root, Buffer.from(staging), () => {
      shownSince = fs.lstatSync(workspace.root, { bigint: true }).ctimeNs;
      failpoint("exchange.shown");
      // No process can open the displaced tree any more. A process that opened it just before would keep working in it.
      const isWanted = quiet?.isWanted() === true;
      return isWanted ? "a process began to open a database in it" : whyHeld(Buffer.from(staging), true);
    });
    if (late !== null) {
      if (await isWrittenSince(Buffer.from(staging), shownSince)) input.onWarning?.(keepWritten(workspace, intent));
      await takeBack(workspace, intent, input);
      return { refused: late };
    }
  } catch (error) {
    // After the exchange the displaced tree lies there, and the next command makes it the undo point.
    if (workspace.isStillLocked && !isExchanged(workspace, intent)) await takeBack(workspace, intent, input);
    throw error;
  }
  failpoint("exchange.exchanged");
  const displaced = await recordDisplaced(workspace, holder, { intent, call: input, cause: input.cause });
  const kept = await finishExchange(workspace, { intent, ...displaced }, async () =>
    workspace.removals.add(staging, input.onWarning),
  );
  if (kept !== null) input.onWarning?.(kept);
  return { undoId: intent.undo_id };
}

/** The point of the displaced tree, and a function that records later changes of the state. */
interface Displaced {
  undo: Point;
  changeState: ChangeState;
}

/**
 * Goes on from the undo point to the record. `remove` removes the displaced tree. Returns a text about a displaced tree
 * that is kept, else null.
 */
async function finishExchange(
  workspace: Workspace,
  { intent, undo, changeState }: { intent: ExchangeWork } & Displaced,
  remove: () => Promise<void>,
): Promise<string | null> {
  failpoint("exchange.saved");
  const at = new Date().toISOString();
  const operation = { kind: intent.kind, at, undo_id: intent.undo_id, restored_to: intent.target, paths: null };
  const { operations } = withOperation(workspace.state(), operation);
  changeState({ head: workspace.standsAt(intent.target), operations });
  failpoint("exchange.recorded");
  let kept: string | null = null;
  if (isAllInPoint(undo)) await remove();
  else kept = keepDisplaced(workspace, intent);
  failpoint("exchange.displaced-removed");
  keepAnnounced(workspace);
  noteReplaced(workspace.found);
  workspace.unfinished("exchange").end();
  return kept;
}

/** Makes the displaced tree the undo point. Reads the tree if a new subvolume inside prevents holding it. */
async function recordDisplaced(
  workspace: Workspace,
  holder: ReturnType<typeof holderOf>,
  more: { intent: ExchangeWork; call: WorkspaceCall; cause?: Cause | undefined },
): Promise<Displaced> {
  const { intent } = more;
  const { onProgress, onWarning } = more.call;
  const folder = Buffer.from(placeOf(workspace, intent));
  const input = { ...beforeRestore(intent.kind, intent.target, more.cause), onProgress, onWarning };
  const point = { id: intent.undo_id, undo: true };
  try {
    const held = await holdPoint(workspace, input, { holder, from: folder, ...point });
    workspace.points.settle(held.point.sequence);
    return { undo: held.point, changeState: held.changeState };
  } catch (error) {
    const failed = toCairnError(error);
    if (failed.code !== "unsupported" && failed.code !== "permission") throw error;
    const head = workspace.byId(workspace.state().head);
    const degraded = [{ what: holder.type, reason: failed.message }];
    const undo = await takeInFolder(workspace, { ...input, ...point, folder, head, degraded });
    return { undo, changeState: changesOf(workspace) };
  }
}

function changesOf(workspace: Workspace): ChangeState {
  return (changes) => writeState(workspace.found.paths, { ...workspace.state(), ...changes });
}

/** Tells if the undo point has all of the displaced tree: the tree is held, or was read completely. */
function isAllInPoint({ made }: Point): boolean {
  return made.content.held !== undefined || made.complete;
}

/** Keeps a displaced tree that could not be read completely, for a user with more rights. Returns a text with its path. */
function keepDisplaced(workspace: Workspace, work: ExchangeWork): string | null {
  if (!fs.existsSync(placeOf(workspace, work))) return null;
  const kept = moveToKept(workspace, work, "displaced");
  return `some files of the folder before the restore could not be read, and are not in the save point ${work.undo_id.slice(0, 8)}: that folder lies in ${kept}; remove it when you no longer need it`;
}

export const EXCHANGE = journaled({
  kind: "exchange",
  operation: "restore",
  where: "`journal/exchange.json`",
  steps: [
    "the record names a copy of the target's clone in `tmp/`",
    "the clone is copied",
    "● folder and copy change places in one call; the file system makes record and exchange durable together",
    "the displaced tree becomes the undo point; head moves",
    "the displaced tree and the record are removed",
  ],
  before: "removes the copy",
  after: "makes the undo point, moves head, and removes the displaced tree",
  changesFolder: true,
  unreadable: restoredInPart,
  isCommitted: isExchanged,
  async finish(workspace, intent, call) {
    const staging = placeOf(workspace, intent);
    const undo =
      workspace.byId(intent.undo_id) ?? (await recordDisplaced(workspace, holderOf(staging), { intent, call })).undo;
    const kept = await finishExchange(workspace, { intent, undo, changeState: changesOf(workspace) }, async () =>
      workspace.removals.now(staging, call.onWarning),
    );
    const detail = `the restore of ${intent.target.slice(0, 8)} was interrupted and has been finished`;
    return { operation: intent.kind, detail: kept === null ? detail : `${detail}; ${kept}` };
  },
  async takeBack(workspace, intent, call) {
    await takeBack(workspace, intent, call);
    const detail = `the restore of ${intent.target.slice(0, 8)} had not begun to change the folder`;
    return { operation: intent.kind, detail };
  },
});

/** Keeps a copy that was written to. Returns a text with its path. */
function keepWritten(workspace: Workspace, work: ExchangeWork): string {
  const kept = moveToKept(workspace, work, "written");
  return `files were written into the folder while the restore tried to exchange it; these files are in ${kept}: copy them back, then remove it`;
}

function moveToKept(workspace: Workspace, work: ExchangeWork, name: string): string {
  const place = newKeptPlace(workspace.found.control, "restore");
  durableMkdir(place);
  const kept = path.join(place, name);
  durableRename(placeOf(workspace, work), kept);
  return kept;
}

/** Removes the copy and the record. For an exchange that has not taken place. */
async function takeBack(workspace: Workspace, work: ExchangeWork, { onWarning }: WorkspaceCall): Promise<void> {
  await workspace.removals.now(placeOf(workspace, work), onWarning);
  workspace.unfinished("exchange").end();
}

/** Returns the path of the copy, and after the exchange of the displaced tree. */
function placeOf({ found }: Workspace, { staging }: ExchangeWork): string {
  return path.join(found.control.temporary, staging);
}

/** Tells if the trees are exchanged, by the tree that lies aside if it exists: the folder may be removed since. */
function isExchanged(workspace: Workspace, work: ExchangeWork): boolean {
  const { root } = workspace;
  const { uuid } = work;
  const staging = placeOf(workspace, work);
  if (uuid !== NOT_MADE && fs.existsSync(staging)) return subvolumeUuid(staging) !== uuid;
  return isFolderThere(root) && isSubvolume(root) && subvolumeUuid(root) === uuid;
}
