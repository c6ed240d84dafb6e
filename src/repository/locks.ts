import { readFileSync } from "node:fs";
import { hostname, userInfo } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { CairnError, throwIfAborted } from "../errors.ts";
import { decodeLock, encodeLock, type LockFile } from "../formats/lock-file.ts";
import { processFacts, thisProcess } from "../fs/lock-owner.ts";
import type { ObjectId } from "../ids.ts";
import type { Repository } from "./repository.ts";

/** restic's locks: one sealed file each, shared or exclusive; placed first, then looked around. */

const REFRESH_MS = 5 * 60_000;
const STALE_MS = 30 * 60_000;
/** A lock that could not be refreshed for so long may be taken for stale by others soon. */
const LOST_MS = 25 * 60_000;
/** One that placed its lock later looks around, finds ours and gives up; restic does so after 0.2 s. */
const RIVAL_MS = 2000;
const OWNER_KEY = "cairn_owner";

export interface LockOptions {
  exclusive: boolean;
  /** How long to wait for others before `busy`; default 0. */
  waitMs?: number;
  /** Pause between placing and looking around, for storages that list late; 0 on a local disk, else 200. */
  settleMs?: number;
  signal?: AbortSignal;
}

/** A lock of another process (or of another place in this one). */
export interface ForeignLock {
  readonly id: string;
  readonly lock: LockFile;
}

const mine = new Set<string>();

/** A lock that is held; `release` it in a finally block. Refreshed every five minutes by itself. */
export class RepositoryLock {
  readonly exclusive: boolean;
  readonly #repository: Repository;
  #id: ObjectId;
  #placedAt = Date.now();
  #released = false;
  /** Others may have taken this lock for stale, or removed it: what was done under it may be undone. */
  #lost = false;
  #refreshing: Promise<void> = Promise.resolve();
  readonly #timer: NodeJS.Timeout;

  constructor(repository: Repository, id: ObjectId, exclusive: boolean) {
    this.#repository = repository;
    this.#id = id;
    this.exclusive = exclusive;
    this.#timer = setInterval(() => void (this.#refreshing = this.#refresh()), REFRESH_MS);
    this.#timer.unref();
  }

  get id(): string {
    return this.#id;
  }

