import { createHash } from "node:crypto";
import { accessSync, constants, existsSync, readdirSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { advice, CairnError, option, toCairnError } from "../../errors.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { decodeRegistration, encodeRegistration, type Registration } from "../../formats/records/registration.ts";
import { TEMPORARY_PREFIX, durableMkdir, durableRemove, durableWrite, readSmallFile } from "../../fs/durable.ts";
import { removeLeftovers } from "../../fs/work-directory.ts";
import { type AcquireOptions, acquireLock, type Lock, lockHolder } from "../../fs/lock.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { isGone, isSilent, silentOf } from "../../fs/silent-mounts.ts";
import { removeAll } from "../../fs/remove-all.ts";
import {
  type Mount,
  filesystemUuid,
  mountsInside,
  readMounts,
  placeOnDevice,
  whyMountsUnknown,
  ownEntries,
} from "../../fs/linux/mounts.ts";
import { attributeOf, FOLDER_NOTE, setAttributeOf } from "../../fs/linux/own-attributes.ts";
import { isMachineRoot, ownIds } from "../../fs/linux/user-namespace.ts";
import { isAtOrBelow, joinRaw, printablePath, rawBytes, type RawPath } from "../../fs/paths/safe-path.ts";
import { absolutePath, homeDirectories, knownHome, userCacheDirectory, userStateDirectory } from "../../fs/users.ts";
import type { ControlId, WorkspaceId } from "../../ids.ts";
import { isSystemDaemon, removeMarksOf, stateOfOtherDaemon } from "./daemon-marks.ts";
import { hintOfOthers, requireOwnHome, unlessOthersWrote } from "./owners.ts";
import { formatPolynomial, isUsable, randomPolynomial } from "../../repository/packs/polynomial.ts";
import { isBeside, lacksItsFile, madeAt } from "./control-directory.ts";
import { controlPaths, MOUNT_CONTROL, requireWhole, SELF_CONTAINED_CONTROL } from "./control-layout.ts";

/**
 * The user's registry: five folders of small files in the state directory, each file named by the hash of a path.
 * `selfContained` only lists workspaces; `releasing` are control directories being removed; `released` folders still
 * have points; `elsewhere`, below the home directory, are kept by another state directory.
 */
const FOLDERS = {
  registered: "workspaces",
  selfContained: "self-contained",
  releasing: "releasing",
  released: "released",
  elsewhere: "elsewhere",
} as const;

const MAX_REGISTRATION_BYTES = 1 << 20;

/**
 * The state directory below HOME, or below another home. Agents and services pass HOME on to the programs that they start, but often not
 * XDG_STATE_HOME. Null if there is no home directory.
 */
function homeState(home = knownHome()): string | null {
  return home !== null && existsSync(home) ? join(home, ".local/state/cairn") : null;
}

function folderOf(kind: keyof typeof FOLDERS, state = userStateDirectory()): string {
  return join(state, FOLDERS[kind]);
}

function fileOf(kind: keyof typeof FOLDERS, path: RawPath, state = userStateDirectory()): string {
  return join(folderOf(kind, state), `${createHash("sha256").update(rawBytes(path)).digest("hex")}.json`);
}

/** The registry of root's daemon, for other processes of root; null for all other processes. */
function daemonsRegistry(): string | null {
  const state = stateOfOtherDaemon();
  return state === null ? null : join(state, "cairn");
}

export interface NewRegistration {
  /** Real path of the folder. */
  folder: RawPath;
  control: RawPath;
  controlId: ControlId;
  workspaceId: WorkspaceId;
  workspaceName: string;
}

/** Returns the registration of a workspace. */
export function entryOf({ folder, control, controlFile, workspace }: Placed): NewRegistration {
  const [{ id: controlId }, { id: workspaceId, name: workspaceName }] = [controlFile, workspace];
  return { folder, control: control.root, controlId, workspaceId, workspaceName };
}

interface Placed {
  folder: RawPath;
  control: { root: string };
  controlFile: { id: ControlId };
  workspace: { id: WorkspaceId; name: string };
}

function registrationOf(entry: NewRegistration): Registration {
  return {
    ...recordPath(rawBytes(entry.folder)),
    control: recordPath(rawBytes(entry.control)),
    control_id: entry.controlId,
    workspace_id: entry.workspaceId,
    workspace_name: entry.workspaceName,
    registered_at: new Date().toISOString(),
  };
}

function encoded(entry: NewRegistration): Uint8Array {
  return encodeRegistration(registrationOf(entry));
}

/** Records durably which control directory keeps a folder, and notes it there. Replaces an earlier record of that path. */
export function registerWorkspace(entry: NewRegistration): void {
  noteElsewhere(entry);
  noteAtFolder(entry);
  durableMkdir(folderOf("registered"));
  for (const name of ["", ...Object.values(FOLDERS)]) removeLeftovers(join(userStateDirectory(), name));
  durableWrite(fileOf("registered", entry.folder), encoded(entry));
  durableRemove(fileOf("released", entry.folder));
}

/**
 * The note in a folder's attribute `user.cairn.control`, if `--control-dir` chose the control directory: without the
 * registry no search finds that place. A note counts for one folder, so that a copy of the folder is another one.
 */
export interface FolderNote extends Registration {
  /** The user who wrote it, outside of user namespaces. */
  uid: number;
  /** Inode, birth time or UUID of the subvolume, and UUID of the file system, with blanks between. */
  identity: string;
}

function identityOf(folder: Buffer): string {
  const { ino } = statSync(folder, { bigint: true });
  return [ino, madeAt(folder) ?? "", filesystemUuid(folder) ?? ""].join(" ");
}

/** Returns a folder's note; null if it has none, or the note came with a copy. Throws `newer_version`. */
export function noteAt(folder: Buffer): FolderNote | null {
  const bytes = attributeOf(folder, FOLDER_NOTE);
  try {
    const note = bytes === null ? null : (decodeRegistration(bytes) as FolderNote);
    return note !== null && note.identity === identityOf(folder) ? note : null;
  } catch (error) {
    if (toCairnError(error).code === "newer_version") throw error;
    return null;
  }
}

/** As {@link noteAt}, without another user's note. */
export function ownNoteAt(folder: Buffer): FolderNote | null {
  const note = noteAt(folder);
  return note?.uid === ownIds().uid ? note : null;
}

/** Notes a workspace at its folder, or removes the note of a copy. A fitting note of another workspace stays. */
export function noteAtFolder(entry: NewRegistration): void {
  const folder = Buffer.from(rawBytes(entry.folder));
  const record = registrationOf(entry);
  const control = controlOf(record);
  const isFoundAnyway =
    isBeside(control, folder) ||
    basename(dirname(control)) === MOUNT_CONTROL ||
    control.endsWith(`/cairn/control/${entry.controlId}`);
  const known = noteAt(folder);
  if (known !== null && known.workspace_id !== entry.workspaceId) return;
  if (isFoundAnyway) return removeNote(folder);
  if ((known !== null && controlOf(known) === control) || isGone(folder)) return;
  const note = { ...record, uid: ownIds().uid, identity: identityOf(folder) };
  setAttributeOf(folder, FOLDER_NOTE, encodeRegistration(note));
}

/** Removes the note of a folder, except one that names another workspace than `id`. */
export function removeNote(folder: Buffer, id?: WorkspaceId): void {
  if (attributeOf(folder, FOLDER_NOTE) === null || (id !== undefined && noteAt(folder)?.workspace_id !== id)) return;
  setAttributeOf(folder, FOLDER_NOTE, null);
}

/** Best effort: without the note, a process that has only HOME may begin a second history of the folder. */
function noteElsewhere(entry: NewRegistration): void {
  const state = homeState();
  // Root's daemon has its own marks, which all users can read.
  if (state === null || state === userStateDirectory() || isSystemDaemon()) return;
  try {
    requireOwnHome(state);
    durableMkdir(folderOf("elsewhere", state));
    removeLeftovers(folderOf("elsewhere", state));
    const isStale = ({ registration, missing }: RegistryEntry): boolean => registration === null || missing.length > 0;
    for (const { file } of listIn(folderOf("elsewhere", state), MOST_LOOKED_AT).filter(isStale)) durableRemove(file);
    durableWrite(fileOf("elsewhere", entry.folder, state), encoded(entry));
  } catch {
    // The home directory is read-only or another user's.
  }
}

/** Stale notes are removed a few at a time: each new note removes more of them than it adds. */
const MOST_LOOKED_AT = 20;

/**
 * Returns the registration of exactly this real path in another state directory of this user: the default one below
 * HOME, or one with a note there; for root also in that of the folder's owner. Null if there is none, or if it is
 * unreadable.
 */
export function registeredElsewhere(folder: RawPath): Registration | null {
  for (const state of new Set([homeState(), ownersState(folder)]))
    for (const kind of ["registered", "elsewhere"] as const)
      try {
        if (state === null || (kind === "registered" && state === userStateDirectory())) continue;
        const registration = readFrom(fileOf(kind, folder, state), folder);
        if (registration !== null) return registration;
      } catch {
        // Ignore a damaged note.
      }
  return null;
}

/** For root: the state directory below the home of the user who owns a folder. Null for others, and if there is none. */
function ownersState(folder: RawPath): string | null {
  const owner = statSync(rawBytes(folder), { throwIfNoEntry: false })?.uid ?? 0;
  return owner === 0 || !isMachineRoot() ? null : homeState(homeDirectories(owner)[0] ?? null);
}

/** Notes the control directory of a released folder, for a later `init` of the folder. */
export function noteReleased(entry: NewRegistration): void {
  durableMkdir(folderOf("released"));
  durableWrite(fileOf("released", entry.folder), encoded(entry));
}

/**
 * Returns a released folder's registration; for root also from its daemon's registry. Null if missing or unreadable.
 */
export function releasedRegistration(folder: RawPath): Registration | null {
  const states = [userStateDirectory(), daemonsRegistry()].filter((each) => each !== null);
  for (const state of states)
    try {
      const registration = readFrom(fileOf("released", folder, state), folder);
      if (registration !== null) return registration;
    } catch {
      // Ignore an unreadable note: `init` also searches the usual places for points.
    }
  return null;
}

/** Returns the state directory with the registration of this real path: that of root's daemon only for root. */
export function stateThatKeeps(folder: RawPath): string {
  const registry = existsSync(fileOf("registered", folder)) ? null : daemonsRegistry();
  return registry !== null && existsSync(fileOf("registered", folder, registry)) ? registry : userStateDirectory();
}

/** Lists the notes of released folders. */
export function listReleased(): RegistryEntry[] {
  return listIn(folderOf("released"));
}

/**
 * Notes a self-contained workspace for lists. Searches do not use the note: the folder may belong to another host or
 * get another mount point. Best effort: opening the workspace notes it again.
 */
export function noteSelfContained(entry: NewRegistration): void {
  const file = fileOf("selfContained", entry.folder);
  try {
    const known = readSmallFile(file, MAX_REGISTRATION_BYTES);
    if (known !== null && decodeRegistration(known).workspace_id === entry.workspaceId) return;
  } catch {
    // A damaged note is written anew.
  }
  try {
    requireOwnHome(userStateDirectory());
    makeFolder(folderOf("selfContained"));
    durableWrite(file, encoded(entry));
  } catch {
    // If the state directory is not writable, the workspace is not listed.
  }
}

/** Removes a folder from the registry. Returns true if it was registered or noted. The control directory stays as it is. */
export function unregister(folder: RawPath): boolean {
  const wasNoted = durableRemove(fileOf("selfContained", folder));
  const wasRegistered = durableRemove(fileOf("registered", folder));
  const state = homeState();
  if (wasRegistered && state !== null) durableRemove(fileOf("elsewhere", folder, state));
  return forgetForDaemon(folder) || wasRegistered || wasNoted;
}

/** Removes a folder from the registry of root's daemon, which is down. The daemon's next start drops the folder from its state. */
function forgetForDaemon(folder: RawPath): boolean {
  const registry = daemonsRegistry();
  if (registry === null) return false;
  removeMarksOf(Buffer.from(rawBytes(folder)));
  return durableRemove(fileOf("registered", folder, registry));
}

/** `su` and `sudo` may keep environment variables that lead to another user's state directory. */
function stateDirectoryClosed(cause: CairnError): CairnError {
  const from = absolutePath(process.env, "XDG_STATE_HOME") === null ? "HOME" : "XDG_STATE_HOME";
  return new CairnError(
    "permission",
    `${userStateDirectory()}, where Cairn stores your records, cannot be used: ${cause.message}`,
    {
      hint:
        hintOfOthers(userStateDirectory(), cause) ??
        `set ${from} in the environment, from which this path follows, to a folder of your own`,
      cause,
    },
  );
}

/** Reads the registration of this real path, for root also its daemon's; null if none. Throws `damaged`, `newer_version`. */
export function readRegistration(folder: RawPath): Registration | null {
  const own = readFrom(fileOf("registered", folder), folder);
  const registry = own === null ? daemonsRegistry() : null;
  return registry === null ? own : readFrom(fileOf("registered", folder, registry), folder);
}

function readFrom(path: string, folder: RawPath): Registration | null {
  let bytes: Buffer | null;
  try {
    bytes = readSmallFile(path, MAX_REGISTRATION_BYTES);
  } catch (error) {
    const failed = toCairnError(error);
    throw failed.code === "permission" ? stateDirectoryClosed(failed) : failed;
  }
  if (bytes === null) return null;
  let record: Registration;
  try {
    record = decodeRegistration(bytes);
  } catch (error) {
    const { code, message } = toCairnError(error);
    throw new CairnError(code, `the registration of ${printablePath(folder)} (${path}): ${message}`, {
      hint: advice`remove that file and name the control directory with ${option("controlDirectory")}`,
      cause: error,
    });
  }
  // A file that was copied to another name is the record of another folder.
  const isOf = Buffer.from(rawPath(record)).equals(rawBytes(folder));
  return isOf && !removedWorkspaces().has(keyOf(record)) ? record : null;
}

interface RegistryEntry {
  /** File in the registry. */
  readonly file: string;
  readonly registration: Registration | null;
  /** Missing parts: the folder, its control directory, both or neither. */
  readonly missing: readonly ("folder" | "control")[];
  /** The reason why the registration is null. */
  readonly problem?: CairnError;
}

/** All entries of the user's registry. Damaged files are listed, too. */
export function listRegistered(): RegistryEntry[] {
  return withoutRemoved(listIn(folderOf("registered")));
}

/** Registered folders that are missing although their save points exist; none if the registry cannot be listed. */
export function goneFolders(): Buffer[] {
  try {
    return listRegistered().flatMap(({ registration, missing }) =>
      registration !== null && missing.length === 1 && missing[0] === "folder"
        ? [Buffer.from(rawPath(registration))]
        : [],
    );
  } catch {
    return [];
  }
}

/** The registrations of root's daemon, for root; an empty list for others. */
export function listDaemons(): RegistryEntry[] {
  const state = stateOfOtherDaemon();
  return state === null ? [] : listRegisteredIn(state);
}

/** The registrations of the daemon of all users with this state directory. */
export function listRegisteredIn(state: string): RegistryEntry[] {
  return listIn(folderOf("registered", join(state, "cairn")));
}

/** The self-contained workspaces that this user has opened. */
export function listSelfContained(): RegistryEntry[] {
  return withoutRemoved(listIn(folderOf("selfContained")));
}

function withoutRemoved(entries: readonly RegistryEntry[]): RegistryEntry[] {
  const removed = removedWorkspaces();
  return entries.filter(({ registration }) => registration === null || !removed.has(keyOf(registration)));
}

function listIn(directory: string, most = Infinity): RegistryEntry[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return [];
    const failed = toCairnError(error, `list ${directory}`);
    throw failed.code === "permission" ? stateDirectoryClosed(failed) : failed;
  }
  const entries: RegistryEntry[] = [];
  const mounts = readMounts();
  for (const name of names.sort().slice(0, most)) {
    if (!/^[0-9a-f]{64}\.json$/.test(name)) continue;
    const file = join(directory, name);
    try {
      const bytes = readSmallFile(file, MAX_REGISTRATION_BYTES);
      if (bytes === null) continue;
      const registration = decodeRegistration(bytes);
      const missing: ("folder" | "control")[] = [];
      if (isGone(Buffer.from(rawPath(registration)), mounts)) missing.push("folder");
      if (isGone(join(controlOf(registration), "cairn.json"), mounts)) missing.push("control");
      entries.push({ file, registration, missing });
    } catch (error) {
      entries.push({ file, registration: null, missing: [], problem: toCairnError(error, file) });
    }
  }
  return entries;
}

