import { accessSync, constants, existsSync, readdirSync, realpathSync, statSync } from "node:fs";
import { basename } from "node:path";
import type { GuardName } from "../../contract/words.ts";
import { advice, CairnError, call, type Hint, isMountDead, line, option, toCairnError, word } from "../../errors.ts";
import { rawPath } from "../../formats/records/record.ts";
import { formatBytes } from "../../formats/sizes.ts";
import { parentOf } from "../../fs/linux/exchange-folders.ts";
import { mountOf, placeOnDevice, readMounts } from "../../fs/linux/mounts.ts";
import { isMachineRoot } from "../../fs/linux/user-namespace.ts";
import {
  isAtOrBelow,
  printablePath,
  rawBytes,
  type RawPath,
  releaseLine,
  shellPath,
} from "../../fs/paths/safe-path.ts";
import { isGone, requireAnswer } from "../../fs/silent-mounts.ts";
import { homeDirectories, knownHome, userHere, userStateDirectory } from "../../fs/users.ts";
import { controlPaths, MOUNT_CONTROL, sequenceOfName, type WorkspacePaths, workspacePaths } from "./control-layout.ts";
import { isReleased, readControl } from "./control-directory.ts";
import { isAroundDaemons, isSystemDaemon } from "./daemon-marks.ts";
import { realPathOf, workspaceAbove, workspaceOnceOf } from "./find-workspace.ts";
import {
  controlDirectoriesInside,
  controlOf,
  isControlDirectory,
  listDaemons,
  listRegistered,
  ownInside,
  realOrItself,
  registeredElsewhere,
} from "./registry.ts";
import { existingAncestor, requireRoom } from "./room.ts";

/** Checks a folder before the first byte is written for it. */

export interface LocationOptions {
  allow?: readonly GuardName[] | undefined;
  /** The control directory that the folder has or gets; other control directories inside the folder are refused. */
  control?: string | undefined;
}

const ANOTHER = "choose another folder";

function refusal(folder: Uint8Array, reason: string, guard?: GuardName, instead: Hint = ANOTHER): CairnError {
  const hint = guard === undefined ? instead : advice`${instead}, or override with ${option({ allow: [guard] })}`;
  return new CairnError("refused", `refused to make a workspace of ${printablePath(folder)}: ${reason}`, {
    hint,
    details: guard === undefined ? {} : { guard },
  });
}

const NOT_UTF8 =
  "rename the folder, or name a folder above it: Cairn cannot be given a path that is not UTF-8, but the names inside a workspace may be any bytes";
const QUOTED = "write ~ without quotes: the shell replaces only an unquoted ~ by your home directory";

/** The folder's real path. Throws `not_found`, `permission`, and `refused` if the path is no directory. */
export function realFolder(path: RawPath): Buffer {
  requireAnswer(path);
  try {
    const real = realpathSync.native(rawBytes(path), "buffer");
    if (!statSync(real).isDirectory()) throw refusal(real, "it is not a directory");
    accessSync(real, constants.R_OK | constants.X_OK);
    return real;
  } catch (error) {
    const shown = printablePath(rawBytes(path));
    if ((error as NodeJS.ErrnoException).code === "ENOENT" || isMountDead(error))
      throw new CairnError("not_found", `${shown} is not there`, {
        cause: error,
        // Node passes arguments and the current folder as text, which loses bytes that are not UTF-8.
        ...(shown.includes("\uFFFD") ? { hint: NOT_UTF8 } : /\/~(?:\/|$)/.test(shown) ? { hint: QUOTED } : {}),
      });
    throw toCairnError(error, `look at ${shown}`);
  }
}

function refuseHomes(folder: Buffer): void {
  for (const home of new Set([knownHome() ?? "", ...homeDirectories()])) {
    if (home === "/" || home === "") continue;
    const real = realOrItself(home);
    if (real.equals(folder)) throw refusal(folder, "it is a home directory", "home");
    if (isAtOrBelow(real, folder) && !isGone(real))
      throw refusal(folder, `the home directory ${home} lies in it`, "home");
  }
}

/** File systems that show kernel data: each read differs, and a write changes settings of the machine. */
const PSEUDO = new Set(
  "proc sysfs cgroup cgroup2 devtmpfs devpts debugfs tracefs securityfs configfs bpf pstore mqueue fusectl binfmt_misc efivarfs autofs rpc_pipefs hugetlbfs selinuxfs nsfs".split(
    " ",
  ),
);

function refusePseudo(folder: Buffer): void {
  const type = mountOf(existingAncestor(folder))?.type;
  if (type !== undefined && PSEUDO.has(type))
    throw refusal(folder, `it is a view of the kernel (${type}), not files on a disk`);
}

/** Throws `refused` for a folder at or inside any user's control directory. */
function refuseInsideControl(folder: Buffer): void {
  const parts = folder.toString("utf8").split("/");
  for (let count = parts.length; count > 1; count--) {
    const above = parts.slice(0, count).join("/");
    if (isControlDirectory(above)) throw refusal(folder, `it lies in the control directory ${above}`);
    if (basename(above) === MOUNT_CONTROL) throw refusal(folder, `it lies in ${above}`);
  }
  const state = realOrItself(userStateDirectory());
  if (isAtOrBelow(folder, state))
    throw refusal(folder, `it lies in ${state.toString("utf8")}, where Cairn stores its records`);
}

