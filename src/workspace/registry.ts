import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { makeFolder } from "../fs/make-folder.ts";
import { absolutePath, homeDirectory } from "../fs/users.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { decodeRegistration, encodeRegistration } from "../formats/registration.ts";
import type { Registration } from "../formats/registration.ts";
import { rawPath, recordPath } from "../formats/record.ts";
import type { ControlId, WorkspaceId } from "../ids.ts";
import {
  TEMPORARY_PREFIX,
  durableMkdir,
  durableRemove,
  durableWrite,
  readSmallFile,
  removeLeftovers,
} from "../fs/durable.ts";
import { acquireLock, lockHolder } from "../fs/lock.ts";
import type { AcquireOptions, Lock } from "../fs/lock.ts";
import { removeAll } from "../fs/remove-all.ts";
import { printablePath, rawBytes } from "../fs/safe-path.ts";
import { hintOfOthers, unlessOthersWrote } from "./not-the-owner.ts";
import type { RawPath } from "../fs/safe-path.ts";
import { requireWhole } from "./text-paths.ts";

/** The user's registry: one small file per folder, named by the hash of the folder's real path. */

const MAX_REGISTRATION_BYTES = 1 << 20;

/** `$XDG_STATE_HOME/cairn`, else `~/.local/state/cairn`. A relative XDG_STATE_HOME is no path, so it is not used. */
export function userStateDirectory(): string {
  return join(configuredState() ?? join(homeDirectory(), ".local", "state"), "cairn");
}

function configuredState(): string | null {
  return absolutePath(process.env, "XDG_STATE_HOME");
}

function registryDirectory(): string {
  return join(userStateDirectory(), "workspaces");
}

function notesDirectory(): string {
  return join(userStateDirectory(), "self-contained");
}

function releasesDirectory(): string {
  return join(userStateDirectory(), "releasing");
}

function registrationPath(folder: RawPath): string {
  return join(registryDirectory(), nameOf(folder));
}

function notePath(folder: RawPath): string {
  return join(notesDirectory(), nameOf(folder));
}

function nameOf(folder: RawPath): string {
  return `${createHash("sha256").update(rawBytes(folder)).digest("hex")}.json`;
}

export interface NewRegistration {
  /** Real path of the folder. */
  folder: RawPath;
  control: RawPath;
  controlId: ControlId;
  workspaceId: WorkspaceId;
  workspaceName: string;
}

/** Records durably which control directory keeps a folder; replaces what was recorded for that path. */
export function registerWorkspace(entry: NewRegistration): void {
  durableMkdir(registryDirectory());
  removeLeftovers(registryDirectory());
  durableWrite(registrationPath(entry.folder), encodeRegistration(recordOf(entry)));
}

function recordOf(entry: NewRegistration): Registration {
  return {
    ...recordPath(rawBytes(entry.folder)),
    control: recordPath(rawBytes(entry.control)),
    control_id: entry.controlId,
    workspace_id: entry.workspaceId,
    workspace_name: entry.workspaceName,
    registered_at: new Date().toISOString(),
  };
}

/**
 * Notes a self-contained workspace, so that it is listed. Nothing is found by such a note: the folder may be another
 * host's, or mounted elsewhere tomorrow. Best effort: opening it once more notes it again.
 */
export function noteSelfContained(entry: NewRegistration): void {
  const file = notePath(entry.folder);
  try {
    const known = readSmallFile(file, MAX_REGISTRATION_BYTES);
    if (known !== null && decodeRegistration(known).workspace_id === entry.workspaceId) return;
  } catch {
    // It is written anew.
  }
  try {
    makeFolder(notesDirectory());
    durableWrite(file, encodeRegistration(recordOf(entry)));
  } catch {
    // Nobody may write there; then it is not listed.
  }
}