/** The control directory that a registration names. */
export function controlOf(registration: Registration): string {
  return Buffer.from(rawPath(registration.control)).toString("utf8");
}

/**
 * Notes a control directory that will be removed under its temporary name `control`, and returns the note, to be
 * removed with the directory. The caller holds the registry's lock meanwhile: a note that a later holder finds is a
 * dead process's.
 */
export function noteRelease(entry: NewRegistration): string {
  const file = fileOf("releasing", entry.control);
  durableMkdir(folderOf("releasing"));
  durableWrite(file, encoded(entry));
  return file;
}

/** The note of a release that is in progress or was killed. */
interface ReleaseNote {
  readonly folder: Buffer;
  /** Temporary path of the control directory that is being removed. */
  readonly place: string;
  readonly file: string;
  readonly key: string;
}

/** Includes the path: a copy of a self-contained workspace has the ids of its original. */
function keyOf(registration: Registration): string {
  return `${registration.workspace_id} ${Buffer.from(rawPath(registration)).toString("latin1")}`;
}

function releaseNotes(): ReleaseNote[] {
  return listIn(folderOf("releasing")).flatMap(({ file, registration }) => {
    if (registration === null) return [];
    const place = controlOf(registration);
    // Remove only directories with a temporary name, whatever a note says.
    if (!basename(place).startsWith(TEMPORARY_PREFIX)) return [];
    return [{ file, place, folder: Buffer.from(rawPath(registration)), key: keyOf(registration) }];
  });
}

