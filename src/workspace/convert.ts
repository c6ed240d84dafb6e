import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { cloneSettled, type ClonedTree, whyNotWhole } from "../engines/tree/clone-settled.ts";
import { removeHeldTree } from "../engines/tree/remove-held.ts";
import { changedAfter } from "../engines/tree/walk-entries.ts";
import { CairnError, hintOfErrno, throwIfAborted, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { Recovery } from "../formats/control.ts";
import { commitFileSystem, makeSubvolume, isSubvolume, subvolumeUuid } from "../fs/btrfs.ts";
import { exchangePlaces, parentOf } from "../fs/exchange-folders.ts";
import { makePrivate } from "../fs/owner-writes.ts";
import { printablePath } from "../fs/safe-path.ts";
import { readControl, writeControl } from "./control-directory.ts";
import { requireConvertible, requireNoHolders } from "./convert-checks.ts";
import { requireSameTrees, rootFacts } from "./convert-compare.ts";
import {
  type ConvertIntent,
  originalName,
  readConvertIntent,
  removeConvertIntent,
  writeConvertIntent,
} from "./convert-intent.ts";
import type { GuardName } from "./guard-name.ts";
import { NOT_MADE } from "./intent-link.ts";
import { recordOriginal } from "./kept-original.ts";
import { recordFolder } from "./recorded-folder.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/**
 * Makes a plain directory on btrfs a subvolume in place, so that snapshots can hold it.
 *
 * 1. Intent: a link in the journal directory names the copy. 2. An empty subvolume beside the folder, which only its
 * owner may enter. 3. Every entry is cloned into it with all its metadata. 4. Both are read and compared. 5. Commit:
 * folder and copy change places in one call. 6. The original, now beside, is looked through for what was written after
 * the copy was begun; if there is anything, the two change places again and nothing has happened. 7. Record: the
 * engine, where the original lies, what folder it is now. 8. The intent goes. The original goes with the first point
 * that is made afterwards (`kept-original.ts`).
 *
 * Killed before the commit, the copy is removed. After it whoever comes next goes on with 6, so that the folder is
 * the whole original or the whole copy at every instant. What the file system's own clock says of a change (ctime)
 * cannot be set by anybody, and nothing waits in memory when the copy is begun: so no change goes unseen.
 */
export interface ConvertInput extends WorkspaceCall {
  allow?: readonly GuardName[] | undefined;
}

export interface Converted {
  /** where the folder lies as it was before, absolute, raw bytes */
  original: Buffer;
  entries: number;
  /** sum of the sizes of its files */
  bytes: number;
}

const ENGINE = "btrfs-snapshot";
/** Longer than the time in which the file system's clock stands still. */
const TICK_MS = 20;
const MILLION = 1_000_000n;

/** For the holder of the workspace's lock. Throws what the checks throw, and `conflict` when somebody writes meanwhile. */
export async function convertFolder(workspace: Workspace, input: ConvertInput): Promise<Converted> {
  const { root, found } = workspace;
  const { journal } = found.paths;
  await requireConvertible(root, { place: found.control.root, allow: input.allow, signal: input.signal });
  const name = originalName(randomBytes(8).toString("hex"));
  const aside = besideOf(root, name);
  let intent: ConvertIntent = { name, uuid: NOT_MADE, since: 0n, made: 0n };
  writeConvertIntent(journal, intent);
  failpoint("convert.intent");
  let copied: ClonedTree;
  let facts: string;
  try {
    await makeSubvolume(aside);
    makePrivate(aside);
    failpoint("convert.made");
    intent = { ...intent, uuid: subvolumeUuid(aside), since: await momentNow() };
    writeConvertIntent(journal, intent);
    failpoint("convert.begun");
    copied = await copyAside(root, aside, input);
    failpoint("convert.copied");
    await requireSameTrees(root, aside, input);
    failpoint("convert.compared");
    requireNoHolders(root, input.allow);
    requireUnchanged(root, await changedAfter(root, intent.since, input.signal));
    intent = { ...intent, made: await momentNow() };
    writeConvertIntent(journal, intent);
    failpoint("convert.known");
    throwIfAborted(input.signal);
    facts = rootFacts(root);
    workspace.requireLock();
    exchangePlaces(root, aside);
  } catch (error) {
    try {
      if (workspace.isStillLocked) await takeBack(workspace, intent);
    } catch (other) {
      // The intent is still there: whoever comes next tries again.
      input.onWarning?.(`the copy ${printablePath(aside)} could not be removed yet: ${toCairnError(other).message}`);
    }
    throw asFailure(root, error);
  }
  failpoint("convert.exchanged");
  const changed = rootFacts(aside) === facts ? await changedInOriginal(aside, intent) : Buffer.alloc(0);
  if (changed !== null) throw conflictOf(root, changed, await exchangeBack(workspace, intent));
  await recordConverted(workspace, intent);
  return { original: aside, entries: copied.result.entries, bytes: copied.result.bytes };
}

/** A moment (ns since 1970) that is after all that was changed before the call, and before all that is changed after it. */
async function momentNow(): Promise<bigint> {
  await sleep(TICK_MS);
  const now = BigInt(Date.now()) * MILLION;
  await sleep(TICK_MS);
  return now;
}

async function copyAside(root: Buffer, aside: Buffer, input: ConvertInput): Promise<ClonedTree> {
  const copied = await cloneSettled(root, aside, {
    signal: input.signal,
    onProgress: (done) => input.onProgress?.({ phase: "storing", done }),
  });
  const lacks = whyNotWhole(copied.result);
  if (lacks !== null)
    throw new CairnError("permission", `${printablePath(root)} cannot be copied whole: ${lacks}`, {
      hint: "convert as root, or as a user who may read everything and owns it",
    });
  const [torn] = copied.torn;
  if (torn !== undefined) requireUnchanged(root, Buffer.from(torn));
  const [apart] = copied.apart;
  if (apart !== undefined) requireUnchanged(root, Buffer.from(apart));
  return copied;
}

function requireUnchanged(root: Buffer, changed: Buffer | null): void {
  if (changed !== null) throw conflictOf(root, changed, null);
}

/** `kept`: where a copy lies that was written into while it was in the folder's place. */
function conflictOf(root: Buffer, changed: Buffer, kept: Buffer | null): CairnError {
  const what = changed.length === 0 ? "the folder itself" : printablePath(changed);
  const also =
    kept === null
      ? ""
      : `; what was written meanwhile into what should have replaced it lies in ${printablePath(kept)}`;
  return new CairnError(
    "conflict",
    `${printablePath(root)} was written to while it was converted (${what}): it is as it was${also}`,
    { hint: "try again when nobody writes into it" },
  );
}

/** A file system that is full says no more than that. */
function asFailure(root: Buffer, error: unknown): CairnError {
  const failure = toCairnError(error, `convert ${printablePath(root)}`);
  const isPlain = failure.hint === undefined || failure.hint === hintOfErrno("ENOSPC");
  if (failure.code !== "no_space" || !isPlain) return failure;
  return new CairnError("no_space", `${printablePath(root)} is not converted: ${failure.message}`, {
    hint: "the clones share their content, but need room for names and metadata: free some space",
    cause: error,
  });
}

/** What of the displaced original is not in the copy, the empty path for the folder itself; null where nothing is. */
async function changedInOriginal(aside: Buffer, { since, made }: ConvertIntent): Promise<Buffer | null> {
  const { mtimeNs, ctimeNs } = fs.lstatSync(aside, { bigint: true });
  // The exchange itself gave it a change time; an earlier one means that the clock was set back, and tells nothing.
  if (mtimeNs >= since || ctimeNs < made) return Buffer.alloc(0);
  return changedAfter(aside, since);
}

/** The original in its place again. Returns where the copy stays because somebody wrote into it; null when it is gone. */
async function exchangeBack(workspace: Workspace, intent: ConvertIntent): Promise<Buffer | null> {
  exchangePlaces(workspace.root, besideOf(workspace.root, intent.name));
  failpoint("convert.exchanged-back");
  return takeBack(workspace, intent);
}

/**
 * Removes the copy, whose place is beside the folder, and the intent. What somebody wrote into stays; what is no copy
 * of ours too.
 */
async function takeBack(workspace: Workspace, intent: ConvertIntent): Promise<Buffer | null> {
  const aside = besideOf(workspace.root, intent.name);
  let kept: Buffer | null = null;
  if (fs.lstatSync(aside, { throwIfNoEntry: false }) !== undefined) {
    const ours = isSubvolume(aside) && (intent.uuid === NOT_MADE || subvolumeUuid(aside) === intent.uuid);
    if (!ours || (intent.made > 0n && (await isWrittenTo(aside, intent.made)))) kept = aside;
    else await removeHeldTree(aside);
  }
  failpoint("convert.copy-removed");
  removeConvertIntent(workspace.found.paths.journal);
  return kept;
}

async function isWrittenTo(copy: Buffer, made: bigint): Promise<boolean> {
  return fs.lstatSync(copy, { bigint: true }).mtimeNs >= made || (await changedAfter(copy, made)) !== null;
}

/** From the exchange to the end. */
async function recordConverted(workspace: Workspace, intent: ConvertIntent): Promise<void> {
  const { root, found, points } = workspace;
  // The exchange must be on the disk before anything says that it took place.
  await commitFileSystem(parentOf(root));
  const controlFile = readControl(found.control) ?? found.controlFile;
  if (controlFile.engine !== ENGINE) writeControl(found.control, { ...controlFile, engine: ENGINE });
  failpoint("convert.engine-set");
  recordOriginal(found, {
    place: besideOf(root, intent.name),
    since: intent.since,
    after: points.nextSequence() - 1,
  });
  failpoint("convert.original-recorded");
  recordFolder(found);
  failpoint("convert.recorded");
  removeConvertIntent(found.paths.journal);
}

/** Finishes or takes back a conversion that was interrupted; null where there was none. For the lock's holder. */
export async function recoverConversion(workspace: Workspace): Promise<Recovery | null> {
  const { root, found } = workspace;
  const intent = readConvertIntent(found.paths.journal);
  if (intent === null) return null;
  const aside = besideOf(root, intent.name);
  const isExchanged = isThere(root) && isSubvolume(root) && subvolumeUuid(root) === intent.uuid;
  if (isExchanged && !isThere(aside)) {
    // Somebody took the original away: the folder is what there is.
    await recordConverted(workspace, intent);
    return done("completed", "the folder's conversion to a subvolume was interrupted and has been finished");
  }
  if (isExchanged && (await changedInOriginal(aside, intent)) === null) {
    await recordConverted(workspace, intent);
    const where = printablePath(aside);
    return done(
      "completed",
      `the folder's conversion to a subvolume was interrupted and has been finished; the original lies in ${where} until the next point`,
    );
  }
  const kept = isExchanged ? await exchangeBack(workspace, intent) : await takeBack(workspace, intent);
  const detail = "the folder's conversion to a subvolume was interrupted and has been taken back";
  return done("rolled_back", kept === null ? detail : `${detail}; ${printablePath(kept)} was written to and stays`);
}

/**
 * The folder was moved: what an interrupted conversion has beside it goes along, so that whoever recovers finds it. On another
 * file system it stays where it is. For the lock's holder.
 */
export function moveConversion(journal: string, from: Buffer, to: Buffer): void {
  try {
    const intent = readConvertIntent(journal);
    if (intent !== null) fs.renameSync(besideOf(from, intent.name), besideOf(to, intent.name));
  } catch {
    // Nothing lies there (any more), it cannot be brought, or recovery will say what is wrong with the journal.
  }
}

function done(outcome: Recovery["outcome"], detail: string): Recovery {
  return { operation: "convert", outcome, detail, kept: [] };
}

function isThere(place: Buffer): boolean {
  return fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined;
}

function besideOf(root: Buffer, name: string): Buffer {
  return Buffer.concat([parentOf(root), Buffer.from(parentOf(root).length === 1 ? name : `/${name}`)]);
}
