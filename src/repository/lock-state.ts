import { lstatSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CairnError } from "../errors.ts";
import { decodeLock, type LockFile } from "../formats/restic/lock-file.ts";
import { livenessOf, pidIsAlive, thisProcess, type OwnerFacts } from "../fs/lock-owner.ts";
import { filesystemKind } from "../fs/linux/mounts.ts";
import { LISTED_AGAIN_MS } from "./listed-files.ts";
import type { Repository } from "./repository.ts";
import type { StoredFile } from "./storage/storage.ts";

/** Finds the locks in a repository, and the dead and stale ones among them. Nothing here changes anything. */

/** A lock of this age is stale, as in restic. */
const STALE_MS = 30 * 60_000;
/** Pauses before an unreadable lock is read again: it may be half uploaded, or a transfer may have failed. */
const AGAIN_MS = [50, 200, 800];
/** Pause before empty locks are looked at again. A power cut leaves an empty file; an upload has bytes by then. */
const EMPTY_AGAIN_MS = 3000;
const OWNER_KEY = "cairn_owner";

export interface HeldLock {
  readonly id: string;
  /** Null if the lock is unreadable; it may exclude anything. */
  readonly lock: LockFile | null;
}

export interface LockLook {
  readonly held: HeldLock[];
  /** Ids of locks that are empty, too old to count, or of a process that is gone. */
  readonly dead: string[];
  /** True if the lock `except` exists. */
  readonly hasExcepted: boolean;
}

/**
 * Returns Cairn's members of a lock file, which restic ignores. They let the same machine tell for certain whether the
 * lock's process runs.
 */
export function ownerMembers(): NonNullable<LockFile["extra"]> {
  const { bootId, machineId, pidNamespace, startTime } = thisProcess();
  return {
    [OWNER_KEY]: { boot_id: bootId, machine_id: machineId, pid_namespace: pidNamespace, start_time: startTime },
  };
}

export interface LookOptions {
  /** Id of a lock that is skipped, usually the caller's own. */
  except?: string;
  /** Tells whether this process holds a lock. Undefined: the lock is not of this process. */
  ours?: (id: string) => boolean | undefined;
}

/**
 * Reads every lock. If a listed lock is gone when it is read, all locks are read again: its holder may have placed
 * another one first. A lock that stays listed but missing counts as held.
 */
export async function lookAtLocks(repository: Repository, options: LookOptions = {}): Promise<LockLook> {
  let before: ReadonlySet<string> = new Set();
  for (let attempt = 0; ; attempt++) {
    const { look, gone } = await lookOnce(repository, options);
    const listedAgain = gone.filter((name) => before.has(name));
    const pause = gone.length === 0 ? undefined : LISTED_AGAIN_MS[attempt];
    if (pause === undefined) {
      for (const id of listedAgain) look.held.push({ id, lock: null });
      return look;
    }
    if (listedAgain.length > 0) await sleep(pause);
    before = new Set(gone);
  }
}

/** Locks that this process saw held, by repository, with their `writtenAt`. A list may lack a lock that still exists. */
const seenHeld = new Map<string, Map<string, number | undefined>>();

/** `gone`: names that were listed but not found. */
async function lookOnce(repository: Repository, options: LookOptions): Promise<{ look: LockLook; gone: string[] }> {
  const listed = await listLocks(repository);
  const seen = seenHeld.get(repository.id) ?? new Map<string, number | undefined>();
  seenHeld.set(repository.id, seen);
  const hasExcepted = options.except !== undefined && listed.has(options.except);
  const look: LockLook = { held: [], dead: [], hasExcepted };
  const gone: string[] = [];
  const empty: string[] = [];
  for (const name of new Set([...listed.keys(), ...seen.keys()])) {
    if (name === options.except) continue;
    const own = options.ours?.(name);
    const file = listed.get(name);
    const writtenAt = file?.writtenAt ?? seen.get(name);
    if (own === undefined && file?.size === 0 && !(await isDead(repository, { ...file, lock: null }))) {
      empty.push(name);
      continue;
    }
    const lock = own === false ? null : await readLock(repository, name);
    seen.delete(name);
    if (lock === undefined) {
      if (listed.has(name)) gone.push(name);
      continue;
    }
    if (own ?? !(await isDead(repository, { name, writtenAt, lock }))) {
      look.held.push({ id: name, lock });
      if (lock !== null) seen.set(name, writtenAt);
    } else look.dead.push(name);
  }
  if (empty.length > 0) {
    await sleep(EMPTY_AGAIN_MS);
    const later = await listLocks(repository);
    // A lock that has content now is read with all others once more.
    for (const name of empty) (later.get(name)?.size === 0 ? look.dead : gone).push(name);
  }
  return { look, gone };
}