/** Keys of workspaces whose control directory has its temporary name already: they are released. */
function removedWorkspaces(): Set<string> {
  return new Set(releaseNotes().flatMap(({ place, key }) => (existsSync(place) ? [key] : [])));
}

/** The leftovers of killed releases; empty while a process that may be removing one is alive. */
export function leftReleases(): ReleaseNote[] {
  try {
    const left = releaseNotes().filter(({ place }) => existsSync(place));
    return left.length === 0 || lockHolder(lockPath()) !== null ? [] : left;
  } catch {
    // A state directory that is closed to this process is another user's.
    return [];
  }
}

/** Finishes all killed releases. Returns those with leftovers that are gone now. Releases that cannot be finished wait. */
export function finishReleases(): ReleaseNote[] {
  return releaseNotes().filter((note) => {
    try {
      return finishRelease(note);
    } catch {
      return false;
    }
  });
}

/**
 * Finishes a killed release: unregisters the folder and removes the control directory. Returns true if the directory
 * existed under its temporary name. The caller holds the registry's lock. Throws if a part cannot be removed.
 */
export function finishRelease({ file, place, key }: ReleaseNote): boolean {
  // The file system may be mounted again later.
  if (!existsSync(dirname(place))) throw new CairnError("not_found", `${dirname(place)} no longer exists`);
  const isLeft = existsSync(place);
  if (isLeft) {
    // While the file system was unmounted, the folder may have become another workspace, which stays registered.
    for (const entry of [...listIn(folderOf("registered")), ...listIn(folderOf("selfContained"))])
      if (entry.registration !== null && keyOf(entry.registration) === key) durableRemove(entry.file);
  }
  removeAll(place);
  durableRemove(file);
  return isLeft;
}

