import os from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { currentUser } from "../fs/users.ts";
import { advice, CairnError, call, cannotBeWritten, throwIfAborted, toCairnError } from "../errors.ts";
import { encodeLock, type LockFile } from "../formats/restic/lock-file.ts";
import type { ObjectId } from "../ids.ts";
import { lookAtLocks, ownerMembers, type HeldLock } from "./lock-state.ts";
import type { Repository } from "./repository.ts";

/** restic's locks: one sealed file each, shared or exclusive. A lock is placed first, then the other locks are read. */

const REFRESH_MS = 5 * 60_000;
/** Milliseconds without a refresh after which other processes may soon treat a lock as stale. */
const LOST_MS = 25 * 60_000;
/**
 * A process that placed its lock later finds the earlier lock and gives up within this time; restic does so after 0.2
 * s.
 */
const RIVAL_MS = 2000;
/**
 * Milliseconds between placing a lock and reading the other locks. A remote storage may list new files late; a local
 * disk does not.
 */
const SETTLE_MS = 200;

export interface LockOptions {
  exclusive: boolean;
  /** Milliseconds to wait for other locks before the call throws `busy`. Default 0. */
  waitMs?: number;
  signal?: AbortSignal | undefined;
  /** Gets a warning if the lock cannot be removed after the work. */
  onWarning?: ((message: string) => void) | undefined;
}

/** Options for waiting for a lock. The called function chooses between a shared and an exclusive lock. */
export type LockCall = Omit<LockOptions, "exclusive">;

/** Outcome of removing a lock. `kept`: this user is not allowed to remove it. */
type Dropped = "removed" | "absent" | "kept";

/** `mine`: locks that this process holds. `leftBehind`: released locks whose file could not be removed. */
const mine = new Set<string>();
const leftBehind = new Set<string>();
/**
 * Removals that are running, by lock. A second caller waits for the first, because "absent" then means a removal by
 * another process.
 */
const leaving = new Map<string, Promise<Dropped>>();

/** A held lock, refreshed every five minutes. Call `release` in a finally block. */
export class RepositoryLock {
  readonly exclusive: boolean;
  readonly #repository: Repository;
  readonly #onWarning: LockOptions["onWarning"];
  #id: ObjectId;
  /**
   * The time in the lock's file, by which other processes judge the lock's age; placing the lock may have taken long.
   */
  #sealedAt: Instant;
  #released = false;
  #releasing: Promise<void> | null = null;
  /**
   * True once other processes may have removed this lock, or treated it as stale: their clean-ups may undo the work.
   */
  #lost = false;
  #refreshing: Promise<void> = Promise.resolve();
  readonly #timer: NodeJS.Timeout;

  constructor(repository: Repository, { name, sealedAt }: SealedLock, { exclusive, onWarning }: LockOptions) {
    this.#repository = repository;
    this.#id = name;
    this.#sealedAt = sealedAt;
    this.exclusive = exclusive;
    this.#onWarning = onWarning;
    this.#timer = setInterval(() => void (this.#refreshing = this.#refresh()), REFRESH_MS);
    this.#timer.unref();
  }

  get id(): string {
    return this.#id;
  }

