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
import { removeAll } from "../../fs/remove-all.ts";
import {
  type Mount,
  mountsInside,
  readMounts,
  resolveMount,
  whyMountsUnknown,
  ownEntries,
} from "../../fs/linux/mounts.ts";
import { isAtOrBelow, joinRaw, printablePath, rawBytes, type RawPath } from "../../fs/paths/safe-path.ts";
import { absolutePath, knownHome, userCacheDirectory, userStateDirectory } from "../../fs/users.ts";
import type { ControlId, WorkspaceId } from "../../ids.ts";
import { removeMarksOf, stateOfOtherDaemon, systemStateDirectory } from "./daemon-marks.ts";
import { hintOfOthers, unlessOthersWrote } from "./owners.ts";
import { formatPolynomial, isUsable, randomPolynomial } from "../../repository/packs/polynomial.ts";
import { lacksItsFile } from "./control-directory.ts";
import { controlPaths, MOUNT_CONTROL, requireWhole, SELF_CONTAINED_CONTROL } from "./control-layout.ts";

/**
 * The user's registry. In its state directory lie five folders of small files of one form, each named by the hash of a path: folders
 * that are kept, self-contained ones that were opened (only to list them), control directories that are being removed, folders that
 * were released and have points, and, below the home directory, folders that another state directory of this user keeps.
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
 * The state directory that the home directory alone names. Agents and services pass HOME on to the programs that they start, but
 * often not XDG_STATE_HOME. Null if there is no such home.
 */
function homeState(): string | null {
  const home = knownHome();
  return home !== null && existsSync(home) ? join(home, ".local/state/cairn") : null;
}

function folderOf(kind: keyof typeof FOLDERS, state = userStateDirectory()): string {
  return join(state, FOLDERS[kind]);
}

function fileOf(kind: keyof typeof FOLDERS, path: RawPath, state = userStateDirectory()): string {
  return join(folderOf(kind, state), `${createHash("sha256").update(rawBytes(path)).digest("hex")}.json`);
}

/** The registry of root's daemon, for a process of root's that is not that daemon; null for others. */
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

function encoded(entry: NewRegistration): Uint8Array {
  return encodeRegistration({
    ...recordPath(rawBytes(entry.folder)),
    control: recordPath(rawBytes(entry.control)),
    control_id: entry.controlId,
    workspace_id: entry.workspaceId,
    workspace_name: entry.workspaceName,
    registered_at: new Date().toISOString(),
  });
}

/** Records durably which control directory keeps a folder; replaces what was recorded for that path. */
export function registerWorkspace(entry: NewRegistration): void {
  noteElsewhere(entry);
  durableMkdir(folderOf("registered"));
  removeLeftovers(folderOf("registered"));
  durableWrite(fileOf("registered", entry.folder), encoded(entry));
  durableRemove(fileOf("released", entry.folder));
}

/** Best effort: without the note, a process that knows HOME alone may begin a second history of the folder. */
function noteElsewhere(entry: NewRegistration): void {
  const state = homeState();
  // Root's daemon has marks of its own, which other users read.
  const isDaemon = process.env["XDG_STATE_HOME"] === systemStateDirectory();
  if (state === null || state === userStateDirectory() || isDaemon) return;
  try {
    durableMkdir(folderOf("elsewhere", state));
    const isGone = ({ registration, missing }: RegistryEntry): boolean => registration === null || missing.length > 0;
    for (const { file } of listIn(folderOf("elsewhere", state), MOST_LOOKED_AT).filter(isGone)) durableRemove(file);
    durableWrite(fileOf("elsewhere", entry.folder, state), encoded(entry));
  } catch {
    // The home is read-only or another user's.
  }
}

/** Notes of folders that are gone go a few at a time: each new note removes more of them than it adds. */
const MOST_LOOKED_AT = 20;

/**
 * Reads what this user's other state directory, as far as HOME leads to it or to a note of it, has registered for exactly this real
 * path; null for nothing, and for what cannot be read.
 */
export function registeredElsewhere(folder: RawPath): Registration | null {
  const state = homeState();
  if (state === null) return null;
  const isOther = state !== userStateDirectory();
  for (const kind of isOther ? (["registered", "elsewhere"] as const) : (["elsewhere"] as const))
    try {
      const registration = readFrom(fileOf(kind, folder, state), folder);
      if (registration !== null) return registration;
    } catch {
      // A damaged note stands in nobody's way.
    }
  return null;
}

/** Notes where the points of a folder lie that is released, for whoever adopts it again. */
export function noteReleased(entry: NewRegistration): void {
  durableMkdir(folderOf("released"));
  durableWrite(fileOf("released", entry.folder), encoded(entry));
}

