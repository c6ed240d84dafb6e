import fs from "node:fs";
import { presentSource } from "../../archive/scan/present-source.ts";
import { asVerifying, scan, ScanMemory, type ScanResult } from "../../archive/scan/scan.ts";
import { cloneSettled, whyNotWhole } from "../../clones/clone-settled.ts";
import { removeHeldTree } from "../../clones/remove-held.ts";
import { changedAfter, momentNow } from "../../clones/walk-entries.ts";
import type { GuardName } from "../../contract/words.ts";
import { advice, CairnError, option, throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { copyInto } from "../../fs/copy-folder.ts";
import { makeSubvolume } from "../../fs/linux/btrfs.ts";
import { linkInPlace, makeInPlace } from "../../fs/linux/exchange-folders.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { findHolders, WHY_UNKNOWN } from "../../fs/linux/holders.ts";
import { attributesOf } from "../../fs/linux/own-attributes.ts";
import { makePrivate } from "../../fs/owner-writes.ts";
import { listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { formatPolynomial, randomPolynomial } from "../../repository/packs/polynomial.ts";
import type { WorkspaceCall } from "../open/workspace.ts";
import { diffTrees } from "../points/tree-diff.ts";
import { isWrittenSince, swapFolder } from "../restore/swap-folder.ts";

/**
 * A folder that is replaced by an equal copy: of another form (a conversion), or at another place (a move). A save
 * point does not serve as the source, because it leaves ignored entries out. The original is never removed.
 * - Intent: the caller's record names the copy and the entry beside the folder.
 * - Stage: the copy is made, which only its owner may enter; every entry is copied into it with all its metadata.
 * - Verify: both are read and compared. No process holds the original, and nothing in it has a newer change time; no
 * program can set that.
 * - Commit ●: the entries at `path` and `beside` change places in one call ({@link swapFolder}).
 * - The original is searched for later changes. If there is any, the two change places again.
 * - Record: the caller notes the new place or form, and ends its record.
 *
 * A kill before the commit leaves the original in its place and a copy, which the end of the record removes unless it
 * was written to. A kill after the commit leaves the copy in the folder's place and the whole original.
 */
export interface Replacement {
  /** The place that shows the original before, and the copy after: the folder, or a link to it. */
  readonly path: Buffer;
  /** The original: `path`, or the target of the link at `path`. */
  readonly source: Buffer;
  /** A free place in the same folder as `path`, for the copy or a link to it. */
  readonly beside: Buffer;
  /** A free place for the copy: `beside`, or another file system's. */
  readonly copy: Buffer;
  readonly form: "subvolume" | "plain";
  /** Begins the names of the failpoints. */
  readonly name: string;
}

/** The record of a replacement. All moments are in ns since 1970. */
export interface ReplacementRecord {
  /** Notes that the copy is made, and gets all changes before `since`. */
  begun?(since: bigint): void;
  /** Notes that the copy is complete since `made`. */
  known?(made: bigint): void;
  /** Throws if the exchange must not take place, for example because the workspace's lock was lost. */
  requireMayCommit?(): void;
  /**
   * Called if the replacement fails. Removes the copy by {@link removeUnlessWritten}, and ends the record. Returns the
   * path of a copy that stays.
   */
  takeBack(made: bigint): Promise<Buffer | null>;
}

export interface ReplaceCall extends WorkspaceCall {
  allow?: readonly GuardName[] | undefined;
}

/** Number of entries that were copied and compared, and the sum of the sizes of their files. */
export interface Copied {
  entries: number;
  bytes: number;
}

/** When the copy was begun and when it was complete; 0: unknown. */
export interface CopyTimes {
  readonly since: bigint;
  readonly made: bigint;
}

/**
 * Carries out a replacement up to its commit. The caller has begun the record. Throws `refused` for processes that hold
 * the original, `conflict` if it is written to meanwhile, and errors of the copy; the original is in its place then.
 * If the search after the commit fails, throws its error: the end of the record decides.
 */
export async function replaceByCopy(
  replacement: Replacement,
  record: ReplacementRecord,
  call: ReplaceCall,
): Promise<Copied> {
  const { path, source, beside, copy, name } = replacement;
  const isMoved = source.equals(path);
  const shown = entryAt(path);
  let made = 0n;
  let isExchanged = false;
  let late: Buffer | null;
  let copied: Copied;
  try {
    await makePlace(replacement);
    failpoint(`${name}.made`);
    const since = await momentNow();
    const facts = rootFacts(source);
    record.begun?.(since);
    failpoint(`${name}.begun`);
    await fill(replacement, call);
    failpoint(`${name}.copied`);
    copied = await requireSameTrees(source, copy, call);
    failpoint(`${name}.compared`);
    requireNoHolders(source, call.allow);
    requireUnchanged(source, await changedAfter(source, since, call.signal));
    made = await momentNow();
    record.known?.(made);
    failpoint(`${name}.known`);
    throwIfAborted(call.signal);
    record.requireMayCommit?.();
    if (entryAt(path) !== shown) throw conflictOf(path, Buffer.alloc(0), null);
    late = await swapFolder(path, beside, async () => {
      isExchanged = true;
      failpoint(`${name}.exchanged`);
      const original = isMoved ? beside : source;
      const isSame = entryAt(beside) === shown && rootFacts(original) === facts;
      return isSame ? lateChange(original, { since, made, isMoved }) : Buffer.alloc(0);
    });
  } catch (error) {
    if (isExchanged) throw error;
    try {
      const kept = await record.takeBack(made);
      if (kept !== null) call.onWarning?.(`files were written into the copy ${printablePath(kept)}, which stays`);
    } catch (other) {
      // The record still exists: its end tries again.
      call.onWarning?.(`the copy ${printablePath(copy)} could not be removed yet: ${toCairnError(other).message}`);
    }
    throw error;
  }
  if (late === null) return copied;
  failpoint(`${name}.exchanged-back`);
  throw conflictOf(source, late, await record.takeBack(made));
}

/** Makes the empty copy, and the link to it if the copy lies elsewhere. */
async function makePlace({ beside, copy, form }: Replacement): Promise<void> {
  if (form === "subvolume") await makeSubvolume(copy);
  else makeInPlace(copy);
  makePrivate(copy);
  if (!copy.equals(beside)) linkInPlace(beside, copy);
}

/** Fills the copy by clones in the folder's own file system, else by copies, and writes it to the disk. */
async function fill({ path, source, beside, copy }: Replacement, call: ReplaceCall): Promise<void> {
  if (!source.equals(path) || !copy.equals(beside)) {
    await copyInto(source, copy, call.signal);
    await flushFileSystem(copy);
    return;
  }
  const { result, torn, apart } = await cloneSettled(source, copy, {
    signal: call.signal,
    onProgress: (done) => call.onProgress?.({ phase: "storing", done }),
  });
  const lacks = whyNotWhole(result);
  if (lacks !== null)
    throw new CairnError("permission", `${printablePath(source)} cannot be copied whole: ${lacks}`, {
      hint: "convert as root, or as a user who may read everything and owns it",
    });
  const [changed] = [...torn, ...apart];
  requireUnchanged(source, changed === undefined ? null : Buffer.from(changed));
}

/**
 * Reads two folders completely and throws `conflict` unless they are equal: both digests, every extended attribute, and
 * the metadata of their roots.
 */
async function requireSameTrees(one: Buffer, other: Buffer, call: WorkspaceCall): Promise<Copied> {
  const memory = new ScanMemory();
  try {
    return await requireSame(memory, { one, other, call });
  } finally {
    await memory.collect();
  }
}

async function requireSame(
  memory: ScanMemory,
  { one, other, call }: { one: Buffer; other: Buffer; call: WorkspaceCall },
): Promise<Copied> {
  const chunkerPolynomial = formatPolynomial(randomPolynomial());
  const read = async (root: Buffer): Promise<ScanResult> => {
    call.onProgress?.({ phase: "verifying", done: 0 });
    throwIfAborted(call.signal);
    return scan({
      request: { root, rules: { excludes: [], files: [] } },
      memory,
      cache: null,
      chunkerPolynomial,
      onProgress: (progress) => call.onProgress?.(asVerifying(progress)),
      signal: call.signal,
    });
  };
  const [a, b] = [await read(one), await read(other)];
  // The node comparison covers attributes that no digest has. Tree ids are not compared: equal states may have
  // different ones.
  const [different] = diffTrees(presentSource(a), presentSource(b));
  const isSame =
    different === undefined &&
    Buffer.compare(a.state, b.state) === 0 &&
    Buffer.compare(a.meta, b.meta) === 0 &&
    rootFacts(one) === rootFacts(other);
  if (isSame && a.notes.torn.length === 0 && a.notes.omitted.length === 0) {
    const { entries, bytes } = a.summarise();
    return { entries: entries.files + entries.directories + entries.links + entries.other, bytes };
  }
  const named = different === undefined ? "the metadata of the folder itself" : printablePath(different.path);
  throw new CairnError("conflict", `${printablePath(one)} and its copy differ: ${named}`, {
    hint: "stop the programs that write into the folder, then try again",
  });
}

/** Returns mode, owner, time and extended attributes of a folder itself, which no tree has. */
function rootFacts(folder: Buffer): string {
  const { mode, uid, gid, mtimeNs } = fs.lstatSync(folder, { bigint: true });
  return JSON.stringify([mode, uid, gid, mtimeNs].map(String).concat(attributesOf(folder)));
}

/** Identifies the entry at a path, which may be a link. */
function entryAt(place: Buffer): string {
  const { dev, ino } = fs.lstatSync(place, { bigint: true });
  return `${dev}:${ino}`;
}

/**
 * Returns a path of the original that changed since the copy was begun, empty for the folder itself; null if none did.
 * The caller has compared the facts of the folder itself, whose change time an exchange (`isMoved`) sets on some file systems.
 */
async function lateChange(
  original: Buffer,
  { since, made, isMoved }: CopyTimes & { isMoved: boolean },
): Promise<Buffer | null> {
  if (!isMoved && fs.lstatSync(original, { bigint: true }).ctimeNs >= since) return Buffer.alloc(0);
  return isClockSetBack(made) ? Buffer.alloc(0) : changedAfter(original, since);
}

/** True if the clock shows a time before `moment` (ns since 1970): later changes cannot be found then. */
function isClockSetBack(moment: bigint): boolean {
  return BigInt(Date.now()) * 1_000_000n < moment;
}

function requireUnchanged(source: Buffer, changed: Buffer | null): void {
  if (changed !== null) throw conflictOf(source, changed, null);
}

/** `kept`: the path of a copy that was written to while it was in the folder's place. */
function conflictOf(source: Buffer, changed: Buffer, kept: Buffer | null): CairnError {
  const what = changed.length === 0 ? "the folder itself" : printablePath(changed);
  const also =
    kept === null ? "" : `; files that were written into the new copy meanwhile are in ${printablePath(kept)}`;
  return new CairnError(
    "conflict",
    `${printablePath(source)} was written to meanwhile (${what}), and stays as it is${also}`,
    { hint: "stop the programs that write into the folder, then try again" },
  );
}

/**
 * Returns a path of the original that changed since the copy was begun, empty for the folder itself; null if none did.
 * `made`: when the copy was complete, if the exchange moved the original; else 0.
 */
export async function changedSince(original: Buffer, { since, made }: CopyTimes): Promise<Buffer | null> {
  const { mtimeNs, ctimeNs } = fs.lstatSync(original, { bigint: true });
  // The exchange itself set the change time. An earlier time means that the clock was set back, so changes cannot be
  // found.
  if (mtimeNs >= since || ctimeNs < made) return Buffer.alloc(0);
  return changedAfter(original, since);
}

/**
 * Removes a copy that has no longer, or never had, the folder's place. A copy that has writes since `made`, or may have,
 * or gets more because a process has it open, stays: returns its path.
 */
export async function removeUnlessWritten(copy: Buffer, made: bigint): Promise<Buffer | null> {
  if (fs.lstatSync(copy, { throwIfNoEntry: false }) === undefined) return null;
  const isUsed = async (): Promise<boolean> =>
    isClockSetBack(made) || (await isWrittenSince(copy, made)) || isHeld(copy);
  if (made > 0n && (await isUsed())) return copy;
  await removeHeldTree(copy);
  return null;
}

function isHeld(copy: Buffer): boolean {
  return findHolders(copy, { budgetMs: HOLDERS_BUDGET_MS }).holders.length > 0;
}

const HOLDERS_BUDGET_MS = 2000;

/**
 * Throws if a process has the folder or an entry open: it would keep working in the original. Processes that cannot be
 * inspected count too, unless allowed.
 */
export function requireNoHolders(folder: Buffer, allow: readonly GuardName[] | undefined): void {
  const shown = printablePath(folder);
  const { holders, unknown } = findHolders(folder, { budgetMs: HOLDERS_BUDGET_MS });
  if (holders.length > 0) {
    const processes = [...new Map(holders.map((each) => [each.pid, each])).values()];
    const named = processes.map(({ pid, command, kind, path }) => {
      const what = kind === "cwd" ? "works in" : "has open";
      return `process ${pid} (${command}) ${what} ${path.length === 0 ? "it" : printablePath(path)}`;
    });
    throw new CairnError("refused", `${shown} is not replaced: ${listedNames(named, "; ")}`, {
      hint: "end these processes, or have them leave the folder (a shell: cd), and try again",
      details: { holders: processes.map(({ pid, command }) => ({ pid, command })) },
    });
  }
  if (unknown.length === 0 || allow?.includes("holders") === true) return;
  const why = unknown.map((each) => WHY_UNKNOWN[each]).join("; ");
  throw new CairnError(
    "refused",
    `${shown} is not replaced: Cairn cannot find out if a process has files of the folder open: ${why}`,
    {
      hint: advice`if you know that no process uses the folder, go on with ${option({ allow: ["holders"] })}`,
      details: { guard: "holders" },
    },
  );
}