async function listLocks(repository: Repository): Promise<Map<string, StoredFile>> {
  return new Map((await repository.storage.list("locks")).map((file) => [file.name, file]));
}

/** Returns null if the lock is unreadable, and undefined if it is gone. */
async function readLock(repository: Repository, name: string): Promise<LockFile | null | undefined> {
  for (let attempt = 0; ; attempt++) {
    try {
      return decodeLock(await repository.loadUnpacked("locks", name));
    } catch (error) {
      if (!(error instanceof CairnError)) throw error;
      if (error.code === "not_found") return undefined;
      if (error.code !== "damaged") throw error;
      const pause = AGAIN_MS[attempt];
      if (pause === undefined || isLeftover(repository, name)) return null;
      await sleep(pause);
    }
  }
}

/** A lock's file. `lock`: null if it is unreadable or empty. */
interface FoundLock extends Pick<StoredFile, "name" | "writtenAt"> {
  readonly lock: LockFile | null;
}

async function isDead(repository: Repository, found: FoundLock): Promise<boolean> {
  const { name: id, lock } = found;
  // The lock was read several times. In a store, or before the last boot, no living lock is unreadable.
  if (lock === null && (repository.storage.isStore === true || isLeftover(repository, id))) return true;
  if ((await ageOf(repository, found)) > STALE_MS) return true;
  if (lock === null || lock.pid <= 0) return false;
  const owner = ownerOf(lock);
  // Another boot id may be another machine of the same name that writes here through a network or server.
  if (owner !== null)
    return livenessOf(isOnLocalDisk(repository, id) ? owner : { ...owner, machine_id: "" }, false) === "dead";
  // Without an owner record only restic's own rule remains, which goes by the host's name.
  if (lock.hostname !== hostname()) return false;
  // Another process may have got the same pid. The lock has no start time that could tell.
  return !pidIsAlive({ pid: lock.pid, start_time: "" });
}

/**
 * Returns a lock's age in milliseconds. The clock of the host that placed it may be wrong by hours, so a time that is old
 * or in the future is not believed if the storage tells when it got the file. NaN: the age is unknown.
 */
async function ageOf({ storage }: Repository, { writtenAt, lock }: FoundLock): Promise<number> {
  const stated = Date.now() - Date.parse(lock?.time ?? "");
  if ((stated >= 0 && stated <= STALE_MS) || writtenAt === undefined) return stated;
  // A storage that is read-only may not tell its time.
  const now = (await storage.now?.().catch(() => null)) ?? null;
  return now === null ? stated : now - writtenAt;
}

/** Tells whether a lock file was left by a power cut. A living lock appears whole or not at all. */
function isLeftover(repository: Repository, id: string): boolean {
  const path = repository.storage.localPath?.("locks", id);
  const written = path === undefined ? undefined : lstatSync(path, { throwIfNoEntry: false })?.mtimeMs;
  if (written === undefined) return false;
  const booted = bootTime();
  return booted !== null && written < booted && isOnLocalDisk(repository, id);
}

function isOnLocalDisk(repository: Repository, id: string): boolean {
  const path = repository.storage.localPath?.("locks", id);
  if (path === undefined) return false;
  const { place } = filesystemKind(dirname(path));
  return place === "local" || place === "memory";
}

function ownerOf({ extra, hostname: host, pid }: LockFile): OwnerFacts | null {
  const owner = extra?.[OWNER_KEY] as Record<string, unknown> | undefined;
  if (typeof owner !== "object" || owner === null) return null;
  const { boot_id, machine_id = "", pid_namespace, start_time } = owner;
  if (typeof boot_id !== "string" || typeof machine_id !== "string") return null;
  if (typeof pid_namespace !== "string" || typeof start_time !== "string") return null;
  return { host, pid, boot_id, machine_id, pid_namespace, start_time };
}

let booted: number | null | undefined;

/** Milliseconds since 1970 of the last boot; null if the kernel does not say. */
function bootTime(): number | null {
  if (booted === undefined) {
    try {
      const match = /^btime (\d+)$/m.exec(readFileSync("/proc/stat", "latin1"));
      booted = match === null ? null : Number(match[1]) * 1000;
    } catch {
      booted = null;
    }
  }
  return booted;
}
