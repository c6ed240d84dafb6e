import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { findObstacles } from "../../clones/walk-entries.ts";
import type { GuardName } from "../../contract/words.ts";
import { advice, CairnError, type Hint, hintOfErrno, option, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { commitFileSystem, isSubvolume, subvolumeUuid } from "../../fs/linux/btrfs.ts";
import { parentOf } from "../../fs/linux/exchange-folders.ts";
import { joinRaw, listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { type ConversionWork, NOT_MADE } from "../../formats/records/unfinished.ts";
import { journaled } from "../open/unfinished-work.ts";
import { readControl, recordFolder, writeControl } from "../place/control-directory.ts";
import type { Workspace } from "../open/workspace.ts";
import { ENGINES, probeNewSubvolume } from "../../clones/probe.ts";
import { STAGING_NAME } from "../../archive/scan/task.ts";
import { boundSockets, mountedElsewhere, swapFiles } from "../../fs/linux/holders.ts";
import { filesystemKind, isMountPoint, mountsInside, readMounts } from "../../fs/linux/mounts.ts";
import { ORIGINAL_PREFIX, originalStays } from "./originals.ts";
import { checkSpace } from "../place/guards.ts";
import { controlDirectoriesInside } from "../place/registry.ts";
import {
  changedSince,
  type Copied,
  type CopyTimes,
  removeUnlessWritten,
  replaceByCopy,
  type ReplaceCall,
  requireNoHolders,
} from "./replace-folder.ts";
import { swapFolder } from "../restore/swap-folder.ts";

/** The form that a folder is converted to: a subvolume, which can have snapshots, or a plain directory. */
export type ConvertTo = "subvolume" | "plain";

const timesOf = ({ since, made }: ConversionWork): CopyTimes => ({ since: BigInt(since), made: BigInt(made) });

const asideOf = ({ root }: Workspace, { name }: Pick<ConversionWork, "name">): Buffer => joinRaw(parentOf(root), name);

/** Returns the engine for a folder's form. Existing points keep the engine that made them. */
const engineOf = (root: Buffer): string => (isSubvolume(root) ? "btrfs-snapshot" : "reflink-copy");

/** Identifies a folder: the UUID of a subvolume, or a plain directory's inode with as many digits. */
function identityAt(place: Buffer): string {
  if (isSubvolume(place)) return subvolumeUuid(place);
  return fs.lstatSync(place, { bigint: true }).ino.toString(16).padStart(NOT_MADE.length, "0");
}

/**
 * Makes a plain directory on btrfs a subvolume in place, or a subvolume a plain directory: replaces it by a clone, and
 * records its engine and new identity. Returns the path of the original, absolute, raw bytes. The caller holds the
 * workspace's lock. Throws errors of the checks, and `conflict` if a program writes to the folder meanwhile.
 */
export async function convertFolder(
  workspace: Workspace,
  input: ReplaceCall,
  to: ConvertTo,
): Promise<Copied & { original: Buffer }> {
  const { root, found } = workspace;
  const record = workspace.unfinished("conversion");
  await requireConvertible(root, { place: found.control.root, allow: input.allow, signal: input.signal, to });
  const name = `${ORIGINAL_PREFIX}${randomBytes(8).toString("hex")}`;
  const aside = asideOf(workspace, { name });
  let work: ConversionWork = { name, uuid: NOT_MADE, since: "0", made: "0" };
  const note = (more: Partial<ConversionWork>): void => record.begin((work = { ...work, ...more }));
  note({});
  failpoint("convert.intent");
  let copied: Copied;
  try {
    copied = await replaceByCopy(
      { path: root, source: root, beside: aside, copy: aside, form: to, name: "convert" },
      {
        begun: (since) => note({ uuid: identityAt(aside), since: String(since) }),
        known: (made) => note({ made: String(made) }),
        requireMayCommit: () => workspace.requireLock(),
        // Without the lock the next command takes it back.
        takeBack: async () => (workspace.isStillLocked ? takeBack(workspace, work) : null),
      },
      input,
    );
  } catch (error) {
    throw asFailure(root, error);
  }
  await recordConverted(workspace);
  return { ...copied, original: aside };
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
 * Removes the copy beside the folder, and the intent. Returns the copy's path if it was written to, or is another
 * folder: then it stays.
 */
async function takeBack(workspace: Workspace, work: ConversionWork): Promise<Buffer | null> {
  const aside = asideOf(workspace, work);
  const isOurs =
    !isThere(aside) || (work.uuid === NOT_MADE ? isEmptyOrSubvolume(aside) : identityAt(aside) === work.uuid);
  const kept = isOurs ? await removeUnlessWritten(aside, BigInt(work.made)) : aside;
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
    return isExchanged(workspace, work) && (!isThere(aside) || (await changedSince(aside, timesOf(work))) === null);
  },
  async finish(workspace, work) {
    await recordConverted(workspace);
    const aside = asideOf(workspace, work);
    const detail = "the folder's conversion was interrupted and has been finished";
    return { operation: "convert", detail: isThere(aside) ? `${detail}; ${originalStays(aside)}` : detail };
  },
  async takeBack(workspace, work) {
    if (isExchanged(workspace, work)) {
      await swapFolder(workspace.root, asideOf(workspace, work), () => null);
      failpoint("convert.exchanged-back");
    }
    const kept = await takeBack(workspace, work);
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

/** Options of the checks before a conversion in place or a move. Each refusal names a remedy. */
interface ConvertChecks {
  /** a folder on the path to the present or later points */
  place: string;
  allow?: readonly GuardName[] | undefined;
  signal?: AbortSignal | undefined;
  /** default `subvolume` */
  to?: ConvertTo;
}

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

function refusal(folder: Buffer, reason: string, options: { hint: Hint }): CairnError {
  return new CairnError("refused", `${shown(folder)} is not converted: ${reason}`, options);
}

function shown(path: Buffer): string {
  return printablePath(path);
}

function listed(paths: readonly Buffer[]): string {
  return listedNames(paths.map(shown));
}