/** Forgets a folder; true when it was registered or noted. The control directory stays as it is. */
export function unregister(folder: RawPath): boolean {
  const wasNoted = durableRemove(notePath(folder));
  return durableRemove(registrationPath(folder)) || wasNoted;
}

/** A state directory of somebody else is met where `su` or `sudo` kept the environment. */
function readOwn(path: string): Buffer | null {
  try {
    return readSmallFile(path, MAX_REGISTRATION_BYTES);
  } catch (error) {
    const failed = toCairnError(error);
    if (failed.code !== "permission") throw failed;
    throw stateDirectoryClosed(failed);
  }
}

function stateDirectoryClosed(cause: CairnError): CairnError {
  const from = configuredState() === null ? "HOME" : "XDG_STATE_HOME";
  return new CairnError(
    "permission",
    `${userStateDirectory()}, where Cairn keeps your records, is closed to you: ${cause.message}`,
    {
      hint:
        hintOfOthers(userStateDirectory(), cause) ??
        `it follows from ${from} in the environment; set that to a folder of your own`,
      cause,
    },
  );
}

/** What is registered for exactly this real path, null when nothing. Throws `damaged`, `newer_version`. */
export function readRegistration(folder: RawPath): Registration | null {
  const path = registrationPath(folder);
  const bytes = readOwn(path);
  if (bytes === null) return null;
  let record: Registration;
  try {
    record = decodeRegistration(bytes);
  } catch (error) {
    const failed = toCairnError(error);
    throw new CairnError(
      failed.code,
      `the registration of ${printablePath(rawBytes(folder))} (${path}): ${failed.message}`,
      {
        hint: "remove that file and name the control directory with --control-dir",
        cause: error,
      },
    );
  }
  // A file copied to another name speaks of another folder.
  return Buffer.from(rawPath(record)).equals(rawBytes(folder)) && !removedWorkspaces().has(keyOf(record))
    ? record
    : null;
}

export interface RegistryEntry {
  /** File in the registry. */
  readonly file: string;
  readonly registration: Registration | null;
  /** What is not there (any more): the folder, its control directory, both or neither. */
  readonly missing: readonly ("folder" | "control")[];
  /** Why there is no registration to show. */
  readonly problem?: CairnError;
}

/** Everything in the user's registry; damaged files are listed and hide nothing. */
export function listRegistered(): RegistryEntry[] {
  return listKept(registryDirectory());
}

/** The self-contained workspaces that this user has opened, as `listRegistered` tells the others. */
export function listSelfContained(): RegistryEntry[] {
  return listKept(notesDirectory());
}

function listKept(directory: string): RegistryEntry[] {
  const removed = removedWorkspaces();
  return listIn(directory).filter(({ registration }) => registration === null || !removed.has(keyOf(registration)));
}

function listIn(directory: string): RegistryEntry[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return [];
    const failed = toCairnError(error, `list ${directory}`);
    throw failed.code === "permission" ? stateDirectoryClosed(failed) : failed;
  }
  const entries: RegistryEntry[] = [];
  for (const name of names.sort()) {
    if (!/^[0-9a-f]{64}\.json$/.test(name)) continue;
    const file = join(directory, name);
    try {
      const bytes = readSmallFile(file, MAX_REGISTRATION_BYTES);
      if (bytes !== null) entries.push(entryOf(file, decodeRegistration(bytes)));
    } catch (error) {
      entries.push({ file, registration: null, missing: [], problem: toCairnError(error, file) });
    }
  }
  return entries;
}

function entryOf(file: string, registration: Registration): RegistryEntry {
  const missing: ("folder" | "control")[] = [];
  if (!existsSync(Buffer.from(rawPath(registration)))) missing.push("folder");
  if (!existsSync(join(controlOf(registration), "cairn.json"))) missing.push("control");
  return { file, registration, missing };
}

/** The control directory that a registration names. */
export function controlOf(registration: Registration): string {
  return Buffer.from(rawPath(registration.control)).toString("utf8");
}