const RELEASE = (folder: RawPath): Hint => advice`release that workspace first (${releaseLine(folder)})`;

/** The advice for a workspace whose folder is missing: deleted, moved, or on a disk that is not mounted. */
const WAYS_WITHOUT = (folder: RawPath): Hint =>
  advice`if you moved it: ${line(`relocate ${shellPath(folder)} NEW`, "relocate", printablePath(folder), word("NEW"))}; if you no longer need it: ${releaseLine(folder)}`;

/** Tells whether a workspace has a point; a workspace without one never blocks another one. */
function hasPoints({ points }: WorkspacePaths): boolean {
  return existsSync(points) && readdirSync(points).some((name) => sequenceOfName(name) > 0);
}

/** A folder that another state directory keeps. */
interface KeptElsewhere {
  readonly folder: Buffer;
  readonly control: string;
  /** "yours", or for root the name of the user who keeps the folder. */
  readonly whose: string;
}

/**
 * Finds the workspace at or above a folder (its real path) that is registered in another state directory of this user,
 * for example by a process with another XDG_STATE_HOME, and for root also by the folder's owner. Null if there is none.
 * The control directory must confirm the note, which may be old.
 */
export function keptElsewhere(folder: Buffer): KeptElsewhere | null {
  for (let at = folder; at.length > 1; at = parentOf(at)) {
    const registration = registeredElsewhere(at);
    if (registration === null) continue;
    const control = controlOf(registration);
    // `init` itself continues an unregistered workspace in this state directory.
    if (isAtOrBelow(control, userStateDirectory())) continue;
    try {
      if (readControl(controlPaths(control))?.id !== registration.control_id) continue;
      const workspace = workspaceOnceOf(controlPaths(control), at);
      if (workspace !== null && !isReleased(workspace)) return { folder: at, control, whose: whoseIs(control) };
    } catch {
      // An unreadable control directory cannot confirm the note.
    }
  }
  return null;
}

function whoseIs(control: string): string {
  const { uid } = statSync(control);
  return uid === process.geteuid?.() ? "yours" : userHere(uid) || `user ${uid}`;
}

/** The advice for a workspace of {@link keptElsewhere}. */
export function useElsewhere({ folder, control, whose }: KeptElsewhere): Hint {
  if (whose !== "yours") return `run the command as ${whose}, for example by sudo -u ${whose}`;
  if (isSystemDaemon())
    return advice`root's daemon serves folders that were first saved while it ran; to begin a new history with it, release the folder first (${releaseLine(folder)}): the points so far stay in ${control}`;
  return advice`name its control directory (${option({ controlDirectory: control })}), or set XDG_STATE_HOME as for its first save`;
}

/** Throws `refused` for a folder inside or around another workspace, or around a control directory other than its own. */
function refuseNested(folder: Buffer, { allow, control: own }: LocationOptions): void {
  const elsewhere = keptElsewhere(folder);
  if (elsewhere !== null && elsewhere.control !== own) {
    const is = elsewhere.folder.equals(folder) ? "it is" : `it lies in ${printablePath(elsewhere.folder)},`;
    const why = `${is} a workspace of ${elsewhere.whose} with its save points in ${elsewhere.control}, which is not in this state directory`;
    throw refusal(folder, why, "nested", useElsewhere(elsewhere));
  }
  const above = workspaceAbove(folder);
  if (above !== null && hasPoints(above.paths))
    throw refusal(folder, `it lies in the workspace ${printablePath(above.folder)}`, "nested", RELEASE(above.folder));
  const mounts = readMounts();
  const here = placeOnDevice(folder, mounts);
  for (const { registration, missing } of [...listRegistered(), ...listDaemons()]) {
    if (registration === null || missing.includes("control")) continue;
    const other = Buffer.from(rawPath(registration));
    // The path of a folder that was moved may be a link now.
    const place = realOrItself(other, mounts);
    const there = placeOnDevice(place, mounts);
    // By bind mounts a folder has several paths, but one place on its device.
    const isOnDevice = here !== null && there !== null && here.device === there.device;
    const isInside = isOnDevice && isAtOrBelow(here.inside, there.inside);
    if (
      place.equals(folder) ||
      !(isInside || isAtOrBelow(other, folder) || (isOnDevice && isAtOrBelow(there.inside, here.inside)))
    )
      continue;
    if (!hasPoints(workspacePaths(controlPaths(controlOf(registration)), registration.workspace_name))) continue;
    const [name, isAway] = [printablePath(other), missing.length > 0];
    const how = isInside
      ? `it is a part of the workspace ${name}`
      : `the workspace ${name}${isAway ? ", whose folder is missing now," : ""} lies in it`;
    throw refusal(folder, how, "nested", isAway ? WAYS_WITHOUT(other) : RELEASE(other));
  }
  // Root has read the daemon's records in the loop above.
  if (!isMachineRoot() && isAroundDaemons(folder))
    throw refusal(
      folder,
      "a workspace of root's daemon lies in it",
      "nested",
      "have root release that workspace first",
    );
  const state = realOrItself(userStateDirectory());
  for (const control of controlDirectoriesInside(folder)) {
    // Allowing a home directory allows its state directory, too.
    if (allow?.includes("home") === true && isAtOrBelow(realOrItself(control), state)) continue;
    if (control !== own) throw refusal(folder, `the control directory ${control} lies in it`, "nested");
  }
}

