import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { presentSource } from "../../archive/scan/present-source.ts";
import { asVerifying, scan, ScanMemory, type ScanResult } from "../../archive/scan/scan.ts";
import { type ClonedTree, cloneSettled, whyNotWhole } from "../../clones/clone-settled.ts";
import { removeHeldTree } from "../../clones/remove-held.ts";
import { changedAfter, findObstacles } from "../../clones/walk-entries.ts";
import type { GuardName } from "../../contract/words.ts";
import { advice, CairnError, type Hint, hintOfErrno, option, throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { commitFileSystem, isSubvolume, makeSubvolume, subvolumeUuid } from "../../fs/linux/btrfs.ts";
import { exchangePlaces, parentOf } from "../../fs/linux/exchange-folders.ts";
import { attributesOf } from "../../fs/linux/own-attributes.ts";
import { makePrivate } from "../../fs/owner-writes.ts";
import { joinRaw, listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { formatPolynomial, randomPolynomial } from "../../repository/packs/polynomial.ts";
import { type ConversionWork, NOT_MADE } from "../../formats/records/unfinished.ts";
import { journaled } from "../open/unfinished-work.ts";
import { readControl, recordFolder, writeControl } from "../place/control-directory.ts";
import { diffTrees } from "../points/tree-diff.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { ENGINES, probeNewSubvolume } from "../../clones/probe.ts";
import { STAGING_NAME } from "../../archive/scan/task.ts";
import { boundSockets, findHolders, mountedElsewhere, swapFiles, WHY_UNKNOWN } from "../../fs/linux/holders.ts";
import { filesystemKind, isMountPoint, mountsInside, readMounts } from "../../fs/linux/mounts.ts";
import { ORIGINAL_PREFIX, originalStays } from "./originals.ts";
import { checkSpace } from "../place/guards.ts";
import { controlDirectoriesInside } from "../place/registry.ts";

/** The form that a folder is converted to: a subvolume, which can have snapshots, or a plain directory. */
export type ConvertTo = "subvolume" | "plain";

/**
 * Makes a plain directory on btrfs a subvolume in place, or a subvolume a plain directory. No program can set a change
 * time (ctime), so every change is found. The folder is the whole original or the whole copy at every instant.
 * - Intent: the record names the copy. The copy is an empty subvolume or directory beside the folder, which only its
 * owner may enter.
 * - Every entry is cloned into it with all its metadata; both are read and compared.
 * - Commit ●: folder and copy change places in one call. A kill before it removes the copy.
 * - The original, now beside the folder, is searched for later changes; if there is any, the two change places again.
 * - Record: the engine, and the folder's new identity; the intent is removed. The user may remove the original.
 */
export interface ConvertInput extends WorkspaceCall {
  allow?: readonly GuardName[] | undefined;
}

export interface Converted {
  /** The path of the original folder, absolute, raw bytes. */
  original: Buffer;
  entries: number;
  /** The sum of the sizes of its files. */
  bytes: number;
}

interface Times {
  readonly since: bigint;
  readonly made: bigint;
}

const timesOf = ({ since, made }: ConversionWork): Times => ({ since: BigInt(since), made: BigInt(made) });

const asideOf = ({ root }: Workspace, { name }: Pick<ConversionWork, "name">): Buffer => joinRaw(parentOf(root), name);

/** Returns the engine for a folder's form. Existing points keep the engine that made them. */
const engineOf = (root: Buffer): string => (isSubvolume(root) ? "btrfs-snapshot" : "reflink-copy");

/** Identifies a folder: the UUID of a subvolume, or a plain directory's inode with as many digits. */
function identityAt(place: Buffer): string {
  if (isSubvolume(place)) return subvolumeUuid(place);
  return fs.lstatSync(place, { bigint: true }).ino.toString(16).padStart(NOT_MADE.length, "0");
}

/** Longer than a tick of the file system's clock. */
const TICK_MS = 20;

/**
 * Converts a folder. The caller holds the workspace's lock. Throws errors of the checks, and `conflict` if a program
 * writes to the folder meanwhile.
 */
export async function convertFolder(workspace: Workspace, input: ConvertInput, to: ConvertTo): Promise<Converted> {
  const { root, found } = workspace;
  const record = workspace.unfinished("conversion");
  await requireConvertible(root, { place: found.control.root, allow: input.allow, signal: input.signal, to });
  const name = `${ORIGINAL_PREFIX}${randomBytes(8).toString("hex")}`;
  const aside = asideOf(workspace, { name });
  let work: ConversionWork = { name, uuid: NOT_MADE, since: "0", made: "0" };
  record.begin(work);
  failpoint("convert.intent");
  let copied: ClonedTree;
  let facts: string;
  try {
    if (to === "subvolume") await makeSubvolume(aside);
    else fs.mkdirSync(aside, { mode: 0o700 });
    makePrivate(aside);
    failpoint("convert.made");
    const since = await momentNow();
    work = { ...work, uuid: identityAt(aside), since: String(since) };
    record.begin(work);
    failpoint("convert.begun");
    copied = await copyAside(root, aside, input);
    failpoint("convert.copied");
    await requireSameTrees(root, aside, input);
    failpoint("convert.compared");
    requireNoHolders(root, input.allow);
    requireUnchanged(root, await changedAfter(root, since, input.signal));
    work = { ...work, made: String(await momentNow()) };
    record.begin(work);
    failpoint("convert.known");
    throwIfAborted(input.signal);
    facts = rootFacts(root);
    workspace.requireLock();
    exchangePlaces(root, aside);
  } catch (error) {
    try {
      if (workspace.isStillLocked) await takeBack(workspace, work);
    } catch (other) {
      // The intent still exists: the next command tries again.
      input.onWarning?.(`the copy ${printablePath(aside)} could not be removed yet: ${toCairnError(other).message}`);
    }
    throw asFailure(root, error);
  }
  failpoint("convert.exchanged");
  const changed = rootFacts(aside) === facts ? await changedInOriginal(aside, timesOf(work)) : Buffer.alloc(0);
  if (changed !== null) throw conflictOf(root, changed, await exchangeBack(workspace, work));
  await recordConverted(workspace);
  return { original: aside, entries: copied.result.entries, bytes: copied.result.bytes };
}

/** Returns a moment (ns since 1970) later than all changes before the call and earlier than all changes after it. */
export async function momentNow(): Promise<bigint> {
  await sleep(TICK_MS);
  const now = BigInt(Date.now()) * 1_000_000n;
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
  const [changed] = [...copied.torn, ...copied.apart];
  requireUnchanged(root, changed === undefined ? null : Buffer.from(changed));
  return copied;
}

/** Number of entries that were copied and compared, and the size of their files. */
export type Copied = Pick<Converted, "entries" | "bytes">;

/**
 * Reads two folders completely and throws `conflict` unless they are equal: both digests, every extended attribute, and
 * the metadata of their roots.
 */
export async function requireSameTrees(one: Buffer, other: Buffer, call: WorkspaceCall): Promise<Copied> {
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
export function rootFacts(folder: Buffer): string {
  const { mode, uid, gid, mtimeNs } = fs.lstatSync(folder, { bigint: true });
  return JSON.stringify([mode, uid, gid, mtimeNs].map(String).concat(attributesOf(folder)));
}

function requireUnchanged(root: Buffer, changed: Buffer | null): void {
  if (changed !== null) throw conflictOf(root, changed, null);
}

/** `kept`: the path of a copy that was written to while it was in the folder's place. */
function conflictOf(root: Buffer, changed: Buffer, kept: Buffer | null): CairnError {
  const what = changed.length === 0 ? "the folder itself" : printablePath(changed);
  const also =
    kept === null ? "" : `; files that were written into the new copy meanwhile are in ${printablePath(kept)}`;
  return new CairnError(
    "conflict",
    `${printablePath(root)} was written to during the conversion (${what}): the conversion was taken back${also}`,
    { hint: "stop the programs that write into the folder, then try again" },
  );
}

/** Adds the folder and a hint to an error of a full file system. */
function asFailure(root: Buffer, error: unknown): CairnError {
  const failure = toCairnError(error, `convert ${printablePath(root)}`);
  const isPlain = failure.hint === undefined || failure.hint === hintOfErrno("ENOSPC");
  if (failure.code !== "no_space" || !isPlain) return failure;
  return new CairnError("no_space", `${printablePath(root)} is not converted: ${failure.message}`, {
    hint: "free some space: clones share their content, but need room for names and metadata",
    cause: error,
  });
}

/**
 * Returns a path of the displaced original that changed since the copy began, empty for the folder itself; null if none did.
 */
export async function changedInOriginal(aside: Buffer, { since, made }: Times): Promise<Buffer | null> {
  const { mtimeNs, ctimeNs } = fs.lstatSync(aside, { bigint: true });
  // The exchange itself set the change time. An earlier time means that the clock was set back, so changes cannot be
  // found.
  if (mtimeNs >= since || ctimeNs < made) return Buffer.alloc(0);
  return changedAfter(aside, since);
}

/** Puts the original in its place again. Returns the path of the copy if it was written to and stays; else null. */
async function exchangeBack(workspace: Workspace, work: ConversionWork): Promise<Buffer | null> {
  exchangePlaces(workspace.root, asideOf(workspace, work));
  failpoint("convert.exchanged-back");
  return takeBack(workspace, work);
}

/**
 * Removes the copy beside the folder, and the intent. Returns the copy's path if it was written to, or is another
 * folder: then it stays.
 */
async function takeBack(workspace: Workspace, work: ConversionWork): Promise<Buffer | null> {
  const { uuid } = work;
  const made = BigInt(work.made);
  const aside = asideOf(workspace, work);
  let kept: Buffer | null = null;
  if (isThere(aside)) {
    const isOurs = uuid === NOT_MADE ? isEmptyOrSubvolume(aside) : identityAt(aside) === uuid;
    const isWrittenTo = async (): Promise<boolean> =>
      fs.lstatSync(aside, { bigint: true }).mtimeNs >= made || (await changedAfter(aside, made)) !== null;
    if (!isOurs || (made > 0n && (await isWrittenTo()))) kept = aside;
    else await removeHeldTree(aside);
  }
  failpoint("convert.copy-removed");
  workspace.unfinished("conversion").end();
  return kept;
}

/** Tells if an unidentified copy may be removed: before its identity is recorded, a copy is empty. */
function isEmptyOrSubvolume(aside: Buffer): boolean {
  return isSubvolume(aside) || fs.readdirSync(aside).length === 0;
}

async function recordConverted(workspace: Workspace): Promise<void> {
  const { root, found } = workspace;
  // The exchange must be durable before a record of it.
  await commitFileSystem(parentOf(root));
  const controlFile = readControl(found.control) ?? found.controlFile;
  const engine = engineOf(root);
  if (controlFile.engine !== engine) writeControl(found.control, { ...controlFile, engine });
  failpoint("convert.engine-set");
  recordFolder(found);
  failpoint("convert.recorded");
  workspace.unfinished("conversion").end();
}

export const CONVERSION = journaled({
  kind: "conversion",
  operation: "conversion",
  where: "`journal/conversion.json`",
  steps: [
    "the record names a copy beside the folder, `.cairn-original-…`",
    "every entry is cloned into it; both are read and compared",
    "● folder and copy change places in one call",
    "the original, now beside the folder, is searched for later changes; if there are any, both change places again",
    "the engine and the folder's new identity are recorded; the record is removed",
  ],
  before: "removes the copy, unless a program wrote to it",
  after: "searches the original again and records the conversion, or exchanges both again; the original stays",
  changesFolder: true,
  unreadable: () => "the folder is whole; the copy, or the original folder, stays beside it (.cairn-original-…)",
  async isCommitted(workspace, work) {
    const aside = asideOf(workspace, work);
    // If the original was removed meanwhile, the folder is the only version.
    return (
      isExchanged(workspace, work) && (!isThere(aside) || (await changedInOriginal(aside, timesOf(work))) === null)
    );
  },
  async finish(workspace, work) {
    await recordConverted(workspace);
    const aside = asideOf(workspace, work);
    const detail = "the folder's conversion was interrupted and has been finished";
    return { operation: "convert", detail: isThere(aside) ? `${detail}; ${originalStays(aside)}` : detail };
  },
  async takeBack(workspace, work) {
    const kept = isExchanged(workspace, work) ? await exchangeBack(workspace, work) : await takeBack(workspace, work);
    const stays = kept === null ? "" : `; ${printablePath(kept)} was written to and is not removed`;
    return {
      operation: "convert",
      detail: `the folder's conversion was interrupted and has been taken back${stays}`,
    };
  },
});

function isExchanged({ root }: Workspace, { uuid }: ConversionWork): boolean {
  return isThere(root) && identityAt(root) === uuid;
}

/**
 * Moves the copy of an interrupted conversion along with its folder, so that recovery finds it. On another file system
 * the copy stays. The caller holds the lock.
 */
export function moveConversion(workspace: Workspace, from: Buffer, to: Buffer): void {
  try {
    const work = workspace.unfinished("conversion").read();
    if (work !== null) fs.renameSync(joinRaw(parentOf(from), work.name), joinRaw(parentOf(to), work.name));
  } catch (error) {
    // Only the build that began the conversion finds the copy, and it looks beside the old path.
    if (error instanceof CairnError && error.code === "refused") throw error;
    // There is no copy, it cannot be moved, or the journal is damaged, which recovery reports.
  }
}

function isThere(place: Buffer): boolean {
  return fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined;
}

/** Options of the checks before a conversion in place. Each refusal names a remedy. */

export interface ConvertChecks {
  /** a folder on the path to the present or later points */
  place: string;
  allow?: readonly GuardName[] | undefined;
  signal?: AbortSignal | undefined;
  /** default `subvolume` */
  to?: ConvertTo;
}

const HOLDERS_BUDGET_MS = 2000;

/** True for a plain folder on btrfs, which can be converted to a subvolume. */
export function isPlainOnBtrfs(folder: Buffer): boolean {
  return filesystemKind(folder).name === "btrfs" && !isSubvolume(folder);
}

/** True if a conversion has work to do. False if the folder has the form already, or is not on btrfs. */
export function isToConvert(folder: Buffer, to: ConvertTo): boolean {
  return to === "plain" ? isSubvolume(folder) : isPlainOnBtrfs(folder);
}

/**
 * Checks every obstacle to converting a folder (its real path). Changes nothing except for a probe beside the points.
 * Throws `refused`, `permission`, `unsupported`, `no_space`.
 */
export async function requireConvertible(folder: Buffer, checks: ConvertChecks): Promise<void> {
  requirePlace(folder);
  requireRights(folder);
  checkSpace(parentOf(folder).toString("utf8"), 0, { allow: checks.allow });
  const { to = "subvolume", place, signal } = checks;
  const answer = to === "plain" ? null : await probeNewSubvolume({ folder, place, signal });
  if (answer !== null)
    throw new CairnError("unsupported", `${shown(folder)} cannot be kept as btrfs snapshots: ${answer.reason}`, {
      hint: answer.hint ?? advice`use another engine: ${ENGINES}`,
    });
  requireNoHolders(folder, checks.allow);
  const { subvolumes, fixed } = await findObstacles(folder, checks.signal);
  if (subvolumes.length > 0)
    throw refusal(folder, `there are subvolumes inside: ${listed(subvolumes)}`, {
      hint: "make plain folders of them, move them out, or use another engine: a btrfs snapshot does not include nested subvolumes",
    });
  if (fixed.length > 0)
    throw refusal(folder, `the system refuses changes of ${listed(fixed)} (immutable or append-only)`, {
      hint: "remove the attribute (chattr -i -a), convert, then set the attribute again",
    });
}

/**
 * Throws if a file system is mounted at or in the folder, the folder is mounted elsewhere, or sockets, swap files or
 * Cairn's own files are inside.
 */
function requirePlace(folder: Buffer): void {
  const mounts = readMounts();
  if (isMountPoint(folder, mounts))
    throw refusal(folder, "the folder is a mount point", {
      hint: "unmount it and convert the folder below, or convert the mounted folder at its own path",
    });
  const inside = mountsInside(folder, mounts).map(({ mountPoint }) => mountPoint);
  if (inside.length > 0)
    throw refusal(folder, `file systems are mounted inside: ${listed(inside)}`, { hint: "unmount them first" });
  const shownElsewhere = mountedElsewhere(folder, mounts);
  if (shownElsewhere.length > 0)
    throw refusal(
      folder,
      `the folder is also mounted at ${listed(shownElsewhere)}, which would still show the old folder`,
      {
        hint: "unmount it there first, and mount it again after the conversion",
      },
    );
  const sockets = boundSockets(folder);
  if (sockets.length > 0)
    throw refusal(
      folder,
      `a program listens on ${listed(sockets)}, and its clients could not connect after the conversion`,
      {
        hint: "end that program, and start it again after the conversion",
      },
    );
  const swap = swapFiles(folder);
  if (swap.length > 0)
    throw refusal(folder, `the system swaps to ${listed(swap)}`, { hint: "turn swapping off first, with swapoff" });
  const [control] = controlDirectoriesInside(folder);
  if (control !== undefined)
    throw refusal(folder, `the control directory ${control} lies inside`, {
      hint: advice`keep the points outside the folder: ${option("controlDirectory")}`,
    });
  const [staging] = fs.readdirSync(folder).filter((name) => STAGING_NAME.test(name));
  if (staging !== undefined)
    throw refusal(folder, `the folder contains ${staging}, left by an interrupted restore of another workspace`, {
      hint: "look at its content, then move it away",
    });
}

function requireRights(folder: Buffer): void {
  const parent = parentOf(folder);
  try {
    fs.accessSync(parent, fs.constants.W_OK | fs.constants.X_OK);
  } catch (error) {
    throw new CairnError(
      "permission",
      `${shown(parent)} cannot be written to, and the new subvolume must be made there`,
      {
        hint: "convert as root, or as a user who may write to that folder",
        cause: toCairnError(error),
      },
    );
  }
  const { uid } = fs.lstatSync(folder);
  const user = process.geteuid?.() ?? 0;
  if (user === 0 || uid === user) return;
  throw new CairnError(
    "permission",
    `${shown(folder)} belongs to the user ${uid}, and only its owner and root may snapshot it`,
    {
      hint: "convert as its owner or as root",
    },
  );
}

/**
 * Throws if a process has the folder or an entry open: it would keep working in the original. Processes that cannot be
 * inspected count too, unless allowed.
 */
export function requireNoHolders(folder: Buffer, allow: readonly GuardName[] | undefined): void {
  const { holders, unknown } = findHolders(folder, { budgetMs: HOLDERS_BUDGET_MS });
  if (holders.length > 0) {
    const processes = [...new Map(holders.map((each) => [each.pid, each])).values()];
    const named = processes.map(({ pid, command, kind, path }) => {
      const what = kind === "cwd" ? "works in" : "has open";
      return `process ${pid} (${command}) ${what} ${path.length === 0 ? "it" : printablePath(path)}`;
    });
    throw refusal(folder, listedNames(named, "; "), {
      hint: "end these processes, or have them leave the folder (a shell: cd), and try again",
      details: { holders: processes.map(({ pid, command }) => ({ pid, command })) },
    });
  }
  if (unknown.length === 0 || allow?.includes("holders") === true) return;
  const why = unknown.map((each) => WHY_UNKNOWN[each]).join("; ");
  throw refusal(folder, `Cairn cannot find out if a process has files of the folder open: ${why}`, {
    hint: advice`if you know that no process uses the folder, go on with ${option({ allow: ["holders"] })}`,
    details: { guard: "holders" },
  });
}

function refusal(
  folder: Buffer,
  reason: string,
  options: { hint: Hint; details?: Record<string, unknown> },
): CairnError {
  return new CairnError("refused", `${shown(folder)} is not converted: ${reason}`, options);
}

function shown(path: Buffer): string {
  return printablePath(path);
}

function listed(paths: readonly Buffer[]): string {
  return listedNames(paths.map(shown));
}