/**
 * Notes a control directory that is about to be removed; `control` is the temporary name that it gets for that. Returns
 * the note, which goes once the directory is gone. For the holder of the registry's lock, who keeps it until then: a
 * note that the next holder finds is of a process that is dead.
 */
export function noteRelease(entry: NewRegistration): string {
  const file = join(releasesDirectory(), nameOf(entry.control));
  durableMkdir(releasesDirectory());
  durableWrite(file, encodeRegistration(recordOf(entry)));
  return file;
}

/** The note of a release that is under way or was killed. */
export interface ReleaseNote {
  readonly folder: Buffer;
  /** Where its control directory lies, to be removed. */
  readonly place: string;
  readonly file: string;
  readonly key: string;
}

/** A copy of a self-contained workspace has the ids of the one it was made from. */
function keyOf(registration: Registration): string {
  return `${registration.workspace_id} ${Buffer.from(rawPath(registration)).toString("latin1")}`;
}

function releaseNotes(): ReleaseNote[] {
  return listIn(releasesDirectory()).flatMap(({ file, registration }) => {
    if (registration === null) return [];
    const place = controlOf(registration);
    // Nothing under another name is ever removed for a note.
    if (!basename(place).startsWith(TEMPORARY_PREFIX)) return [];
    return [{ file, place, folder: Buffer.from(rawPath(registration)), key: keyOf(registration) }];
  });
}

/** Whose control directory has got the name under which it is removed: from then on their folders are kept no more. */
function removedWorkspaces(): Set<string> {
  return new Set(releaseNotes().flatMap(({ place, key }) => (existsSync(place) ? [key] : [])));
}

/** What killed releases left; none while a process is at work that may be removing it. */
export function leftReleases(): ReleaseNote[] {
  try {
    const left = releaseNotes().filter(({ place }) => existsSync(place));
    return left.length === 0 || lockHolder(lockPath()) !== null ? [] : left;
  } catch {
    // A state directory that is closed to this process is somebody else's.
    return [];
  }
}

/** Finishes all killed releases, and returns those that had left something; what cannot be finished waits. */
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
 * Forgets the folder of a killed release and removes what is left there; true when something was. Where nothing has the
 * temporary name, the directory did not get it, and all is as it was, or it is gone already. For the holder of the
 * registry's lock. Throws why something stays.
 */
export function finishRelease({ file, place, key }: ReleaseNote): boolean {
  // Its file system may come back.
  if (!existsSync(dirname(place))) throw new CairnError("not_found", `${dirname(place)} is not there any more`);
  const isLeft = existsSync(place);
  if (isLeft) unregisterRemoved(key);
  removeAll(place);
  durableRemove(file);
  return isLeft;
}

/** While its file system was away, the folder may have become another workspace. */
function unregisterRemoved(key: string): void {
  for (const { file, registration } of [...listIn(registryDirectory()), ...listIn(notesDirectory())])
    if (registration !== null && keyOf(registration) === key) durableRemove(file);
}

function lockPath(): string {
  return join(userStateDirectory(), "adopt.lock");
}

/** Held while a folder is looked up once more and adopted, so that one folder never gets two control directories. */
export async function lockRegistry(options: AcquireOptions = {}): Promise<Lock> {
  makeStateDirectory();
  try {
    return await acquireLock(lockPath(), { purpose: "adopt", ...options });
  } catch (error) {
    throw unlessOthersWrote([userStateDirectory()], error);
  }
}

/** In containers the home directory is often one that nobody may write to. */
function makeStateDirectory(): void {
  requireWhole(userStateDirectory());
  try {
    durableMkdir(userStateDirectory());
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "permission") throw error;
    throw new CairnError(error.code, error.message, {
      hint:
        hintOfOthers(userStateDirectory(), error) ??
        "set XDG_STATE_HOME to a folder that this user may write to; the save points lie there",
      cause: error,
    });
  }
}
