import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { failpoint } from "../../failpoint.ts";
import { latin1 } from "../../formats/bytes.ts";
import { beside, LOGS } from "../../formats/sqlite-header.ts";
import { type JournalTrailer, journalsOf, MOST_TRAILER_BYTES, parseTrailer } from "../../formats/sqlite-journal.ts";
import { openRegular, readRegular } from "../../fs/regular-file.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { Held } from "./captured.ts";
import { ask, checked, clearLockPage, damageOf, openDatabase } from "./image.ts";
import { sizeOf } from "./plain-copy.ts";

const TRIES = 10;
const PAUSE_MS = 50;

/** A database in an unchanging tree of one moment. */
export interface RecoverRequest {
  /** Absolute raw path of the database in the tree. */
  path: Uint8Array;
  /** Absolute raw path of the tree. */
  tree: Uint8Array;
  /** Absolute raw paths under which programs know the tree's source folder. */
  folders: readonly Uint8Array[];
  /** An empty folder for the copy, which is named `image` there. */
  stage: string;
}

/**
 * Lets SQLite recover a copy of a database with its log or journal, and check the copy. The copy is stored as an image
 * if the journal names a super-journal, since that path means nothing elsewhere.
 */
export function recoverCopy(request: RecoverRequest): Held {
  const { path, stage } = request;
  const sidecars = LOGS.filter((ending) => (sizeOf(path, ending) ?? 0) > 0);
  for (const ending of ["", ...sidecars])
    fs.copyFileSync(beside(path, ending), `${stage}/image${ending}`, fs.constants.COPYFILE_FICLONE);
  for (const ending of ["", ...sidecars]) fs.chmodSync(`${stage}/image${ending}`, 0o600);
  const raw = { isImage: false, sidecars };
  try {
    const settled = sidecars.includes("-journal") ? settleJournal(request) : null;
    const problems = checkImage(stage);
    failpoint("database.recovered");
    if (problems.length > 0) return { ...raw, label: "crash-consistent", reason: damageOf(problems[0]!) };
    if (settled === null) return { ...raw, label: "transaction-consistent", reason: null };
    const label = settled.reason === null ? "transaction-consistent" : "crash-consistent";
    return { isImage: true, sidecars: [], label, reason: settled.reason };
  } catch (error) {
    if ((error as { code?: unknown }).code !== "ERR_SQLITE_ERROR") throw error;
    return { ...raw, label: "crash-consistent", reason: damageOf((error as Error).message) };
  }
}

function checkImage(stage: string): string[] {
  const database = openDatabase(Buffer.from(`${stage}/image`), "rw");
  let pageSize: number;
  let problems: string[];
  try {
    problems = checked(database, false).problems;
    pageSize = ask(database, "PRAGMA page_size");
  } finally {
    database.close();
  }
  const fd = openRegular(Buffer.from(`${stage}/image`), { flags: fs.constants.O_RDWR });
  try {
    clearLockPage(fd, pageSize);
  } finally {
    fs.closeSync(fd);
  }
  return problems;
}

/**
 * Makes the copy's journal end as at its original place, where SQLite looks for the super-journal: if it exists, the
 * transaction is rolled back; if not, it was committed. `reason`: why that is not known. Null if the journal names
 * none.
 */
function settleJournal({ path, tree, folders, stage }: RecoverRequest): { reason: string | null } | null {
  const image = Buffer.from(`${stage}/image`);
  const trailer = trailerBeside(image);
  if (trailer === null) return null;
  const { superJournal } = trailer;
  const isThere = isInTree(superJournal, { tree, folders, journal: beside(path, "-journal") });
  if (isThere === false) fs.truncateSync(beside(image, "-journal"));
  else forgetSuperJournal(image);
  if (isThere !== null) return { reason: null };
  return {
    reason: `its last transaction also changed databases outside the folder, and the point does not have ${printablePath(superJournal)}, which says if it was committed; Cairn rolled it back here, while the other databases may have it`,
  };
}

/** Makes SQLite roll back the journal beside a copy, without looking for the super-journal that it names. */
export function forgetSuperJournal(image: Buffer): void {
  const trailer = trailerBeside(image);
  if (trailer !== null) fs.truncateSync(beside(image, "-journal"), sizeOf(image, "-journal")! - trailer.bytes);
}

function trailerOf(fd: number, size: number): JournalTrailer | null {
  const tail = Buffer.alloc(Math.min(size, MOST_TRAILER_BYTES));
  const first = Buffer.alloc(1);
  fs.readSync(fd, first, 0, 1, 0);
  fs.readSync(fd, tail, 0, tail.length, size - tail.length);
  // A journal that begins with zeros belongs to no transaction any more.
  return first[0] === 0 ? null : parseTrailer(tail);
}

/** Null, too, if the journal vanishes meanwhile because its transaction ended. */
function trailerBeside(path: Uint8Array): JournalTrailer | null {
  if ((sizeOf(path, "-journal") ?? 0) === 0) return null;
  let fd: number | null = null;
  try {
    fd = openRegular(beside(path, "-journal"));
    return trailerOf(fd, fs.fstatSync(fd).size);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  } finally {
    if (fd !== null) fs.closeSync(fd);
  }
}

/**
 * Tells why SQLite must not open a database in place: for example a journal from a container names a super-journal that
 * does not exist at that path here, so that SQLite would drop the journal and leave half a transaction.
 */
export async function whyNotInPlace(path: Uint8Array): Promise<string | null> {
  for (let tries = 1; ; tries++) {
    const trailer = trailerBeside(path);
    if (trailer === null || isSuperJournal(trailer.superJournal)) return null;
    // A program that is committing removes the journal soon.
    if (tries === TRIES)
      return `its journal names ${printablePath(trailer.superJournal)}, which does not exist, so SQLite would discard the journal`;
    await sleep(PAUSE_MS);
  }
}

/**
 * Tells if a tree has a super-journal; null if its path is outside the tree. A program in a container knows the folder
 * by another path: looks for each end of the path below the journal's directories, and requires that the file lists the
 * journal.
 */
function isInTree(
  superJournal: Buffer,
  { tree, folders, journal }: { tree: Uint8Array; folders: readonly Uint8Array[]; journal: Buffer },
): boolean | null {
  const inTree = (place: string): Buffer => Buffer.concat([tree, Buffer.from(`/${place}`, "latin1")]);
  const path = latin1(superJournal);
  for (const folder of folders.map(latin1))
    if (path.startsWith(`${folder}/`)) return isSuperJournal(inTree(path.slice(folder.length + 1)));
  const names = path.split("/").slice(1);
  const above = latin1(journal.subarray(tree.length + 1)).split("/");
  const own = above.pop()!;
  for (let depth = above.length; depth >= 0; depth--)
    for (let from = 0; from < names.length; from++) {
      const place = inTree([...above.slice(0, depth), ...names.slice(from)].join("/"));
      if (!isSuperJournal(place)) continue;
      const listed = journalsOf(readRegular(place));
      if (listed.some((each) => latin1(each).split("/").at(-1) === own)) return true;
    }
  return null;
}

/** True for a file that is not empty: SQLite also treats an empty one as removed. */
function isSuperJournal(place: Buffer): boolean {
  try {
    const facts = fs.lstatSync(place);
    return facts.isFile() && facts.size > 0;
  } catch {
    return false;
  }
}
