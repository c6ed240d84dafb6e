import { chmodSync, chownSync, lstatSync, mkdirSync, realpathSync, renameSync, statSync } from "node:fs";
import path from "node:path";
import { advice, CairnError, option, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { fsyncDirectory, giveFreeName, temporaryName } from "../../fs/durable.ts";
import { findHolders, type Holder, WHY_UNKNOWN } from "../../fs/linux/holders.ts";
import { displayPath, type DisplayedPath, printablePath, shellPath } from "../../fs/paths/safe-path.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { removeLeftovers } from "../../fs/work-directory.ts";
import type { Captured } from "./captured.ts";
import { exchange, recoverExchange } from "./exchange.ts";
import type { FoundDatabase } from "./find.ts";
import { SIDECARS } from "../../formats/sqlite-header.ts";
import { DatabaseProcess } from "./database-process.ts";
import { holdOrRefuse, logsBeside, QuietDatabase, requireWritableThrough } from "./quiet-database.ts";
import type { Staged, StageRequest } from "./restore.ts";

interface Call {
  signal?: AbortSignal | undefined;
  onWarning?: ((message: string) => void) | undefined;
}

/** Folders of unfinished images have this ending. */
const STAGE = ".database";
const HOLDERS_BUDGET_MS = 2_000;

/** A database in a folder, with the processes that have it or a sidecar of it open. */
export type ListedDatabase = Omit<FoundDatabase, "path"> &
  DisplayedPath & { holders: Pick<Holder, "pid" | "command">[] };

/** Databases at or below a path, and the entries that could not be read. */
export interface DatabaseListing {
  databases: ListedDatabase[];
  unread: (DisplayedPath & { detail: string })[];
}

/** Lists the databases at or below a path. Writes nothing, and opens no database with SQLite. Throws `not_found`. */
export async function listDatabases(place: string, { signal, onWarning }: Call = {}): Promise<DatabaseListing> {
  const root = realPath(place);
  const folder = statSync(root).isDirectory() ? root : path.dirname(root);
  const above = folder === root ? "" : path.basename(root);
  const { databases, unread } = await inProcess(async (sqlite) => sqlite.do("find", Buffer.from(root), { signal }));
  const { holders, unknown } = findHolders(folder, { budgetMs: HOLDERS_BUDGET_MS, includeSelf: true });
  if (databases.length > 0)
    for (const reason of unknown)
      onWarning?.(`the list of processes that have a database open may be incomplete: ${WHY_UNKNOWN[reason]}`);
  const byPath = new Map<string, Map<number, string>>();
  for (const { path: held, pid, command } of holders) {
    const key = held.toString("latin1").replace(/-(?:wal|shm|journal)$/, "");
    byPath.set(key, (byPath.get(key) ?? new Map<number, string>()).set(pid, command));
  }
  const listed = databases.map(({ path: below, ...found }) => {
    const key = Buffer.from(below.length === 0 ? Buffer.from(above) : below).toString("latin1");
    const pids = byPath.get(key) ?? [];
    return { ...displayPath(below), ...found, holders: Array.from(pids, ([pid, command]) => ({ pid, command })) };
  });
  return { databases: listed, unread: unread.map(({ path: below, detail }) => ({ ...displayPath(below), detail })) };
}

export interface CaptureOptions extends Call {
  /** The image's path. */
  to: string;
  /** False: nothing is written to the database or its log. */
  checkpoint?: boolean | undefined;
  /** Have SQLite check the whole image. */
  integrityCheck?: boolean | undefined;
  /** Replace an existing file at the image's path. */
  overwrite?: boolean | undefined;
}

/**
 * Writes an image of a database to a file, which gets its name when it is whole and durable. Throws `not_found`,
 * `already_exists` if the name is taken.
 */
export async function captureDatabase(
  place: string,
  options: CaptureOptions,
): Promise<Omit<Captured, "warnings"> & { path: string; duration_ms: number }> {
  const started = performance.now();
  recoverExchange(path.resolve(place));
  const source = realPath(place);
  const { checkpoint = true, integrityCheck = false, overwrite = false, signal } = options;
  const to = path.resolve(options.to);
  refuseTaken(to, overwrite);
  return staged(path.dirname(to), async (sqlite, stage) => {
    const request = { path: Buffer.from(source), stage, checkpoint, integrityCheck };
    const { warnings, ...captured } = await sqlite.do("capture", request, { signal, scratch: stage });
    failpoint("database-capture.staged");
    refuseTaken(to, overwrite);
    using _held = overwrite
      ? holdOrRefuse([Buffer.from(to)], "end the programs that use the database, or name another file")
      : null;
    for (const ending of [...captured.sidecars, ""]) {
      chmodSync(`${stage}/image${ending}`, statSync(source).mode & 0o666);
      if (overwrite) renameSync(`${stage}/image${ending}`, `${to}${ending}`);
      else giveFreeName(`${stage}/image${ending}`, `${to}${ending}`);
      failpoint("database-capture.named");
    }
    fsyncDirectory(path.dirname(to));
    for (const warning of warnings) options.onWarning?.(warning);
    return { path: to, ...captured, duration_ms: Math.round(performance.now() - started) };
  });
}

/** SQLite would apply an existing log to the new image. */
function refuseTaken(to: string, overwrite: boolean): void {
  const taken = [...(overwrite ? [] : [""]), ...SIDECARS].map((ending) => `${to}${ending}`).find(isThere);
  if (taken === undefined) return;
  const isImage = taken === to;
  throw new CairnError("already_exists", `${printablePath(taken)} exists`, {
    hint: isImage
      ? advice`name another file, or replace it with ${option("overwrite")}`
      : "name another file, or remove this one first",
  });
}

function isThere(place: string): boolean {
  return lstatSync(place, { throwIfNoEntry: false }) !== undefined;
}

export interface RestoreOptions extends Call {
  /** The database's path. */
  to: string;
  /** Have SQLite check all of it, not only its structure. */
  integrityCheck?: boolean | undefined;
  /** Facts recorded by the capture. */
  expected?: StageRequest["expected"];
  /** Write into the existing database, so that programs that have it open see the restored content. */
  throughSqlite?: boolean | undefined;
  /** With `throughSqlite`: hash of the pages that the database has now; `conflict` if it has others. */
  expectedNow?: string | undefined;
  /** Takes the hash of the pages that were written through SQLite and read again. */
  onHash?: (hash: string) => void;
}

/** A restored database, as it was proven before it got its place. */
export interface RestoredDatabaseFile extends Omit<Staged, "warnings"> {
  path: string;
  through_sqlite: boolean;
  /** True if the database was read again through SQLite and equals the image; null if it was not written through SQLite. */
  read_again: boolean | null;
  duration_ms: number;
  /** Folder of the old database with its sidecars; null if there was none, or if it was written into. */
  kept: string | null;
}

/**
 * Replaces a database by a proven image; keeps the old one beside it. Throws `refused` if a process has it open,
 * `damaged` if the image is; then nothing is changed.
 */
export async function restoreDatabase(image: string, options: RestoreOptions): Promise<RestoredDatabaseFile> {
  const started = performance.now();
  const { throughSqlite = false, integrityCheck = false, expected, signal, onWarning } = options;
  const target = isThere(options.to) ? realPath(options.to) : path.resolve(options.to);
  recoverExchange(target);
  const old = statSync(target, { throwIfNoEntry: false });
  if (old !== undefined && !old.isFile())
    throw new CairnError("usage", `${printablePath(target)} is not a regular file`);
  if (throughSqlite && old === undefined)
    throw new CairnError(
      "not_found",
      `${printablePath(target)} does not exist, so it cannot be written through SQLite`,
      {
        hint: advice`leave ${option("throughSqlite")} out`,
      },
    );
  if (throughSqlite) requireWritableThrough(Buffer.from(realPath(image)), Buffer.from(target));
  return staged(path.dirname(target), async (sqlite, stage) => {
    const request = { image: Buffer.from(realPath(image)), stage, integrityCheck, ...(expected && { expected }) };
    const { warnings, ...proven } = await sqlite.do("stage", request, { signal, scratch: stage });
    for (const warning of warnings) onWarning?.(warning);
    failpoint("database-restore.staged");
    let kept: string | null = null;
    let isEqual = false;
    if (throughSqlite) {
      const through = { stage, target: Buffer.from(target), expected: options.expectedNow };
      const again = await sqlite.do("writeThrough", through, { signal, scratch: stage });
      isEqual = "hash" in again;
      if ("hash" in again) options.onHash?.(again.hash);
      else onWarning?.(`${printablePath(target)} was written through SQLite, but ${again.why}`);
    } else {
      giveLooks(`${stage}/image`, old ?? statSync(image), old !== undefined, onWarning);
      kept = exchange(`${stage}/image`, target);
    }
    const duration_ms = Math.round(performance.now() - started);
    const read_again = throughSqlite ? isEqual : null;
    return { path: target, through_sqlite: throughSqlite, read_again, kept, ...proven, duration_ms };
  });
}

/**
 * Returns the hash of a database's pages, as `onHash` gets it. Null: it cannot be read, its users are not known, or
 * nobody uses the log beside it. `scratch`: a path for a folder with a copy, which is made and removed.
 */
export async function hashOfDatabase(target: Buffer, scratch: string): Promise<string | null> {
  const use = QuietDatabase.hold(target);
  if (use instanceof QuietDatabase) use[Symbol.dispose]();
  if (use instanceof QuietDatabase ? logsBeside(target).length > 0 : use.unknown.length > 0) return null;
  mkdirSync(scratch, { recursive: true, mode: 0o700 });
  const through = { target, stage: scratch };
  return inProcess(async (sqlite) => sqlite.do("hashThrough", through, { scratch }))
    .catch(() => null)
    .finally(() => clearAway(scratch));
}

/** Gives the database its old owner and mode, so that its users can still read and write it. */
function giveLooks(
  file: string,
  { mode, uid, gid }: { mode: number; uid: number; gid: number },
  wasThere: boolean,
  onWarning: Call["onWarning"],
): void {
  chmodSync(file, mode & 0o777);
  if (!wasThere) return;
  try {
    // The group first: a user who may not change the owner may still change the group.
    chownSync(file, -1, gid);
    chownSync(file, uid, -1);
  } catch {
    onWarning?.(
      "the restored database belongs to this user, because only root may give it to the owner of the old one",
    );
  }
}

/** Gives the work a process, and an empty folder beside its future result; both are removed at the end. */
async function staged<T>(folder: string, work: (sqlite: DatabaseProcess, stage: string) => Promise<T>): Promise<T> {
  const stage = path.join(folder, `${temporaryName()}${STAGE}`);
  try {
    removeLeftovers(folder, { ownEndingIn: STAGE });
    mkdirSync(stage, { mode: 0o700 });
  } catch (error) {
    throw toCairnError(error, `make a temporary folder in ${printablePath(folder)}`);
  }
  try {
    return await inProcess(async (sqlite) => work(sqlite, stage));
  } finally {
    clearAway(stage);
  }
}

async function inProcess<T>(work: (sqlite: DatabaseProcess) => Promise<T>): Promise<T> {
  const sqlite = new DatabaseProcess();
  try {
    return await work(sqlite);
  } finally {
    await sqlite.close();
  }
}

/** The path without links: SQLite looks for sidecars beside the file itself. */
function realPath(place: string): string {
  try {
    return realpathSync.native(place);
  } catch (error) {
    const log = SIDECARS.find((ending) => isThere(`${place}${ending}`));
    const hint =
      log === undefined
        ? {}
        : { hint: `only ${shellPath(`${place}${log}`)} exists, which is useless without the database` };
    throw (error as NodeJS.ErrnoException).code === "ENOENT"
      ? new CairnError("not_found", `${printablePath(place)} is not there`, { cause: error, ...hint })
      : toCairnError(error, `look for ${printablePath(place)}`);
  }
}