function lockPath(): string {
  return join(userStateDirectory(), "adopt.lock");
}

/** Returns the options with which a call takes a lock. */
export function lockingOf(
  purpose: string,
  { lockTimeoutMs, signal }: { lockTimeoutMs?: number | undefined; signal?: AbortSignal | undefined },
): AcquireOptions {
  return { purpose, timeoutMs: lockTimeoutMs, signal };
}

/** Takes the registry's lock, under which folders become workspaces, so that no folder gets two control directories. */
export async function lockRegistry(options: AcquireOptions = {}): Promise<Lock> {
  requireWhole(userStateDirectory());
  requireOwnHome(userStateDirectory());
  try {
    durableMkdir(userStateDirectory());
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "permission") throw error;
    // In containers the home directory is often read-only.
    throw new CairnError(error.code, error.message, {
      hint:
        hintOfOthers(userStateDirectory(), error) ??
        "set XDG_STATE_HOME to a folder that this user may write to; the save points lie there",
      cause: error,
    });
  }
  try {
    return await acquireLock(lockPath(), { purpose: "init", ...options });
  } catch (error) {
    throw unlessOthersWrote([userStateDirectory()], error);
  }
}

/** The real path; the path itself if it does not exist. */
export function realOrItself(path: RawPath, mounts: readonly Mount[] = readMounts()): Buffer {
  try {
    if (!isSilent(path, mounts)) return realpathSync.native(Buffer.from(rawBytes(path)), "buffer");
  } catch {
    // The folder is missing, or cannot be looked at.
  }
  return Buffer.from(rawBytes(path));
}