/** The registration that a released folder had; for root also one of its daemon. Null where none is noted or can be read. */
export function releasedRegistration(folder: RawPath): Registration | null {
  const states = [userStateDirectory(), daemonsRegistry()].filter((each) => each !== null);
  for (const state of states)
    try {
      const registration = readFrom(fileOf("released", folder, state), folder);
      if (registration !== null) return registration;
    } catch {
      // It is only a note: points are looked for at the usual places, too.
    }
  return null;
}

/**
 * Notes a self-contained workspace, so that it is listed. Nothing is found by such a note: the folder may be another
 * host's, or mounted elsewhere tomorrow. Best effort: opening it once more notes it again.
 */
export function noteSelfContained(entry: NewRegistration): void {
  const file = fileOf("selfContained", entry.folder);
  try {
    const known = readSmallFile(file, MAX_REGISTRATION_BYTES);
    if (known !== null && decodeRegistration(known).workspace_id === entry.workspaceId) return;
  } catch {
    // It is written anew.
  }
  try {
    makeFolder(folderOf("selfContained"));
    durableWrite(file, encoded(entry));
  } catch {
    // Nobody may write there; then it is not listed.
  }
}

/** Forgets a folder; true when it was registered or noted. The control directory stays as it is. */
export function unregister(folder: RawPath): boolean {
  const wasNoted = durableRemove(fileOf("selfContained", folder));
  const wasRegistered = durableRemove(fileOf("registered", folder));
  const state = homeState();
  if (wasRegistered && state !== null) durableRemove(fileOf("elsewhere", folder, state));
  return forgetForDaemon(folder) || wasRegistered || wasNoted;
}

/** Root gives a folder up while its daemon is down; the daemon's next start drops it from its state. */
function forgetForDaemon(folder: RawPath): boolean {
  const registry = daemonsRegistry();
  if (registry === null) return false;
  removeMarksOf(Buffer.from(rawBytes(folder)));
  return durableRemove(fileOf("registered", folder, registry));
}

/** `su` and `sudo` may keep an environment that leads to somebody else's state directory. */
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

/**
 * Reads what is registered for exactly this real path, for root also by its daemon; null when nothing. Throws `damaged`,
 * `newer_version`.
 */
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
  // A file copied to another name speaks of another folder.
  const isOf = Buffer.from(rawPath(record)).equals(rawBytes(folder));
  return isOf && !removedWorkspaces().has(keyOf(record)) ? record : null;
}

export interface RegistryEntry {
  /** File in the registry. */
  readonly file: string;
  readonly registration: Registration | null;
  /** Parts that are not there (any more): the folder, its control directory, both or neither. */
  readonly missing: readonly ("folder" | "control")[];
  /** The reason why there is no registration to show. */
  readonly problem?: CairnError;
}

/** Everything in the user's registry; damaged files are listed and hide nothing. */
export function listRegistered(): RegistryEntry[] {
  return withoutRemoved(listIn(folderOf("registered")));
}

/**
 * Says which kept folders but `own` are not there any more, though their save points are, the first of them by name; null where all
 * are there, and where the registry cannot be listed, which whoever needs it says.
 */
export function tellOfGone(own?: Buffer): string | null {
  let entries: RegistryEntry[];
  try {
    entries = listRegistered();
  } catch {
    return null;
  }
  const gone = entries.flatMap(({ registration, missing }) => {
    if (registration === null || missing.length !== 1 || missing[0] !== "folder") return [];
    const folder = Buffer.from(rawPath(registration));
    return own?.equals(folder) === true ? [] : [printablePath(folder)];
  });
  if (gone.length === 0) return null;
  const [are, it] = gone.length === 1 ? ["is", "it"] : ["are", "they"];
  const more = gone.length > SHOWN_GONE ? ` and ${gone.length - SHOWN_GONE} more` : "";
  return `${gone.slice(0, SHOWN_GONE).join(", ")}${more} ${are} missing, but still registered: if ${it} moved to another folder, \`cairn relocate OLD NEW\` connects the save points with that folder`;
}

const SHOWN_GONE = 3;

/** For root what its daemon has registered, as {@link listRegistered} lists the rest; nothing for others. */
export function listDaemons(): RegistryEntry[] {
  const registry = daemonsRegistry();
  return registry === null ? [] : listIn(folderOf("registered", registry));
}

