import fs from "node:fs";
import { backup, type DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { failpoint } from "../../failpoint.ts";
import { kernelLockState, whyLocksAreLocal } from "../../fs/linux/kernel-lock.ts";
import { forgetFile } from "../../fs/linux/flush.ts";
import { filesystemKind } from "../../fs/linux/mounts.ts";
import { openRegular } from "../../fs/regular-file.ts";
import type { Captured, CaptureRequest, Held, Method } from "./captured.ts";
import { type DatabaseHeader, HEADER_BYTES, SAFE_WAL_VERSION } from "../../formats/sqlite-header.ts";
import { logsBeside, readHeader } from "./header.ts";
import {
  applyLog,
  ask,
  checked,
  clearLockPage,
  copyBytes,
  hashOf,
  MOST_PATH_BYTES,
  openDatabase,
  problemOf,
  statisticsOf,
  warningOf,
} from "./image.ts";
import { looksOfFiles, plainCopy, sizeOf } from "./plain-copy.ts";
import { isIndexSharedHere } from "./quiet-database.ts";
import { forgetSuperJournal, recoverCopy, type RecoverRequest, whyNotInPlace } from "./recover-copy.ts";

/** Milliseconds: the wait for a lock, the pause between two tries, and the time for which a checkpoint may delay a writer. */
const WAIT_MS = 3_000;
const PAUSE_MS = 100;
const FIRST_PAUSE_MS = 2;
const CHECKPOINT_WAIT_MS = 20;
const TRIES = 20;
/** Pages that a backup copies between two turns. */
const BACKUP_PAGES = 4_096;

/** The tree of a database in its own place: its super-journal is at its absolute path. */
const ROOT = new Uint8Array();
const BEGIN = "BEGIN; SELECT count(*) FROM sqlite_schema";
const TOO_LONG = `SQLite opens no path of more than ${MOST_PATH_BYTES} bytes`;
const BUSY = 5;
const LOCKED = 6;

/** Makes an image of a database, or a plain copy of a file that SQLite cannot open. Throws the system's errors. */
export async function capture(request: CaptureRequest): Promise<Captured> {
  // Open until every connection is closed: closing any descriptor of the file gives up all locks on it.
  const fd = openRegular(Buffer.from(request.path), { named: true });
  try {
    const header = readHeader(fd);
    const unshared = whyUnshared(fd, request.path, header);
    const reason = whyNotOpened(request.path, header) ?? unshared ?? (await whyNotInPlace(request.path));
    if (reason !== null) return await plainCopy(fd, request, { header, reason, isUncached: unshared !== null });
    try {
      if (isLeftBehind(fd, request.path)) return await recoveredImage(fd, request, header!);
      return await consistentImage(fd, request, header!);
    } catch (error) {
      if (!isOfDatabase(error)) throw error;
      return await plainCopy(fd, request, { header, reason: whatFailed(error) });
    }
  } finally {
    fs.closeSync(fd);
  }
}

const LOG_GONE = "its log or journal was removed while Cairn looked at it";
const LEFT_BEHIND = "no process uses the log or journal beside it, which may be another database's";

/** A request to make a database in use readable for another process. */
export interface HoldRequest extends Pick<CaptureRequest, "path" | "stage"> {
  /** `own`: the database's own file is enough; `image`: makes an image; else the tree of one moment that the database is in. */
  how: "own" | "image" | Pick<RecoverRequest, "tree" | "folders">;
}

/** A database that is read until {@link release}; `looks` shows whether it changed. */
let pinned: { database: DatabaseSync | null; fd: number; looks: () => string; before: string } | null = null;

/**
 * True if there is a log, also an empty one, or a journal that no process uses, by SQLite's own locks, which work across
 * namespaces. Opening such a database would apply the log and remove it, though it may be another database's, or in use
 * by a program that takes its locks elsewhere, for example through a FUSE.
 */
export function isLeftBehind(fd: number, path: Uint8Array): boolean {
  const isUnlocked = (): boolean => kernelLockState(fd) === "none";
  const hasLog = (): boolean =>
    logsBeside(path).length > 0 || sizeOf(path, "-wal") !== null || sizeOf(path, "-shm") !== null;
  return isUnlocked() && hasLog() && isUnlocked();
}

/**
 * Tells why a database must not be opened, although its files can be: a program may use it whose locks do not show, or
 * whose index of the log is memory that this kernel or mount does not share.
 */
function whyUnshared(fd: number, path: Uint8Array, header: DatabaseHeader | null): string | null {
  const local = header === null ? null : whyLocksAreLocal(fd, path);
  if (local !== null || header?.journal_mode !== "wal" || isOfThisKernel(path)) return local;
  if (sizeOf(path, "-shm") === null && (sizeOf(path, "-wal") ?? 0) === 0) return null;
  if (kernelLockState(fd) === "none" || isIndexSharedHere(path)) return null;
  return "a program uses its log that Cairn does not see on this mount, and only one mount shares the log's index";
}

function isOfThisKernel(path: Uint8Array): boolean {
  const { place } = filesystemKind(Buffer.from(path));
  return place === "local" || place === "memory";
}

/** Pins a database until {@link release}, or makes an image of it; null if the file is no database. Throws the system's errors. */
export async function hold(request: HoldRequest): Promise<Held | null> {
  const { path, how } = request;
  const fd = openIfThere(path);
  if (fd === null) return null;
  try {
    const header = readHeader(fd);
    if (header === null) return null;
    if (typeof how === "object") return recoverCopy({ path, stage: request.stage, ...how });
    const unshared = whyUnshared(fd, path, header);
    const misplaced = unshared ?? (await whyNotInPlace(path));
    const isLeft = misplaced === null && isLeftBehind(fd, path);
    const left = isLeft ? heldInPlace(fd, request) : null;
    if (left !== null) return left;
    const reason = isLeft ? LOG_GONE : (whyNotOpened(path, header) ?? misplaced);
    const isUncached = unshared !== null || isLeft;
    if (reason !== null) return heldCopy(await plainCopy(fd, request, { header, reason, isUncached }));
    try {
      return await pinOrImage(fd, request, header);
    } catch (error) {
      if (!isOfDatabase(error)) throw error;
      return heldCopy(await plainCopy(fd, request, { header, reason: whatFailed(error) }));
    }
  } finally {
    // Closing the descriptor releases all locks of this process on the file.
    if (pinned?.fd !== fd) fs.closeSync(fd);
  }
}

/**
 * Null if its log or journal is gone although the mount still shows it, as a FUSE does for a second: the mount's sizes
 * and times prove nothing then.
 */
function heldInPlace(fd: number, { path, stage }: HoldRequest): Held | null {
  pin({ database: null, fd, looks: () => looksOfFiles(path) });
  try {
    const held = recoverCopy({ path, stage, tree: ROOT, folders: [ROOT] });
    return { ...held, reason: held.reason ?? LEFT_BEHIND };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    pinned = null;
    return null;
  }
}

function pin(what: Omit<NonNullable<typeof pinned>, "before">): void {
  pinned = { ...what, before: what.looks() };
}

function openIfThere(path: Uint8Array): number | null {
  try {
    return openRegular(Buffer.from(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

function heldCopy({ label, reason, sidecars }: Captured): Held {
  return { isImage: true, label, reason, sidecars };
}

async function pinOrImage(fd: number, { path, stage, how }: HoldRequest, header: DatabaseHeader): Promise<Held> {
  const held = { label: "transaction-consistent", reason: null, sidecars: [] } as const;
  const database = openDatabase(path, modeOf(header), WAIT_MS);
  try {
    if (how === "own" && isInWalMode(database) && (await isPinnedOnEmptyWal(database, path))) {
      pin({ database, fd, looks: () => looksOf(fd, path) });
      failpoint("database.pinned");
      return { ...held, sidecars: [], isImage: false };
    }
    const image = fs.openSync(`${stage}/image`, "wx+", 0o600);
    try {
      await makeImage(database, { fd, image }, { path, stage, checkpoint: false });
      clearLockPage(image, ask(database, "PRAGMA page_size"));
    } finally {
      fs.closeSync(image);
    }
    return { ...held, sidecars: [], isImage: true };
  } finally {
    if (pinned?.database !== database) database.close();
  }
}

/** Ends a {@link hold}; false if the file changed since. */
export function release(): boolean {
  if (pinned === null) return true;
  const { database, fd, looks, before } = pinned;
  pinned = null;
  try {
    const isWhole = looks() === before;
    database?.close();
    return isWhole;
  } finally {
    fs.closeSync(fd);
  }
}

/** Inode, size, modification time and header of a database's file: they show writes that bypass SQLite's locks. */
function looksOf(fd: number, path: Uint8Array): string {
  const { dev, ino, size, mtimeNs } = fs.fstatSync(fd, { bigint: true });
  const named = fs.statSync(Buffer.from(path), { bigint: true, throwIfNoEntry: false });
  return [dev, ino, size, mtimeNs, named?.dev, named?.ino, headOf(fd).toString("hex")].join();
}

/** A connection that only reads never rolls back a journal that appears meanwhile: its program may be in a transaction. */
function modeOf({ journal_mode: mode }: DatabaseHeader): "ro" | "rw" {
  return mode === "wal" ? "rw" : "ro";
}

function isInWalMode(database: DatabaseSync): boolean {
  database.exec("SELECT count(*) FROM sqlite_schema");
  return database.prepare("PRAGMA journal_mode").get()?.["journal_mode"] === "wal";
}

/** Tells why SQLite must not open a file, in a sentence for people; null if it can. */
export function whyNotOpened(path: Uint8Array, header: DatabaseHeader | null): string | null {
  if (header === null) return "it has no header of a SQLite database: it may be encrypted, or damaged";
  if (path.length > MOST_PATH_BYTES) return TOO_LONG;
  const bytes = Buffer.from(path);
  for (const [place, what] of [
    [bytes, "it"],
    [bytes.subarray(0, bytes.lastIndexOf("/") + 1), "its folder"],
  ] as const) {
    try {
      fs.accessSync(place, fs.constants.W_OK);
    } catch {
      return `this user may not write to ${what}, which SQLite must do for its locks`;
    }
  }
  return null;
}

/** Copies a database that no process has open, and applies its log or journal to the copy only. */
async function recoveredImage(fd: number, request: CaptureRequest, header: DatabaseHeader): Promise<Captured> {
  const reason = "no process has it open, and SQLite would apply its log to it";
  const copied = await plainCopy(fd, request, { header, reason });
  if (copied.label === "torn-possible") return copied;
  const place = Buffer.from(`${request.stage}/image`);
  failpoint("database.copied");
  // The super-journal existed while the journal did: a program that recovers the database meanwhile removes the
  // journal first.
  forgetSuperJournal(place);
  applyLog(place);
  const image = openRegular(place, { flags: fs.constants.O_RDWR });
  try {
    const problem = problemOf(place);
    const label = problem === null ? "transaction-consistent" : "crash-consistent";
    const facts = await lookInto(image, request);
    return { ...copied, ...facts, label, reason: problem ?? LEFT_BEHIND, sidecars: [] };
  } finally {
    fs.closeSync(image);
  }
}

/** A program changed the file although SQLite's lock was held, so a reading under the lock proves nothing. */
class LocksIgnored extends Error {}

function isOfDatabase(error: unknown): boolean {
  return error instanceof LocksIgnored || (error as { code?: unknown }).code === "ERR_SQLITE_ERROR";
}

function whatFailed(error: unknown): string {
  if (error instanceof LocksIgnored) return error.message;
  const { errcode = 0, message } = error as { errcode?: number; message: string };
  const code = errcode & 0xff;
  if (code === BUSY || code === LOCKED) return "another process holds an exclusive lock on it";
  return `SQLite cannot read it: ${message}`;
}

/** The making of an image, before its content was examined. */
interface Made {
  method: Method;
  heldMs: number;
}

async function consistentImage(fd: number, request: CaptureRequest, header: DatabaseHeader): Promise<Captured> {
  const { path, stage } = request;
  const walBefore = sizeOf(path, "-wal") ?? 0;
  const image = fs.openSync(`${stage}/image`, "wx+", 0o600);
  try {
    // A read-only connection would leave an empty log behind if there was none.
    const isRead = !request.checkpoint && sizeOf(path, "-wal") !== null;
    const database = openDatabase(path, isRead ? "ro" : modeOf(header), WAIT_MS);
    let made: Made;
    let walAfter: number;
    try {
      failpoint("database.opened");
      made = await makeImage(database, { fd, image }, request);
      walAfter = sizeOf(path, "-wal") ?? 0;
    } finally {
      database.close();
    }
    failpoint("database.released");
    const facts = await lookInto(image, request);
    failpoint("database.staged");
    const { heldMs: held_ms, method } = made;
    return {
      ...facts,
      label: "transaction-consistent",
      method,
      reason: null,
      held_ms,
      wal_bytes_before: walBefore,
      wal_bytes_after: walAfter,
      warnings: [...facts.warnings, ...warningsOf(readHeader(image)!)],
      sidecars: [],
    };
  } finally {
    fs.closeSync(image);
  }
}

async function makeImage(
  database: DatabaseSync,
  files: { fd: number; image: number },
  { path, checkpoint, stage }: Pick<CaptureRequest, "path" | "checkpoint" | "stage">,
): Promise<Made> {
  const isWal = isInWalMode(database);
  if (!isWal || (checkpoint && (await isPinnedOnEmptyWal(database, path)))) {
    if (!isWal) beginCurrent(database, files.fd, path);
    const started = performance.now();
    const isWhole = await readPinned(database, files, path);
    database.exec("ROLLBACK");
    const heldMs = performance.now() - started;
    if (isWhole) return { method: "pinned", heldMs: Math.round(heldMs) };
  }
  const started = performance.now();
  database.exec(BEGIN);
  fs.ftruncateSync(files.image);
  await backup(database, `${stage}/image`, { rate: BACKUP_PAGES });
  failpoint("database.backed-up");
  database.exec("ROLLBACK");
  return { method: "backup", heldMs: Math.round(performance.now() - started) };
}

/** Begins to read. A file system outside this kernel may show pages from before the lock, which are then read again. */
function beginCurrent(database: DatabaseSync, fd: number, path: Uint8Array): void {
  database.exec(BEGIN);
  while (!isOfThisKernel(path)) {
    const before = headOf(fd);
    forgetFile(fd);
    if (headOf(fd).equals(before)) return;
    database.exec(`ROLLBACK; ${BEGIN}`);
  }
}

/**
 * Begins a transaction that needs only the database file, because the log is empty. While it lasts, no checkpoint can
 * write to the file: new commits stay in the log. False, without a transaction, if the log never becomes empty.
 */
async function isPinnedOnEmptyWal(database: DatabaseSync, path: Uint8Array): Promise<boolean> {
  database.exec(`PRAGMA busy_timeout = ${CHECKPOINT_WAIT_MS}`);
  try {
    for (let tries = 0; tries < TRIES; tries++) {
      if (tries > 0) await sleep(Math.min(PAUSE_MS, FIRST_PAUSE_MS * 2 ** tries));
      // A passive checkpoint writes most of the log back without delaying a writer; the rest, and truncating the log,
      // may delay one.
      database.exec("PRAGMA wal_checkpoint(PASSIVE)");
      failpoint("database.checkpointed");
      try {
        database.exec(`PRAGMA wal_checkpoint(TRUNCATE); ${BEGIN}`);
        if ((sizeOf(path, "-wal") ?? 0) === 0) return true;
      } catch (error) {
        if ((error as { errcode?: number }).errcode !== BUSY) throw error;
      }
      if (database.isTransaction) database.exec("ROLLBACK");
    }
    return false;
  } finally {
    database.exec(`PRAGMA busy_timeout = ${WAIT_MS}`);
  }
}

/** Reads all pages under the transaction's lock; false if the file is not the one that SQLite opened, or was replaced meanwhile. */
async function readPinned(
  database: DatabaseSync,
  { fd, image }: { fd: number; image: number },
  path: Uint8Array,
): Promise<boolean> {
  const before = fs.fstatSync(fd, { bigint: true });
  const named = fs.statSync(Buffer.from(path), { bigint: true, throwIfNoEntry: false });
  const header = headOf(fd);
  failpoint("database.pinned");
  const pageSize = ask(database, "PRAGMA page_size");
  const bytes = ask(database, "PRAGMA page_count") * pageSize;
  if (named?.ino !== before.ino || named.dev !== before.dev || before.size < BigInt(bytes)) return false;
  await copyBytes(fd, image, bytes);
  failpoint("database.read");
  const after = fs.fstatSync(fd, { bigint: true });
  if (after.size !== before.size || after.mtimeNs !== before.mtimeNs || !headOf(fd).equals(header))
    throw new LocksIgnored(
      "it was changed although Cairn held SQLite's lock: a program that ignores the lock, or takes it elsewhere, writes to it",
    );
  return after.nlink === before.nlink;
}

function headOf(fd: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  fs.readSync(fd, bytes, 0, HEADER_BYTES, 0);
  return bytes;
}

/** Finishes a private image and collects its facts. Throws SQLite's error if it cannot be read. */
async function lookInto(
  image: number,
  { stage, integrityCheck }: CaptureRequest,
): Promise<Pick<Captured, "bytes" | "page_size" | "pages" | "sha256" | "statistics" | "problems" | "warnings">> {
  const database = openDatabase(Buffer.from(`${stage}/image`), "image");
  try {
    const [page_size, pages] = [ask(database, "PRAGMA page_size"), ask(database, "PRAGMA page_count")];
    clearLockPage(image, page_size);
    fs.fsyncSync(image);
    const sha256 = await hashOf(image, page_size);
    const statistics = statisticsOf(database);
    const check = integrityCheck ? checked(database, true) : null;
    const problems = check?.problems ?? null;
    const warnings = warningOf(check?.unchecked ?? []);
    return { bytes: fs.fstatSync(image).size, page_size, pages, sha256, statistics, problems, warnings };
  } finally {
    database.close();
  }
}

function warningsOf({ journal_mode, written_by: version }: DatabaseHeader): string[] {
  if (journal_mode !== "wal" || version === 0 || version >= SAFE_WAL_VERSION) return [];
  const words = `${Math.floor(version / 1e6)}.${Math.floor(version / 1e3) % 1e3}.${version % 1e3}`;
  return [
    `SQLite ${words} wrote it last; in versions before 3.51.3 two connections can damage a database when its write-ahead log restarts`,
  ];
}