/** True for a directory with `cairn.json` and workspaces, or with all other parts of a control directory if `cairn.json` was lost. */
export function isControlDirectory(path: string): boolean {
  const control = controlPaths(path);
  return existsSync(control.workspaces) && (existsSync(control.file) || lacksItsFile(control));
}

/**
 * Known control directories below a folder: the user's, registered ones, and those directly in the folder. No point has
 * them, even if a guard was overridden.
 */
export function controlDirectoriesInside(folder: Buffer): string[] {
  const known = new Set([...controlsAt(folder), ...knownControls()]);
  const mounts = readMounts();
  const isInside = (control: string): boolean => isAtOrBelow(realOrItself(control, mounts), folder);
  return [...known].filter((control) => existsSync(control) && isInside(control)).sort();
}

/** Lists control directories and this user's cache below a folder (its real path). No point has them. */
export function ownInside(folder: Buffer): Buffer[] {
  const cache = ownCache().filter((path) => isAtOrBelow(path, folder) && !path.equals(folder));
  return [...controlDirectoriesInside(folder).map((control) => realOrItself(control)), ...cache];
}

function ownCache(): Buffer[] {
  const cache = userCacheDirectory();
  return existsSync(cache) ? [realOrItself(cache)] : [];
}

/** The user's state directory, and registered control directories. */
function knownControls(): string[] {
  const registered = listRegistered().flatMap(({ registration }) =>
    registration === null ? [] : [controlOf(registration)],
  );
  const state = userStateDirectory();
  return existsSync(state) ? [...registered, state] : registered;
}

