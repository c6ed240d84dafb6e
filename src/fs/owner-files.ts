import { randomBytes } from "node:crypto";
import { closeSync, constants, fsyncSync, linkSync, readdirSync, unlinkSync, writeFileSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { errnoOf } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { refusesLink, temporaryName } from "./durable.ts";
import { livenessOf, newNonce, parseOwner, thisProcess } from "./lock-owner.ts";
import type { LockOwner } from "./lock-owner.ts";
import { openRegular, readRegular, writeRegular } from "./regular-file.ts";

/**
 * Locks for file systems on which no kernel decides for all writers. Records beside the lock file are claimed by
 * exclusive creation.
 * - The exclusive lock belongs to the record with the highest generation (`<lock>.owner-0000000007`).
 * - A record is never removed while it is the highest, only marked as released: a process that decided long ago that
 * generation 5 is dead cannot claim 6 after others had 6, 7 and 8.
 * - Shared owners have one record each (`<lock>.shared-<hex>`), made while holding the exclusive lock.
 */

/** Bytes of a record in a lock's file, padded with NULs; all NULs: no process holds the lock. */
export const RECORD_BYTES = 2048;
const MAX_RECORD_BYTES = 65536;

/** Encodes a record as JSON padded with NULs, so that one write can replace it in place. */
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

/** Rewrites a record in place; false if the file is gone. */
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
    // Other hosts see the record only once this host has sent it.
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  return true;
}

/** Reads a record; null if the file is missing, too large, or not a record. */
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
 * Watches heartbeat counters of remote holders by this machine's monotonic clock. The sightings are kept in a small
 * file, so that several short waits add up until a holder counts as dead.
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

  /** Forgets all sightings; called once a lock is held. */
  clear(): void {
    if (Object.keys(this.#sightings).length === 0) return;
    this.#sightings = {};
    try {
      unlinkSync(this.#file);
    } catch {
      // Another waiter has removed the file.
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
      // Without the file only this wait's own sightings count.
    }
  }
}

export interface Claim {
  readonly path: string;
  owner: LockOwner;
}

/**
 * Nonces of released records that could not be marked because their directory was gone. When the directory is back,
 * this process ignores these records, and other processes do once a later try has marked them.
 */
const givenUp = new Set<string>();
const MARK_AGAIN_MS = 1_000;
const MARK_AGAIN_MOST_MS = 60_000;
/** About a day of tries; a directory that is still gone then counts as removed. */
const MARK_TRIES = 1_440;

/** Marks a record as released. False if the file is missing or has another owner's record. Throws system errors. */
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
      // The next try may succeed.
    }
    if (tries > 1) markLater(claim, Math.min(pauseMs * 2, MARK_AGAIN_MOST_MS), tries - 1);
  };
  setTimeout(again, pauseMs).unref();
}

export interface Blocked {
  /** The record that blocks the lock; null if it could not be read. */
  readonly holder: LockOwner | null;
}

export class OwnerFiles {
  readonly #directory: string;
  readonly #exclusivePrefix: string;
  readonly #sharedPrefix: string;
  readonly #local: boolean;
  readonly #watch: HeartbeatWatch;

  /** `local`: no other machine writes here, so the owner of another boot is dead. */
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

  /** True if the record's holder has certainly ended or released the record. */
  isGone(owner: LockOwner | null, name: string): boolean {
    if (owner === null) return this.#watch.isStale(name, -1);
    if (givenUp.has(owner.nonce)) return true;
    const liveness = livenessOf(owner, this.#local);
    return liveness === "dead" || (liveness === "unknown" && this.#watch.isStale(owner.nonce, owner.seen));
  }

  /** Returns the record that blocks a lock taken by other means; `ignoring` is the caller's own claim. */
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

  /** Takes the exclusive record, or returns the record that blocks it. */
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

  /** Adds a shared record; only while the caller holds the exclusive claim. */
  addShared(wanted: LockOwner): Claim {
    const owner = { ...wanted, nonce: newNonce() };
    const path = join(this.#directory, `${this.#sharedPrefix}${randomBytes(8).toString("hex")}`);
    this.#createRecord(path, owner);
    return { path, owner };
  }

  /** True while the claim is valid: its record exists with this nonce, and no generation is above it. */
  isHeld(claim: Claim): boolean {
    const record = readOwner(claim.path);
    if (record?.nonce !== claim.owner.nonce || record.released === true) return false;
    if (claim.owner.shared) return true;
    return this.#pathOf(this.#names().generations.at(-1) ?? 0) === claim.path;
  }

  /** Increments the heartbeat. */
  beat(claim: Claim): void {
    if (readOwner(claim.path)?.nonce !== claim.owner.nonce) return;
    claim.owner = { ...claim.owner, seen: claim.owner.seen + 1 };
    rewriteOwner(claim.path, claim.owner);
  }

  /**
   * Releases a record at once for this process, and for others once it is marked as released. Marks it later if marking
   * fails now. Throws system errors.
   */
  release(claim: Claim): void {
    givenUp.add(claim.owner.nonce);
    let isMarked = false;
    try {
      isMarked = markGivenUp(claim);
    } finally {
      if (!isMarked) markLater(claim);
    }
  }

  /** Takes the lock from its holders: writes a newer, released generation, and removes shared records. */
  breakAll(owner: LockOwner): void {
    const names = this.#names();
    for (const name of names.shared) removeQuietly(join(this.#directory, name));
    const top = names.generations.at(-1);
    if (top === undefined) return;
    if (this.#createRecord(this.#pathOf(top + 1), { ...owner, released: true })) removeQuietly(this.#pathOf(top));
  }

  /**
   * Creates a record; false if the name is taken. A record appears whole: it is written under a temporary name and
   * linked. A lock holder may sweep the temporary file as a leftover, so the write is repeated then.
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

/** Errors of a removed file: JuiceFS and NFS report them for an open descriptor if another machine removed the file. */
const SWEPT = ["ENOENT", "EBADF", "ESTALE"];
/** Number of tries after which removed temporary files are no coincidence. */
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

/** False if the file was gone already, or may not be removed by this user. */
function removeQuietly(path: string): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch {
    return false;
  }
}