/**
 * Throws `refused` for a folder (its real path) that must not be kept, `/`, `/.cairn` and control directories, and,
 * unless allowed by name, for homes, `.git`, and folders in or around a workspace or control directory.
 */
export function checkLocation(folder: Buffer, options: LocationOptions = {}): void {
  const allowed = (name: GuardName): boolean => options.allow?.includes(name) === true;
  if (folder.length === 1)
    throw refusal(
      folder,
      "it is the root of the whole system",
      undefined,
      "name folders in it, one by one: /etc, /srv",
    );
  if (isAtOrBelow(folder, "/.cairn")) throw refusal(folder, "Cairn uses the path /.cairn for a point's own records");
  refusePseudo(folder);
  refuseInsideControl(folder);
  if (!allowed("home")) refuseHomes(folder);
  if (!allowed("git") && folder.toString("latin1").split("/").includes(".git"))
    throw refusal(folder, "it lies inside a .git directory", "git");
  if (!allowed("nested")) refuseNested(folder, options);
}

/** Throws `refused` if saves of a workspace would read a folder, which may not exist yet. */
export function requireOutsideWorkspaces(folder: string, hint: Hint): void {
  const inside = Buffer.concat([realPathOf(folder), Buffer.from("/.")]);
  const around = workspaceAbove(inside)?.folder;
  if (around === undefined || ownInside(around).some((own) => isAtOrBelow(inside, own))) return;
  throw new CairnError("refused", `${folder} lies in the workspace ${printablePath(around)}`, { hint });
}

/** Throws `no_space` if a control directory, which may not exist yet, lacks room for `estimateBytes`, unless allowed. */
export function checkSpace(
  controlRoot: string,
  estimateBytes: number,
  options: Pick<LocationOptions, "allow"> = {},
): void {
  if (options.allow?.includes("space") === true) return;
  requireRoom(controlRoot, estimateBytes, {
    hint: advice`free some space, use ${option("controlDirectory")} on a larger file system, or go on with ${option({ allow: ["space"] })}`,
    guard: "space",
  });
}

export interface QuotaUse {
  quota: number;
  /** Bytes in the store now. */
  usedBytes: number;
  /** Most bytes that the save may add; null for a save that was stopped at the quota. */
  addedBytes: number | null;
  /** Points that a cleanup could choose from. */
  points: number;
  /** The policy has rules, by which the save has removed points already. */
  hasRules: boolean;
}

/** Makes the error of a save that would exceed the quota, with advice. */
export function quotaReached(controlRoot: string, use: QuotaUse): CairnError {
  const { quota, usedBytes, addedBytes, points, hasRules } = use;
  const needed = addedBytes === null ? null : usedBytes + addedBytes;
  // A tenth more, so that the next save fits, too.
  const size = needed === null ? "SIZE" : `${Math.ceil((needed * 1.1) / 2 ** 20)}MiB`;
  // A rule that removes some of the points now.
  const keepLast = Math.min(10, Math.ceil(points / 2));
  const raised = call(`cleanup policy --quota ${size}`, "setPolicy", { quotaBytes: word("quotaBytes") });
  const added = addedBytes === 0 || addedBytes === null ? "" : ` and about ${formatBytes(addedBytes)} would be added`;
  const holds = `the store holds ${formatBytes(usedBytes)}${added}`;
  const why =
    needed === null
      ? `the save was stopped when it reached the quota: ${holds}`
      : `${formatBytes(needed)} are needed: ${holds}`;
  return new CairnError(
    "no_space",
    `the quota of ${controlRoot} is ${formatBytes(quota)}; ${why}; nothing was stored`,
    {
      hint:
        points > 1 && hasRules
          ? advice`the rules of the policy keep the other points: remove some of them (${call("cleanup drop POINT", "runCleanup", { only: [word("POINT")] })}; ${call("history")} lists them), or raise the quota with ${raised}`
          : points > 1
            ? advice`remove points, for example with ${call(`cleanup --keep-last ${keepLast}`, "previewCleanup", { retention: { keepLast } })} (${call(`cleanup policy --keep-last ${keepLast}`, "setPolicy", { retention: { keepLast } })}: saves do that when they meet the quota), or raise it with ${raised}`
            : advice`raise it with ${raised}, or leave some of the folder out: \`.cairnignore\``,
      details: {
        quota_bytes: quota,
        used_bytes: usedBytes,
        ...(needed === null ? {} : { added_bytes: addedBytes, needed_bytes: needed }),
      },
    },
  );
}