/**
 * Control directories and the cache on mounted file systems: those at their roots, and those that are known by another
 * path of the same file system, as with bind mounts.
 */
function controlDirectoriesOn(mounted: readonly Mount[]): Buffer[] {
  const all = readMounts();
  const known = [...knownControls().map((control) => realOrItself(control, all)), ...ownCache()].flatMap((real) => {
    return placeOnDevice(real, all) ?? [];
  });
  return mounted.flatMap(({ device, root, mountPoint }) => {
    const shared = joinRaw(mountPoint, MOUNT_CONTROL);
    const directly = [
      ...controlsAt(mountPoint).map((path) => Buffer.from(path)),
      ...(existsSync(shared) ? [shared] : []),
    ];
    const seen = known.filter((each) => each.device === device && isAtOrBelow(each.inside, root));
    return [
      ...directly,
      ...seen.map(({ inside }) => joinRaw(mountPoint, inside.subarray(root.length === 1 ? 1 : root.length + 1))),
    ];
  });
}

/**
 * Lists paths (latin1) that are never part of a folder's state: Cairn's own directories, and entries that a file system
 * keeps at its root. `crossMounts`: also of file systems mounted inside.
 */
export function neverPart(root: Buffer, { crossMounts }: { crossMounts?: boolean | undefined }): string[] {
  const below = (path: Buffer): string => path.toString("latin1", root.length + 1);
  const controls = ownInside(root).map(below);
  const isEntered = crossMounts === true && existsSync(root);
  const inside = isEntered ? mountsInside(root) : [];
  const silent = silentOf(inside);
  const mounts = inside.filter((mount) => !silent.includes(mount) && isOpenDirectory(mount.mountPoint));
  if (mounts.length === 0) return [...controls, ...ownEntries(root)];
  const own = mounts.flatMap(({ mountPoint }) => ownEntries(mountPoint).map((name) => `${below(mountPoint)}/${name}`));
  return [...new Set([...controls, ...controlDirectoriesOn(mounts).map(below)]), ...ownEntries(root), ...own];
}