/** The self-contained workspaces that this user has opened, as {@link listRegistered} lists the others. */
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
  for (const name of names.sort().slice(0, most)) {
    if (!/^[0-9a-f]{64}\.json$/.test(name)) continue;
    const file = join(directory, name);
    try {
      const bytes = readSmallFile(file, MAX_REGISTRATION_BYTES);
      if (bytes === null) continue;
      const registration = decodeRegistration(bytes);
      const missing: ("folder" | "control")[] = [];
      if (!existsSync(Buffer.from(rawPath(registration)))) missing.push("folder");
      if (!existsSync(join(controlOf(registration), "cairn.json"))) missing.push("control");
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
 * Notes a control directory that is about to be removed; `control` is the temporary name that it gets for that. Returns the
 * note, which goes once the directory is gone. The caller holds the registry's lock until then: a note that the next holder
 * finds is of a process that is dead.
 */
export function noteRelease(entry: NewRegistration): string {
  const file = fileOf("releasing", entry.control);
  durableMkdir(folderOf("releasing"));
  durableWrite(file, encoded(entry));
  return file;
}

/** The note of a release that is under way or was killed. */
export interface ReleaseNote {
  readonly folder: Buffer;
  /** The path at which its control directory lies to be removed. */
  readonly place: string;
  readonly file: string;
  readonly key: string;
}

/** A copy of a self-contained workspace has the ids of the one it was made from. */
function keyOf(registration: Registration): string {
  return `${registration.workspace_id} ${Buffer.from(rawPath(registration)).toString("latin1")}`;
}

function releaseNotes(): ReleaseNote[] {
  return listIn(folderOf("releasing")).flatMap(({ file, registration }) => {
    if (registration === null) return [];
    const place = controlOf(registration);
    // Nothing under another name is ever removed for a note.
    if (!basename(place).startsWith(TEMPORARY_PREFIX)) return [];
    return [{ file, place, folder: Buffer.from(rawPath(registration)), key: keyOf(registration) }];
  });
}

/** Workspaces whose control directory has the name under which it is removed: their folders are kept no more. */
function removedWorkspaces(): Set<string> {
  return new Set(releaseNotes().flatMap(({ place, key }) => (existsSync(place) ? [key] : [])));
}

/** The leftovers of killed releases; none while a process is at work that may be removing one. */
export function leftReleases(): ReleaseNote[] {
  try {
    const left = releaseNotes().filter(({ place }) => existsSync(place));
    return left.length === 0 || lockHolder(lockPath()) !== null ? [] : left;
  } catch {
    // A state directory that is closed to this process is somebody else's.
    return [];
  }
}

/** Finishes all killed releases, and returns those that had left something; those that cannot be finished wait. */
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
 * Forgets the folder of a killed release and removes what is left there; true when something was. Without anything under the
 * temporary name the directory did not get it, or is gone already. For the holder of the registry's lock. Throws why something
 * stays.
 */
export function finishRelease({ file, place, key }: ReleaseNote): boolean {
  // Its file system may come back.
  if (!existsSync(dirname(place))) throw new CairnError("not_found", `${dirname(place)} no longer exists`);
  const isLeft = existsSync(place);
  if (isLeft) {
    // While its file system was away, the folder may have become another workspace, which stays registered.
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

/** Returns how a call takes a lock. */
export function lockingOf(
  purpose: string,
  { lockTimeoutMs, signal }: { lockTimeoutMs?: number | undefined; signal?: AbortSignal | undefined },
): AcquireOptions {
  return { purpose, timeoutMs: lockTimeoutMs, signal };
}

/** The lock under which a folder is looked up once more and adopted, so that no folder gets two control directories. */
export async function lockRegistry(options: AcquireOptions = {}): Promise<Lock> {
  requireWhole(userStateDirectory());
  try {
    durableMkdir(userStateDirectory());
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "permission") throw error;
    // In containers the home directory is often one that nobody may write to.
    throw new CairnError(error.code, error.message, {
      hint:
        hintOfOthers(userStateDirectory(), error) ??
        "set XDG_STATE_HOME to a folder that this user may write to; the save points lie there",
      cause: error,
    });
  }
  try {
    return await acquireLock(lockPath(), { purpose: "adopt", ...options });
  } catch (error) {
    throw unlessOthersWrote([userStateDirectory()], error);
  }
}

/** The real path; the path itself where there is none. */
export function realOrItself(path: string): Buffer {
  try {
    return realpathSync.native(Buffer.from(path), "buffer");
  } catch {
    return Buffer.from(path);
  }
}

/** True for a folder with a control directory's file and workspaces, or with all else of one where the file was lost. */
export function isControlDirectory(path: string): boolean {
  const control = controlPaths(path);
  return existsSync(control.workspaces) && (existsSync(control.file) || lacksItsFile(control));
}

/**
 * The control directories below a folder, as far as they are known: the user's, registered ones, and those directly
 * in it. They are never part of a point, also where a guard was overridden.
 */
export function controlDirectoriesInside(folder: Buffer): string[] {
  const known = new Set([...controlsAt(folder), ...knownControls()]);
  return [...known].filter((control) => existsSync(control) && isAtOrBelow(realOrItself(control), folder)).sort();
}

/**
 * Lists what Cairn itself keeps below a folder, by its real path: control directories, and this user's cache, which
 * each call changes. It is never part of a point.
 */
export function ownInside(folder: Buffer): Buffer[] {
  const cache = ownCache().filter((path) => isAtOrBelow(path, folder) && !path.equals(folder));
  return [...controlDirectoriesInside(folder).map(realOrItself), ...cache];
}

/** Finds this user's cache, where there is one. */
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
 * The control directories, and the cache, on what is mounted at some places: directly at their roots, and those that are known by another
 * path of the same file system, as through a bind mount.
 */
function controlDirectoriesOn(mounted: readonly Mount[]): Buffer[] {
  const all = readMounts();
  const known = [...knownControls().map(realOrItself), ...ownCache()].flatMap((real) => {
    const on = resolveMount(real, all);
    if (on === null) return [];
    const below = real.subarray(on.mountPoint.length === 1 ? 1 : on.mountPoint.length + 1);
    return [{ device: on.device, inside: joinRaw(on.root, below) }];
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
 * Lists what is no part of a folder's state, by path in latin1: what Cairn keeps inside it, and what a file system keeps
 * at its own root; also of file systems mounted inside, where they are gone into.
 */
export function neverPart(root: Buffer, { crossMounts }: { crossMounts?: boolean | undefined }): string[] {
  const below = (path: Buffer): string => path.toString("latin1", root.length + 1);
  const controls = ownInside(root).map(below);
  const isEntered = crossMounts === true && existsSync(root);
  const mounts = isEntered ? mountsInside(root).filter(({ mountPoint }) => isOpenDirectory(mountPoint)) : [];
  if (mounts.length === 0) return [...controls, ...ownEntries(root)];
  const own = mounts.flatMap(({ mountPoint }) => ownEntries(mountPoint).map((name) => `${below(mountPoint)}/${name}`));
  return [...new Set([...controls, ...controlDirectoriesOn(mounts).map(below)]), ...ownEntries(root), ...own];
}

/** Throws `unsupported` where mounts cannot be known: at each that is gone into Cairn's own is looked for. */
export function requireMountsKnown(root: Buffer): void {
  const unknown = whyMountsUnknown();
  if (unknown === null) return;
  const { reason, hint } = unknown;
  throw new CairnError("unsupported", `mounts inside ${printablePath(root)} cannot be entered: ${reason}`, { hint });
}

/** False for a file, and for what this user may not look into. */
function isOpenDirectory(place: Buffer): boolean {
  try {
    accessSync(place, constants.X_OK);
    return statSync(place).isDirectory();
  } catch {
    return false;
  }
}

/** Control directories directly in a folder, whether registered or not. */
function controlsAt(folder: Buffer): string[] {
  const text = folder.toString("utf8");
  const controls = isControlDirectory(`${text}/${SELF_CONTAINED_CONTROL}`) ? [`${text}/${SELF_CONTAINED_CONTROL}`] : [];
  const shared = `${text}/${MOUNT_CONTROL}`;
  try {
    for (const name of readdirSync(shared))
      if (isControlDirectory(`${shared}/${name}`)) controls.push(`${shared}/${name}`);
  } catch {
    // None there.
  }
  return controls;
}

/** The file in the user's state directory. */
export const OWN_POLYNOMIAL = "chunker-polynomial";

/**
 * The chunker polynomial by which this user's new stores and repositories cut large files, so that what several
 * workspaces hold alike is stored once in a repository. Made when there is none; in hex, as configs have it.
 */
export function ownPolynomial(): string {
  return knownPolynomial() ?? notePolynomial(formatPolynomial(randomPolynomial()));
}

/** Takes over a repository's, where this user has none yet: what a new machine saves is cut as what it got back. */
export function learnPolynomial(polynomial: string): void {
  // The usual case, told without asking whether it is usable.
  if (writtenPolynomial() === polynomial) return;
  if (knownPolynomial() === null && isUsable(polynomial)) notePolynomial(polynomial);
}

function polynomialFile(): string {
  return join(userStateDirectory(), OWN_POLYNOMIAL);
}

/** Reads the file; empty where it cannot be read. */
function writtenPolynomial(): string {
  try {
    return readSmallFile(polynomialFile(), 100)?.toString("latin1").trim() ?? "";
  } catch {
    return "";
  }
}

/** Null where there is none, or nothing of use. */
function knownPolynomial(): string | null {
  const text = writtenPolynomial();
  return isUsable(text) ? text : null;
}

/** Best effort: without it the next store is cut otherwise. What somebody else wrote at the same moment counts. */
function notePolynomial(polynomial: string): string {
  try {
    durableMkdir(userStateDirectory());
    // What is there and of no use is replaced.
    const exclusive = !existsSync(polynomialFile());
    durableWrite(polynomialFile(), Buffer.from(`${polynomial}\n`), { mode: 0o600, exclusive });
  } catch {
    // Somebody else was first, or nobody may write there.
  }
  return knownPolynomial() ?? polynomial;
}
