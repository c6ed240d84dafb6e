import { randomBytes } from "node:crypto";
import { closeSync, constants, fsyncSync, linkSync, readdirSync, unlinkSync, writeFileSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { failpoint } from "../failpoint.ts";
import { refusesLink, temporaryName } from "./durable.ts";
import { livenessOf, newNonce, parseOwner, thisProcess } from "./lock-owner.ts";
import type { LockOwner } from "./lock-owner.ts";
import { openRegular, readRegular, writeRegular } from "./regular-file.ts";

/**
 * Locks where no kernel decides for all: records beside the lock file, claimed by exclusive creation.
 * - The exclusive lock belongs to the record with the highest generation (`<lock>.owner-0000000007`).
 * - A record is never removed while it is the highest, only marked as released: a process that decided long ago that
 * generation 5 is dead cannot claim 6 after others had 6, 7 and 8.
 * - Shared owners have one record each (`<lock>.shared-<hex>`), made while having the exclusive lock.
 */

/** Bytes of a record in a lock's file, padded with NULs; all NULs: nobody holds the lock. */
export const RECORD_BYTES = 2048;
const MAX_RECORD_BYTES = 65536;

function errnoOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | null)?.code;
}

/** A record as it lies on disk: JSON padded with NULs, so that it can be rewritten in place by one write. */
export function encodeOwner(owner: LockOwner): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES);
  const text = JSON.stringify(owner);
  const fits = Buffer.byteLength(text) <= RECORD_BYTES;
  bytes.write(
    fits ? text : JSON.stringify({ ...owner, command: "", purpose: "", host: owner.host.slice(0, 64) }),
    "utf8",
  );
  return bytes;
}

