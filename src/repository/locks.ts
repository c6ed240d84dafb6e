import os from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { currentUser } from "../fs/users.ts";
import { advice, CairnError, call, cannotBeWritten, throwIfAborted, toCairnError } from "../errors.ts";
import { encodeLock, type LockFile } from "../formats/restic/lock-file.ts";
import type { ObjectId } from "../ids.ts";
import { lookAtLocks, ownerMembers, type HeldLock } from "./lock-state.ts";
import type { Repository } from "./repository.ts";

/** restic's locks: one sealed file each, shared or exclusive; placed first, then looked around. */

const REFRESH_MS = 5 * 60_000;
/** A lock that could not be refreshed for so long may be taken for stale by others soon. */
const LOST_MS = 25 * 60_000;
/** One that placed its lock later looks around, finds ours and gives up; restic does so after 0.2 s. */
const RIVAL_MS = 2000;
/** Between placing and looking around, for storages that list late; a local disk does not. */
const SETTLE_MS = 200;

export interface LockOptions {
  exclusive: boolean;
  /** Milliseconds to wait for others before `busy`; default 0. */
  waitMs?: number;
  signal?: AbortSignal | undefined;
  /** Told when the lock cannot be taken away once the work is done. */
  onWarning?: ((message: string) => void) | undefined;
}

/** Options of waiting for a lock, and who is told of it. */
export type LockCall = Omit<LockOptions, "exclusive">;

/** Outcome of removing a lock; `kept`: this user may not remove it. */
type Dropped = "removed" | "absent" | "kept";

/** Locks that this process holds, and those that it gave back and that could not be taken away. */
const mine = new Set<string>();
const leftBehind = new Set<string>();
/** Removals under way: what this process removes twice at once is removed by nobody else. */
const leaving = new Map<string, Promise<Dropped>>();