/** Throws `unsupported` if the mounts are unknown: Cairn's own directories in each entered mount must be found. */
export function requireMountsKnown(root: Buffer): void {
  const unknown = whyMountsUnknown();
  if (unknown === null) return;
  const { reason, hint } = unknown;
  throw new CairnError("unsupported", `mounts inside ${printablePath(root)} cannot be entered: ${reason}`, { hint });
}

/** False for a file, and for a directory that this user may not enter. */
function isOpenDirectory(place: Buffer): boolean {
  try {
    accessSync(place, constants.X_OK);
    return statSync(place).isDirectory();
  } catch {
    return false;
  }
}

/** Control directories directly in a folder, registered or not. */
export function controlsAt(folder: Buffer): string[] {
  const text = folder.toString("utf8");
  const controls = isControlDirectory(`${text}/${SELF_CONTAINED_CONTROL}`) ? [`${text}/${SELF_CONTAINED_CONTROL}`] : [];
  const shared = `${text}/${MOUNT_CONTROL}`;
  try {
    for (const name of readdirSync(shared))
      if (isControlDirectory(`${shared}/${name}`)) controls.push(`${shared}/${name}`);
  } catch {
    // The folder has none.
  }
  return controls;
}

/** Name of the file in the user's state directory. */
export const OWN_POLYNOMIAL = "chunker-polynomial";

/**
 * The chunker polynomial for this user's new stores and repositories, in hex. Because all have the same one, equal
 * content of several workspaces is stored once in a repository. Made at the first call.
 */
export function ownPolynomial(): string {
  return knownPolynomial() ?? notePolynomial(formatPolynomial(randomPolynomial()));
}

/** Takes over a repository's polynomial if this user has none: a new machine cuts files like its restored backups. */
export function learnPolynomial(polynomial: string): void {
  // The usual case. Skips the slower check of the polynomial.
  if (writtenPolynomial() === polynomial) return;
  if (knownPolynomial() === null && isUsable(polynomial)) notePolynomial(polynomial);
}

function polynomialFile(): string {
  return join(userStateDirectory(), OWN_POLYNOMIAL);
}

/** Reads the file; empty if the file is unreadable. */
function writtenPolynomial(): string {
  try {
    return readSmallFile(polynomialFile(), 100)?.toString("latin1").trim() ?? "";
  } catch {
    return "";
  }
}

/** Null if the file is missing or has no usable polynomial. */
function knownPolynomial(): string | null {
  const text = writtenPolynomial();
  return isUsable(text) ? text : null;
}

/** Best effort: without the file the next store cuts files differently. A racing process's polynomial counts. */
function notePolynomial(polynomial: string): string {
  try {
    requireOwnHome(userStateDirectory());
    durableMkdir(userStateDirectory());
    // Replace a file without a usable polynomial.
    const exclusive = !existsSync(polynomialFile());
    durableWrite(polynomialFile(), Buffer.from(`${polynomial}\n`), { mode: 0o600, exclusive });
  } catch {
    // Another process was first, or the directory is not writable.
  }
  return knownPolynomial() ?? polynomial;
}