/** Rewrites a record in place; false when the file is gone. */
export function rewriteOwner(path: string, owner: LockOwner): boolean {
  let descriptor: number;
  try {
    descriptor = openRegular(path, { flags: constants.O_WRONLY });
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ESTALE") return false;
    throw error;
  }
  try {
    writeSync(descriptor, encodeOwner(owner), 0, RECORD_BYTES, 0);
    // Other hosts see it only once it left this one.
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  return true;
}

/** The record in a file; null when there is none, it is too large or not a record. */
export function readOwner(path: string): LockOwner | null {
  try {
    const bytes = readRegular(path);
    return bytes.length > MAX_RECORD_BYTES ? null : parseOwner(bytes);
  } catch {
    return null;
  }
}

interface Sighting {
  seen: number;
  /** Nanoseconds of this machine's monotonic clock, as text. */
  at: string;
}

/**
 * Watches heartbeat counters of holders that cannot be asked, by this machine's monotonic clock alone. What was seen
 * is kept in a small file, so that several short waits add up to one long enough to call a holder dead.
 */
export class HeartbeatWatch {
  readonly #file: string;
  readonly #staleAfterMs: number;
  #sightings: Record<string, Sighting>;

  constructor(lockPath: string, staleAfterMs: number) {
    this.#file = `${lockPath}.seen-${thisProcess().bootId.slice(0, 8)}`;
    this.#staleAfterMs = staleAfterMs;
    this.#sightings = this.#load();
  }

  /** True once the counter under `key` has stood still for long enough. */
  isStale(key: string, counter: number): boolean {
    const now = process.hrtime.bigint();
    const before = this.#sightings[key];
    if (before !== undefined && before.seen === counter && BigInt(before.at) <= now) {
      return now - BigInt(before.at) >= BigInt(this.#staleAfterMs) * 1_000_000n;
    }
    this.#sightings = { [key]: { seen: counter, at: now.toString() } };
    this.#store();
    return false;
  }

  /** Forgets everything; called once a lock is held. */
  clear(): void {
    if (Object.keys(this.#sightings).length === 0) return;
    this.#sightings = {};
    try {
      unlinkSync(this.#file);
    } catch {
      // Another waiter has removed it.
    }
  }

  #load(): Record<string, Sighting> {
    try {
      const value = JSON.parse(readRegular(this.#file).toString("utf8")) as Record<string, Sighting>;
      const valid = Object.entries(value).filter(([, sighting]) => /^[0-9]{1,20}$/.test(sighting.at));
      return Object.fromEntries(valid);
    } catch {
      return {};
    }
  }

  #store(): void {
    try {
      writeRegular(this.#file, JSON.stringify(this.#sightings));
    } catch {
      // Without the file this wait watches for itself.
    }
  }
}

export interface Claim {
  readonly path: string;
  owner: LockOwner;
}

/**
 * Nonces of records that this process has given up without a mark in them, since their directory was away: when that is
 * back, they stand in nobody's way here, and in no other's once a later try has marked them.
 */
const givenUp = new Set<string>();
const MARK_AGAIN_MS = 1_000;
const MARK_AGAIN_MOST_MS = 60_000;
/** About a day: what is still away then is taken for gone. */
const MARK_TRIES = 1_440;

/** Says on disk that a record is given up. False where it is not there, or another's. Throws what the system says. */
function markGivenUp({ path, owner }: Claim): boolean {
  const isMarked = owner.shared
    ? removeQuietly(path)
    : readOwner(path)?.nonce === owner.nonce && rewriteOwner(path, { ...owner, released: true });
  if (isMarked) givenUp.delete(owner.nonce);
  return isMarked;
}

function markLater(claim: Claim, pauseMs = MARK_AGAIN_MS, tries = MARK_TRIES): void {
  const again = (): void => {
    try {
      if (markGivenUp(claim)) return;
    } catch {
      // Not well yet; the next try may be.
    }
    if (tries > 1) markLater(claim, Math.min(pauseMs * 2, MARK_AGAIN_MOST_MS), tries - 1);
  };
  setTimeout(again, pauseMs).unref();
}

export interface Blocked {
  /** The record that stands in the way; null when it could not be read. */
  readonly holder: LockOwner | null;
}

export class OwnerFiles {
  readonly #directory: string;
  readonly #exclusivePrefix: string;
  readonly #sharedPrefix: string;
  readonly #local: boolean;
  readonly #watch: HeartbeatWatch;

  /** `local`: no other machine writes here, so a record of another boot is dead. */
  constructor(lockPath: string, local: boolean, watch: HeartbeatWatch) {
    this.#directory = dirname(lockPath);
    this.#exclusivePrefix = `${basename(lockPath)}.owner-`;
    this.#sharedPrefix = `${basename(lockPath)}.shared-`;
    this.#local = local;
    this.#watch = watch;
  }

  #names(): { generations: number[]; shared: string[] } {
    const generations: number[] = [];
    const shared: string[] = [];
    for (const name of readdirSync(this.#directory)) {
      if (name.startsWith(this.#exclusivePrefix)) {
        const generation = Number(name.slice(this.#exclusivePrefix.length));
        if (Number.isSafeInteger(generation) && generation > 0) generations.push(generation);
      } else if (name.startsWith(this.#sharedPrefix)) {
        shared.push(name);
      }
    }
    return { generations: generations.sort((a, b) => a - b), shared };
  }

  #pathOf(generation: number): string {
    return join(this.#directory, this.#exclusivePrefix + String(generation).padStart(10, "0"));
  }

  /** True when the record's holder is known not to run any more, or released it. */
  isGone(owner: LockOwner | null, name: string): boolean {
    if (owner === null) return this.#watch.isStale(name, -1);
    if (givenUp.has(owner.nonce)) return true;
    const liveness = livenessOf(owner, this.#local);
    return liveness === "dead" || (liveness === "unknown" && this.#watch.isStale(owner.nonce, owner.seen));
  }

  /** Returns what stands in the way of a lock taken otherwise; `ignoring` is the caller's own claim. */
  blockers(shared: boolean, ignoring?: Claim): Blocked | null {
    const names = this.#names();
    const top = names.generations.at(-1);
    if (top !== undefined && this.#pathOf(top) !== ignoring?.path) {
      const holder = readOwner(this.#pathOf(top));
      if (!this.isGone(holder, String(top))) return { holder };
    }
    if (shared) return null;
    for (const name of names.shared) {
      const path = join(this.#directory, name);
      const holder = readOwner(path);
      if (!this.isGone(holder, name)) return { holder };
      removeQuietly(path);
    }
    return null;
  }

  /** Takes the exclusive record, or says who has it. */
  claim(wanted: LockOwner): Claim | Blocked {
    const owner = { ...wanted, nonce: newNonce() };
    const top = this.#names().generations.at(-1) ?? 0;
    if (top > 0) {
      const holder = readOwner(this.#pathOf(top));
      if (!this.isGone(holder, String(top))) return { holder };
    }
    const path = this.#pathOf(top + 1);
    if (!this.#createRecord(path, owner)) return { holder: readOwner(path) };
    const after = this.#names().generations;
    const highest = after.at(-1) ?? 0;
    if (highest !== top + 1) {
      removeQuietly(path);
      return { holder: readOwner(this.#pathOf(highest)) };
    }
    for (const generation of after) if (generation <= top) removeQuietly(this.#pathOf(generation));
    return { path, owner };
  }

  /** Adds a shared record; only while the exclusive claim is held. */
  addShared(wanted: LockOwner): Claim {
    const owner = { ...wanted, nonce: newNonce() };
    const path = join(this.#directory, `${this.#sharedPrefix}${randomBytes(8).toString("hex")}`);
    this.#createRecord(path, owner);
    return { path, owner };
  }

  /** True while the claim is in force: its record is there, ours, and no generation above it. */
  isHeld(claim: Claim): boolean {
    const record = readOwner(claim.path);
    if (record?.nonce !== claim.owner.nonce || record.released === true) return false;
    if (claim.owner.shared) return true;
    return this.#pathOf(this.#names().generations.at(-1) ?? 0) === claim.path;
  }

  /** Counts the heartbeat up. */
  beat(claim: Claim): void {
    if (readOwner(claim.path)?.nonce !== claim.owner.nonce) return;
    claim.owner = { ...claim.owner, seen: claim.owner.seen + 1 };
    rewriteOwner(claim.path, claim.owner);
  }

  /** Gives a record up: at once for this process, for others once that can be written, now or later. Throws what the system says. */
  release(claim: Claim): void {
    givenUp.add(claim.owner.nonce);
    let isMarked = false;
    try {
      isMarked = markGivenUp(claim);
    } finally {
      if (!isMarked) markLater(claim);
    }
  }

  /** Takes the lock away from whoever has it: a newer, released generation, and no shared records. */
  breakAll(owner: LockOwner): void {
    const names = this.#names();
    for (const name of names.shared) removeQuietly(join(this.#directory, name));
    const top = names.generations.at(-1);
    if (top === undefined) return;
    if (this.#createRecord(this.#pathOf(top + 1), { ...owner, released: true })) removeQuietly(this.#pathOf(top));
  }

  /**
   * False when the name is taken. A record appears whole: it is written under another name and linked. Whoever holds
   * the lock may take that name for one that a kill left, so it is written again when it is gone.
   */
  #createRecord(path: string, owner: LockOwner, tries = LINK_TRIES): boolean {
    const temporary = join(this.#directory, temporaryName());
    try {
      writeFileSync(temporary, encodeOwner(owner), { flag: "wx", mode: 0o600, flush: true });
      failpoint("lock.record-written");
      linkSync(temporary, path);
      return true;
    } catch (error) {
      if (errnoOf(error) === "EEXIST") return false;
      if (SWEPT.includes(errnoOf(error) ?? "") && tries > 1) return this.#createRecord(path, owner, tries - 1);
      if (!refusesLink(error)) throw error;
      return createWithoutLink(path, owner);
    } finally {
      removeQuietly(temporary);
    }
  }
}

/** Errors of a file that is gone: JuiceFS and NFS say it of the open descriptor when another machine has removed it. */
const SWEPT = ["ENOENT", "EBADF", "ESTALE"];
/** A sweep for each of them in a row is none that goes on by chance. */
const LINK_TRIES = 20;

function createWithoutLink(path: string, owner: LockOwner): boolean {
  try {
    writeFileSync(path, encodeOwner(owner), { flag: "wx", mode: 0o600, flush: true });
    return true;
  } catch (error) {
    if (errnoOf(error) === "EEXIST") return false;
    throw error;
  }
}

/** False where it was gone already, or is not ours to remove. */
function removeQuietly(path: string): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch {
    return false;
  }
}