  /**
   * Reads the locks again before a commit. Throws `busy` if this lock is gone, or if for two seconds another lock
   * excludes it or the list of locks lacks it: such a list may lack other locks too.
   */
  async recheck(): Promise<void> {
    let until: number | undefined;
    for (;;) {
      await this.#refreshing;
      this.requireHeld();
      const own = this.#id;
      const { others, isListed } = await lookAround(this.#repository, own);
      // The list of locks may be out of date.
      if (!isListed && !(await this.#repository.storage.exists("locks", own))) {
        // A refresh placed a new lock and removed this one.
        if (own !== this.#id) continue;
        throw new CairnError(
          "busy",
          "another program removed the repository's lock, so the repository may have been changed meanwhile",
        );
      }
      const rival = excluding(others, this.exclusive);
      if (rival === undefined && isListed) return;
      until ??= Date.now() + RIVAL_MS;
      if (Date.now() >= until) throw rival === undefined ? shortList(this.#repository) : busy(this.#repository, rival);
      await sleep(20);
    }
  }

  /** Throws `busy` if this lock may have ended, without asking the storage. For loops that remove files. */
  requireHeld(): void {
    if (this.#released) throw new CairnError("internal", "the repository's lock was released before its work was done");
    if (!this.#hasLapsed()) return;
    throw new CairnError(
      "busy",
      "the repository's lock could not be refreshed for 25 minutes, or was removed; other programs may have changed the repository",
    );
  }

  /**
   * Releases the lock. Never fails, because the work is done. If the file cannot be removed, warns; the next reading of
   * the locks removes it.
   */
  async release(): Promise<void> {
    return (this.#releasing ??= this.#release());
  }

  async #release(): Promise<void> {
    this.#released = true;
    // Remember now whether the lock lasted: the time of the release itself does not count.
    this.#hasLapsed();
    clearInterval(this.#timer);
    await this.#refreshing;
    const warn = (why: string): void =>
      this.#onWarning?.(`the repository's lock could not be removed, and other programs may wait for it: ${why}`);
    try {
      const dropped = await dropLock(this.#repository, this.#id);
      if (dropped === "kept") warn("this user may not remove it");
      // An old lock may have been removed as stale after the work was done.
      if (dropped === "absent" && !this.#isOld()) this.#lost = true;
    } catch (error) {
      warn(toCairnError(error).message);
    }
  }

  /** Throws `busy` if the lock had ended before the work did. Call it after `release`. */
  requireLasted(): void {
    if (!this.#lost) return;
    throw new CairnError(
      "busy",
      "the repository's lock ended before the work did: other programs may have removed content that the new files need",
      {
        hint: advice`run the command again: content that is already stored is used; ${call("backup verify", "verify")} shows whether anything is missing`,
      },
    );
  }

  /** Stays true once it is true: a process that slept must not go on as if its lock had lasted. */
  #hasLapsed(): boolean {
    this.#lost ||= this.#isOld();
    return this.#lost;
  }

  #isOld(): boolean {
    return msSince(this.#sealedAt) > LOST_MS;
  }

  /**
   * Places a new lock file, then removes the old lock file, so that a lock file always exists. Does not renew a lock
   * that has expired.
   */
  async #refresh(): Promise<void> {
    try {
      if (this.#hasLapsed()) return;
      const own = await sealLock(this.#repository, this.exclusive);
      const id = await placeLock(this.#repository, own);
      if (this.#released || this.#hasLapsed()) return void (await dropLock(this.#repository, id));
      const old = this.#id;
      this.#id = id;
      this.#sealedAt = own.sealedAt;
      if ((await dropLock(this.#repository, old)) === "absent") this.#lost = true;
    } catch {
      // The next refresh is in five minutes; `recheck` throws if that is too late.
    }
  }
}

/** One moment on two clocks, in milliseconds. `up` continues while the machine sleeps, and cannot be set. */
interface Instant {
  wall: number;
  up: number;
}

function now(): Instant {
  return { wall: Date.now(), up: uptimeMs() };
}

/** Returns the larger of the two clocks' differences. */
function msSince({ wall, up }: Instant): number {
  return Math.max(Date.now() - wall, uptimeMs() - up);
}

/** Returns 0 if the system does not tell. */
function uptimeMs(): number {
  try {
    return os.uptime() * 1000;
  } catch {
    return 0;
  }
}

/**
 * Waits until no lock excludes this one, places a lock and reads the others again. Removes dead and stale locks. Throws
 * `busy`, which names the holder, after `waitMs`.
 */
export async function acquireLock(repository: Repository, options: LockOptions): Promise<RepositoryLock> {
  const until = Date.now() + (options.waitMs ?? 0);
  const isFar = repository.storage.localPath === undefined;
  const woken = options.signal === undefined ? {} : { signal: options.signal };
  // An abort ends the pause and throws.
  const pause = async (ms: number): Promise<void> => {
    await sleep(ms, undefined, woken).catch(() => throwIfAborted(options.signal));
  };
  for (let attempt = 0; ; attempt++) {
    throwIfAborted(options.signal);
    // Chosen before the locks are read: a late list may have the new lock already.
    const own = await sealLock(repository, options.exclusive);
    let isListed = false;
    const rivalOf = async (): Promise<HeldLock | undefined> => {
      const look = await lookAround(repository, own.name);
      isListed = look.isListed;
      return excluding(look.others, options.exclusive);
    };
    const before = rivalOf();
    before.catch(() => undefined);
    // A shared lock blocks others only for a moment. On a remote storage the first attempt places it without waiting
    // for the list.
    const isEager = attempt === 0 && !options.exclusive && isFar;
    let rival = isEager ? undefined : await before;
    if (rival === undefined) {
      const id = await placeLock(repository, own);
      let keep = false;
      try {
        rival = await before;
        if (rival === undefined) {
          if (isFar) await pause(SETTLE_MS);
          rival = await rivalOf();
        }
        // An exclusive lock relies on a complete list of locks.
        const listedBy = Date.now() + RIVAL_MS;
        while (options.exclusive && rival === undefined && !isListed) {
          if (Date.now() >= listedBy) throw shortList(repository);
          await pause(50);
          rival = await rivalOf();
        }
        keep = rival === undefined;
      } finally {
        if (!keep) await dropLock(repository, id);
      }
      if (rival === undefined) return new RepositoryLock(repository, own, options);
    }
    if (Date.now() >= until) throw busy(repository, rival);
    // Two rivals that met must not meet again: the pause is random.
    await pause(Math.min(10 + Math.random() * 20 * 2 ** Math.min(attempt, 4), Math.max(1, until - Date.now())));
  }
}

/** Runs `work` under a lock and always releases it. Throws `busy` if a shared lock ended before the work did. */
export async function withLock<T>(
  repository: Repository,
  options: LockOptions,
  work: (lock: RepositoryLock) => Promise<T>,
): Promise<T> {
  const lock = await acquireLock(repository, options);
  let result: T;
  try {
    result = await work(lock);
  } finally {
    await lock.release();
  }
  // An exclusive lock is for removals, which cannot be undone.
  if (!options.exclusive) lock.requireLasted();
  return result;
}

/**
 * Runs `work` under a shared lock, or without a lock if the storage is read-only or full. Without a lock a clean-up may
 * remove packs; reading them then fails. `work` may call `over` to release the lock early, after its last read.
 */
export async function whileReading<T>(
  repository: Repository,
  call: LockCall,
  work: (over: () => void) => Promise<T>,
): Promise<T> {
  let lock: RepositoryLock | null = null;
  try {
    lock = await acquireLock(repository, { ...call, exclusive: false });
  } catch (error) {
    if (!cannotBeWritten(toCairnError(error))) throw error;
  }
  try {
    return await work(() => void lock?.release());
  } finally {
    await lock?.release();
  }
}

/** Removes locks whose process is gone or that are 30 minutes old. Returns the number. */
export async function removeDeadLocks(repository: Repository): Promise<number> {
  let removed = 0;
  for (const id of (await lookAtLocks(repository, { ours })).dead)
    if ((await dropLock(repository, id)) === "removed") removed++;
  return removed;
}

/** Returns all locks except `own`, and whether `own` is listed. Removes dead locks. */
async function lookAround(repository: Repository, own: string): Promise<{ others: HeldLock[]; isListed: boolean }> {
  const { held, dead, hasExcepted } = await lookAtLocks(repository, { except: own, ours });
  for (const id of dead) await dropLock(repository, id);
  return { others: held, isListed: hasExcepted };
}

function ours(id: string): boolean | undefined {
  if (mine.has(id)) return true;
  return leftBehind.has(id) ? false : undefined;
}

function excluding(others: readonly HeldLock[], exclusive: boolean): HeldLock | undefined {
  return exclusive ? others[0] : others.find(({ lock }) => lock === null || lock.exclusive);
}

interface SealedLock {
  readonly name: ObjectId;
  readonly sealed: Uint8Array;
  /** The time that the lock's file states. */
  readonly sealedAt: Instant;
}

async function sealLock(repository: Repository, exclusive: boolean): Promise<SealedLock> {
  const sealedAt = now();
  const lock: LockFile = {
    time: new Date(sealedAt.wall).toISOString(),
    exclusive,
    hostname: os.hostname(),
    username: currentUser().username,
    pid: process.pid,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    extra: ownerMembers(),
  };
  return { ...(await repository.sealUnpacked(encodeLock(lock))), sealedAt };
}

async function placeLock(repository: Repository, { name, sealed }: SealedLock): Promise<ObjectId> {
  mine.add(name);
  try {
    // The name need not be durable: a power cut ends the lock's process too.
    await repository.storage.save("locks", name, sealed, { durable: false });
  } catch (error) {
    // The lock may have been placed in spite of the error.
    await dropLock(repository, name).catch(() => undefined);
    throw error;
  }
  return name;
}

async function dropLock(repository: Repository, id: string): Promise<Dropped> {
  for (let other = leaving.get(id); other !== undefined; other = leaving.get(id)) {
    try {
      return await other;
    } catch {
      // The removal failed for another caller, who may have aborted it; this call tries again.
    }
  }
  const removal = removeLock(repository, id).finally(() => leaving.delete(id));
  leaving.set(id, removal);
  return removal;
}

async function removeLock(repository: Repository, id: string): Promise<Dropped> {
  // Stays marked until the file is gone: after a failure the next reading of the locks removes it.
  leftBehind.add(id);
  mine.delete(id);
  let dropped: Dropped = "removed";
  try {
    await repository.storage.remove("locks", id);
  } catch (error) {
    const { code } = toCairnError(error);
    if (code === "permission") return "kept";
    if (code !== "not_found") throw error;
    dropped = "absent";
  }
  leftBehind.delete(id);
  return dropped;
}

/** A list that lacks a lock of this process may lack locks of others. */
function shortList({ storage }: Repository): CairnError {
  return new CairnError(
    "busy",
    `the list of locks of ${storage.location} lacks the lock that was just placed, so locks of other programs may be missing too`,
    { hint: "run the command again later; if that does not help, check the server or a cache in front of it" },
  );
}

function busy(repository: Repository, rival: HeldLock | undefined): CairnError {
  if (rival === undefined)
    return new CairnError("busy", `another process is placing a lock on ${repository.storage.location}`);
  const { lock, id } = rival;
  if (lock === null)
    return new CairnError(
      "busy",
      `lock ${id.slice(0, 8)} on ${repository.storage.location} cannot be read, so it may exclude this command`,
      {
        hint: advice`once no other program uses the repository, remove the lock with ${call("backup unlock --all", "unlock", { all: true })}`,
        details: { lock: id },
      },
    );
  const kind = lock.exclusive ? "exclusively" : "for writing";
  return new CairnError(
    "busy",
    `pid ${lock.pid} of ${lock.username} on ${lock.hostname} holds ${repository.storage.location} ${kind} since ${lock.time}`,
    {
      hint: "wait until the process is done; the lock of a dead process is removed automatically, if it was on another host after 30 minutes",
      details: { lock: id, pid: lock.pid, hostname: lock.hostname, exclusive: lock.exclusive, since: lock.time },
    },
  );
}