  /**
   * Looks around again, before what others could have made wrong is committed. `busy` when this lock is gone, or one
   * that excludes it stays for two seconds.
   */
  async recheck(): Promise<void> {
    this.requireHeld();
    const until = Date.now() + RIVAL_MS;
    for (;;) {
      if (!(await this.#repository.storage.exists("locks", this.#id))) {
        throw new CairnError(
          "busy",
          "the repository's lock was removed by another program, so others may have changed it",
        );
      }
      const rival = excluding(await foreignLocks(this.#repository, this.#id), this.exclusive);
      if (rival === undefined) return;
      if (Date.now() >= until) throw busy(this.#repository, rival);
      await sleep(20);
    }
  }

  /** What is known without asking the storage: `busy` when this lock may have ended. For loops that remove things. */
  requireHeld(): void {
    if (this.#released) throw new CairnError("internal", "the repository's lock was released before its work was done");
    if (!this.#hasLapsed()) return;
    throw new CairnError(
      "busy",
      "the repository's lock could not be refreshed for 25 minutes, or was removed; others may have changed what it guarded",
    );
  }

  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    clearInterval(this.#timer);
    await this.#refreshing;
    await dropLock(this.#repository, this.#id);
  }

  /** Once true it stays so: a process that was asleep must not go on as if it had been there all the time. */
  #hasLapsed(): boolean {
    this.#lost ||= Date.now() - this.#placedAt > LOST_MS;
    return this.#lost;
  }

  /** A new file, then the old one away, so that there is always one. A lock that has ended is not placed anew. */
  async #refresh(): Promise<void> {
    try {
      if (this.#hasLapsed()) return;
      const startedAt = Date.now();
      const id = await placeLock(this.#repository, this.exclusive);
      if (this.#released || this.#hasLapsed()) return void (await dropLock(this.#repository, id));
      const old = this.#id;
      this.#id = id;
      this.#placedAt = startedAt;
      if (!(await dropLock(this.#repository, old))) this.#lost = true;
    } catch {
      // Tried again in five minutes; recheck tells when it has become too late.
    }
  }
}

/**
 * Waits until nothing excludes it, places a lock and looks around again. Dead and stale locks are removed on the way.
 * `busy` with the holder when `waitMs` is over.
 */
export async function acquireLock(repository: Repository, options: LockOptions): Promise<RepositoryLock> {
  const until = Date.now() + (options.waitMs ?? 0);
  const settleMs = options.settleMs ?? (repository.storage.localPath === undefined ? 200 : 0);
  for (let attempt = 0; ; attempt++) {
    throwIfAborted(options.signal);
    let rival = excluding(await foreignLocks(repository, null), options.exclusive);
    if (rival === undefined) {
      const id = await placeLock(repository, options.exclusive);
      let keep = false;
      try {
        if (settleMs > 0) await sleep(settleMs);
        rival = excluding(await foreignLocks(repository, id), options.exclusive);
        keep = rival === undefined;
      } finally {
        if (!keep) await dropLock(repository, id);
      }
      if (rival === undefined) return new RepositoryLock(repository, id, options.exclusive);
    }
    if (Date.now() >= until) throw busy(repository, rival);
    // Two that met while placing must not meet again.
    const pause = Math.min(10 + Math.random() * 20 * 2 ** Math.min(attempt, 4), Math.max(1, until - Date.now()));
    const woken = options.signal === undefined ? {} : { signal: options.signal };
    // Woken by an abort it says so above.
    await sleep(pause, undefined, woken).catch(() => undefined);
  }
}

/** Runs `work` under a lock and releases it whatever happens. */
export async function withLock<T>(
  repository: Repository,
  options: LockOptions,
  work: (lock: RepositoryLock) => Promise<T>,
): Promise<T> {
  const lock = await acquireLock(repository, options);
  let result: T;
  try {
    result = await work(lock);
  } catch (error) {
    // What went wrong with the work tells more than that its lock stayed.
    await lock.release().catch(() => undefined);
    throw error;
  }
  await lock.release();
  return result;
}

/** Removes locks whose process is gone, that are 30 minutes old, or that cannot be read. Returns how many. */
export async function removeDeadLocks(repository: Repository): Promise<number> {
  const before = (await repository.storage.list("locks")).length;
  await foreignLocks(repository, null);
  return Math.max(0, before - (await repository.storage.list("locks")).length);
}

async function foreignLocks(repository: Repository, own: string | null): Promise<ForeignLock[]> {
  const found: ForeignLock[] = [];
  for (const { name } of await repository.storage.list("locks")) {
    if (name === own) continue;
    let lock: LockFile;
    try {
      lock = decodeLock(await repository.loadUnpacked("locks", name));
    } catch (error) {
      if (!(error instanceof CairnError)) throw error;
      // A lock appears whole or not at all, so one that cannot be read is what a power cut left of it.
      if (error.code === "damaged") await dropLock(repository, name);
      else if (error.code !== "not_found") throw error;
      continue;
    }
    if (isDead(name, lock)) await dropLock(repository, name);
    else found.push({ id: name, lock });
  }
  return found;
}

function excluding(others: readonly ForeignLock[], exclusive: boolean): ForeignLock | undefined {
  return exclusive ? others[0] : others.find((other) => other.lock.exclusive);
}

async function placeLock(repository: Repository, exclusive: boolean): Promise<ObjectId> {
  const self = thisProcess();
  const lock: LockFile = {
    time: new Date().toISOString(),
    exclusive,
    hostname: hostname(),
    username: userName(),
    pid: process.pid,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    extra: { [OWNER_KEY]: { boot_id: self.bootId, pid_namespace: self.pidNamespace, start_time: self.startTime } },
  };
  // Never durable: after a power cut its process is gone anyway.
  const id = await repository.saveUnpacked("locks", encodeLock(lock), { durable: false });
  mine.add(id);
  return id;
}

/** False when it was not there any more. */
async function dropLock(repository: Repository, id: string): Promise<boolean> {
  mine.delete(id);
  try {
    await repository.storage.remove("locks", id);
    return true;
  } catch (error) {
    if (!(error instanceof CairnError) || (error.code !== "not_found" && error.code !== "permission")) throw error;
    return error.code !== "not_found";
  }
}

/** Whether the process that placed a lock is known to be gone, or the lock is too old to count. */
function isDead(id: string, lock: LockFile): boolean {
  if (mine.has(id)) return false;
  const placedAt = Date.parse(lock.time);
  if (Number.isFinite(placedAt) && Date.now() - placedAt > STALE_MS) return true;
  if (lock.hostname !== hostname() || lock.pid <= 0) return false;
  const owner = ownerOf(lock);
  const self = thisProcess();
  if (owner !== null) {
    if (owner.boot_id !== self.bootId) return true;
    // The same pid number means another process there.
    if (owner.pid_namespace !== self.pidNamespace) return false;
  }
  if (!pidExists(lock.pid)) return true;
  const facts = processFacts(lock.pid);
  if (facts === null) return false;
  if (facts.state === "Z" || facts.state === "X") return true;
  if (owner !== null && owner.start_time !== "") return owner.start_time !== facts.startTime;
  // A process that started after the lock was placed has only inherited the number.
  const startedAt = startOf(facts.startTime);
  return startedAt !== null && Number.isFinite(placedAt) && startedAt > placedAt + 2000;
}

function ownerOf(lock: LockFile): { boot_id: string; pid_namespace: string; start_time: string } | null {
  const owner = lock.extra?.[OWNER_KEY] as Record<string, unknown> | undefined;
  if (typeof owner !== "object" || owner === null) return null;
  const { boot_id, pid_namespace, start_time } = owner;
  if (typeof boot_id !== "string" || typeof pid_namespace !== "string" || typeof start_time !== "string") return null;
  return { boot_id, pid_namespace, start_time };
}

function pidExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

let bootTime: number | null | undefined;

/** Milliseconds since 1970 of a start time in ticks after boot (a hundred a second on every Linux of ours). */
function startOf(ticks: string): number | null {
  if (bootTime === undefined) {
    try {
      const match = /^btime (\d+)$/m.exec(readFileSync("/proc/stat", "latin1"));
      bootTime = match === null ? null : Number(match[1]) * 1000;
    } catch {
      bootTime = null;
    }
  }
  return bootTime === null || !/^\d+$/.test(ticks) ? null : bootTime + Number(ticks) * 10;
}

function busy(repository: Repository, rival: ForeignLock | undefined): CairnError {
  if (rival === undefined)
    return new CairnError("busy", `another process is placing a lock on ${repository.storage.location}`);
  const { lock, id } = rival;
  const kind = lock.exclusive ? "exclusively" : "for writing";
  return new CairnError(
    "busy",
    `pid ${lock.pid} of ${lock.username} on ${lock.hostname} holds ${repository.storage.location} ${kind} since ${lock.time}`,
    {
      hint: "wait until it is done; a lock whose process is gone is removed by itself, one of another host after 30 minutes",
      details: { lock: id, pid: lock.pid, hostname: lock.hostname, exclusive: lock.exclusive, since: lock.time },
    },
  );
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return "";
  }
}