/** A lock that is held; `release` it in a finally block. Refreshed every five minutes by itself. */
export class RepositoryLock {
  readonly exclusive: boolean;
  readonly #repository: Repository;
  readonly #onWarning: LockOptions["onWarning"];
  #id: ObjectId;
  /** By its own file, which others go by: placing it and looking around may have taken long. */
  #sealedAt: Instant;
  #released = false;
  #releasing: Promise<void> | null = null;
  /** Others may have taken this lock for stale, or removed it: what was done under it may be undone. */
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
   * Looks around again, before what others could have made wrong is committed. `busy` when this lock is gone, and when for two
   * seconds another one excludes it, or the list of locks lacks it and so may lack others.
   */
  async recheck(): Promise<void> {
    let until: number | undefined;
    for (;;) {
      await this.#refreshing;
      this.requireHeld();
      const own = this.#id;
      const { others, isListed } = await lookAround(this.#repository, own);
      // A list may be late.
      if (!isListed && !(await this.#repository.storage.exists("locks", own))) {
        // A refresh took it away, and placed another before.
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

  /**
   * Throws `busy` when this lock may have ended, by what is known without asking the storage. For loops that remove
   * things.
   */
  requireHeld(): void {
    if (this.#released) throw new CairnError("internal", "the repository's lock was released before its work was done");
    if (!this.#hasLapsed()) return;
    throw new CairnError(
      "busy",
      "the repository's lock could not be refreshed for 25 minutes, or was removed; other programs may have changed the repository",
    );
  }

  /** Never fails: what was done under the lock is done. One that stays is told, and taken away by the next look around. */
  async release(): Promise<void> {
    return (this.#releasing ??= this.#release());
  }

  async #release(): Promise<void> {
    this.#released = true;
    // The work is done: how long the lock itself takes from here on does not matter to it.
    this.#hasLapsed();
    clearInterval(this.#timer);
    await this.#refreshing;
    const warn = (why: string): void =>
      this.#onWarning?.(`the repository's lock could not be removed, and other programs may wait for it: ${why}`);
    try {
      const dropped = await dropLock(this.#repository, this.#id);
      if (dropped === "kept") warn("this user may not remove it");
      // One that is this old by now may have been taken for a dead one, after the work.
      if (dropped === "absent" && !this.#isOld()) this.#lost = true;
    } catch (error) {
      warn(toCairnError(error).message);
    }
  }

  /** Once it is released: throws `busy` where it had ended before, however well the work went. */
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

  /** Once true it stays so: a process that was asleep must not go on as if it had been there all the time. */
  #hasLapsed(): boolean {
    this.#lost ||= this.#isOld();
    return this.#lost;
  }

  #isOld(): boolean {
    return msSince(this.#sealedAt) > LOST_MS;
  }

  /** A new file, then the old one away, so that there is always one. A lock that has ended is not placed anew. */
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
      // Tried again in five minutes; recheck tells when it has become too late.
    }
  }
}

/** One moment by two clocks, in milliseconds: the second goes on while the machine sleeps, and nobody sets it. */
interface Instant {
  wall: number;
  up: number;
}

function now(): Instant {
  return { wall: Date.now(), up: uptimeMs() };
}

/** By the clock that says more. */
function msSince({ wall, up }: Instant): number {
  return Math.max(Date.now() - wall, uptimeMs() - up);
}

/** Always 0 where the system does not tell. */
function uptimeMs(): number {
  try {
    return os.uptime() * 1000;
  } catch {
    return 0;
  }
}

/**
 * Waits until nothing excludes it, places a lock and looks around again. Dead and stale locks are removed on the way.
 * `busy` with the holder when `waitMs` is over.
 */
export async function acquireLock(repository: Repository, options: LockOptions): Promise<RepositoryLock> {
  const until = Date.now() + (options.waitMs ?? 0);
  const isFar = repository.storage.localPath === undefined;
  const woken = options.signal === undefined ? {} : { signal: options.signal };
  // Woken by an abort it says so.
  const pause = async (ms: number): Promise<void> => {
    await sleep(ms, undefined, woken).catch(() => throwIfAborted(options.signal));
  };
  for (let attempt = 0; ; attempt++) {
    throwIfAborted(options.signal);
    // Named before anybody looks around: it may be there by the time that a list is answered.
    const own = await sealLock(repository, options.exclusive);
    let isListed = false;
    const rivalOf = async (): Promise<HeldLock | undefined> => {
      const look = await lookAround(repository, own.name);
      isListed = look.isListed;
      return excluding(look.others, options.exclusive);
    };
    const before = rivalOf();
    before.catch(() => undefined);
    // A shared lock is in nobody's way for a moment: far away it is placed before the answer, once.
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
        // What is done under an exclusive lock trusts that the list has all others.
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
    // Two that met while placing must not meet again.
    await pause(Math.min(10 + Math.random() * 20 * 2 ** Math.min(attempt, 4), Math.max(1, until - Date.now())));
  }
}

/** Runs `work` under a lock and releases it whatever happens. `busy` when a shared one had ended before what was done under it. */
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
  // What is removed under an exclusive one is gone, whoever came meanwhile.
  if (!options.exclusive) lock.requireLasted();
  return result;
}

/**
 * Under a shared lock, or without one where nothing can be written, as on a read-only or full file system: then it can
 * only be hoped that nobody cleans up. A pack that goes meanwhile is noticed, since its bytes are not there or not its own.
 * `over` gives it back while the work goes on, once nothing more is read.
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

/** Removes locks whose process is gone or that are 30 minutes old. Returns how many. */
export async function removeDeadLocks(repository: Repository): Promise<number> {
  let removed = 0;
  for (const id of (await lookAtLocks(repository, { ours })).dead)
    if ((await dropLock(repository, id)) === "removed") removed++;
  return removed;
}

/** All locks but one's own, and whether that is among them; dead ones are removed on the way. */
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

/** The file of a lock that is not placed yet. */
interface SealedLock {
  readonly name: ObjectId;
  readonly sealed: Uint8Array;
  /** Its time. */
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
    // Never durable: after a power cut its process is gone anyway.
    await repository.storage.save("locks", name, sealed, { durable: false });
  } catch (error) {
    // It may be there all the same.
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
      // It failed another call, which may have been stopped; this one asks by itself.
    }
  }
  const removal = removeLock(repository, id).finally(() => leaving.delete(id));
  leaving.set(id, removal);
  return removal;
}

async function removeLock(repository: Repository, id: string): Promise<Dropped> {
  // Until it is gone: where that fails, the next look around takes it away.
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

/** A list that lacks a lock of this process may lack those of others. */
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
        hint: advice`once no other program uses the repository, remove the lock with ${call("backup unlock --remove-all", "unlock", { all: true })}`,
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
