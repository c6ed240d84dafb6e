import { createHash } from "node:crypto";
import fs from "node:fs";
import { backup } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { lockPage } from "../../formats/sqlite-header.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { whyLocksAreLocal } from "../../fs/linux/kernel-lock.ts";
import { isLeftBehind } from "./capture.ts";
import { inFile, logsBeside, readHeader } from "./header.ts";
import {
  applyLog,
  ask,
  checked,
  databaseUrl,
  hashOf,
  openDatabase,
  sqliteError,
  type Statistics,
  statisticsOf,
  warningOf,
} from "./image.ts";
import { plainCopy } from "./plain-copy.ts";

export interface StageRequest {
  /** Absolute raw path of the image. */
  image: Uint8Array;
  /** An empty folder for the database, which is named `image` there. */
  stage: string;
  /** Have SQLite check all of it, not only its structure. */
  integrityCheck: boolean;
  /** Facts recorded by the capture. */
  expected?: { sha256?: string; statistics?: Statistics };
}

export interface Staged {
  bytes: number;
  page_size: number;
  pages: number;
  /** Hash of the written database, read again. */
  sha256: string;
  statistics: Statistics;
  /** True if the log or journal beside the image was applied first. */
  recovered: boolean;
  warnings: string[];
}

/** Milliseconds between two tries to write into a busy database, and the number of tries. */
const PAUSE_MS = 100;
const TRIES = 100;
const ALL_PAGES = 0x7fff_ffff;
/** SQLite's codes for busy and locked, and 0, which Node reports for either before the first page. */
const BUSY = new Set([5, 6, 0]);

/**
 * Copies an image, applies the log or journal beside it, and proves the result: unchanged while read, equal to the
 * record, and accepted by SQLite's check. Throws `damaged` if the proof fails, `usage` if it is no database, `conflict`
 * while a process writes to it.
 */
export async function stage({ image, stage: folder, integrityCheck, expected = {} }: StageRequest): Promise<Staged> {
  const shown = printablePath(image);
  const fd = openRegular(Buffer.from(image), { named: true });
  let copied: Awaited<ReturnType<typeof plainCopy>>;
  try {
    const header = readHeader(fd);
    if (header === null) throw new CairnError("usage", `${shown} has no header of a SQLite database`);
    copied = await plainCopy(fd, { path: image, stage: folder }, { header, reason: "" });
  } finally {
    fs.closeSync(fd);
  }
  if (copied.label === "torn-possible")
    throw new CairnError("conflict", `${shown} was changed while it was read`, {
      hint: "capture a live database first, and restore the image",
    });
  if (expected.sha256 !== undefined && expected.sha256 !== copied.sha256)
    throw new CairnError("damaged", `${shown} has the SHA-256 ${copied.sha256}; recorded is ${expected.sha256}`);
  const file = Buffer.from(`${folder}/image`);
  const recovered = copied.sidecars.length > 0;
  try {
    if (recovered) applyLog(file);
    const database = openDatabase(file, "image");
    try {
      const [page_size, pages] = [ask(database, "PRAGMA page_size"), ask(database, "PRAGMA page_count")];
      const { bytes, sha256 } = recovered ? await finished(file, page_size) : copied;
      if (bytes < page_size * pages)
        throw new CairnError("damaged", `${shown} is cut off: it has ${bytes} of ${page_size * pages} bytes`);
      const { problems, unchecked } = checked(database, integrityCheck);
      if (problems.length > 0)
        throw new CairnError("damaged", `SQLite finds ${shown} damaged: ${problems.slice(0, 3).join("; ")}`);
      const statistics = statisticsOf(database);
      if (expected.statistics !== undefined && !isDeepStrictEqual(statistics, expected.statistics))
        throw new CairnError("damaged", `${shown} has another schema or other rows than recorded`);
      return { bytes, page_size, pages, sha256, statistics, recovered, warnings: warningOf(unchecked) };
    } finally {
      database.close();
    }
  } catch (error) {
    throw sqliteError(error, `SQLite cannot read ${shown}`);
  }
}

async function finished(file: Buffer, pageSize: number): Promise<{ bytes: number; sha256: string }> {
  const fd = openRegular(file, { flags: fs.constants.O_RDWR });
  try {
    fs.fsyncSync(fd);
    return { bytes: fs.fstatSync(fd).size, sha256: await hashOf(fd, pageSize) };
  } finally {
    fs.closeSync(fd);
  }
}

/** A database, and a folder for a copy of it. */
interface ReadThrough {
  stage: string;
  target: Uint8Array;
}

/**
 * Writes a staged image into an open database in one transaction of SQLite, and reads it again. Returns the hash of the pages,
 * or the reason why they are not the image's. Throws `conflict` if the present pages have another hash than `expected`, and
 * `busy` while another program keeps writing.
 */
export async function writeThrough({
  expected,
  ...through
}: ReadThrough & { expected?: string | undefined }): Promise<{ hash: string } | { why: string }> {
  const { stage: folder, target } = through;
  const shown = printablePath(target);
  requireSeenUsers(target);
  if (expected !== undefined && (await hashThrough(through)) !== expected)
    throw new CairnError("conflict", `${shown} was changed meanwhile, and stays as it is`);
  const source = openDatabase(Buffer.from(`${folder}/image`), "image");
  try {
    for (let tries = 0; ; tries++) {
      try {
        failpoint("database.write-through");
        await backup(source, databaseUrl(target, "rw"), { rate: ALL_PAGES });
        break;
      } catch (error) {
        const code = ((error as { errcode?: number }).errcode ?? 0) & 0xff;
        if (code === READ_ONLY)
          throw new CairnError("permission", `SQLite may not write ${shown} or beside it`, { cause: error });
        if (!BUSY.has(code)) throw sqliteError(error, `write ${shown} through SQLite`);
        if (tries >= TRIES)
          throw new CairnError(
            "busy",
            `${shown} is being written to by another process, which did not finish in time`,
            {
              cause: error,
            },
          );
        await sleep(PAUSE_MS);
      }
    }
    failpoint("database.written-through");
    return await comparedWithStaged(through);
  } finally {
    source.close();
  }
}

/** Compares a database, read through SQLite in one transaction, with the image that was written into it. */
async function comparedWithStaged(through: ReadThrough): ReturnType<typeof writeThrough> {
  // The transaction is committed, so an error must not say that nothing was written.
  try {
    const hash = await hashThrough(through);
    const wanted = inFile(Buffer.from(`${through.stage}/image`), hashOfPages);
    return wanted === hash ? { hash } : { why: "it reads back different: another program wrote to it meanwhile" };
  } catch (error) {
    return { why: `it could not be read again: ${(error as Error).message}` };
  }
}

/** Reads a database through SQLite in one transaction and returns the hash of its pages. */
export async function hashThrough({ stage: folder, target }: ReadThrough): Promise<string> {
  // SQLite would leave an index of the log beside a database that no program has open.
  const isIdle = inFile(target, (fd) => readHeader(fd)?.journal_mode === "wal" && logsBeside(target).length === 0);
  if (isIdle) return inFile(target, hashOfPages);
  const copy = Buffer.from(`${folder}/again`);
  fs.writeFileSync(copy, "", { mode: 0o600, flag: "wx" });
  const database = openDatabase(target, "ro", PAUSE_MS * TRIES);
  try {
    await backup(database, databaseUrl(copy, "rw"), { rate: ALL_PAGES });
  } finally {
    database.close();
  }
  const hash = inFile(copy, hashOfPages);
  fs.rmSync(copy);
  return hash;
}

/** Fields of the header that SQLite sets at each commit: read and write version, change counter, schema cookie, writer. */
const OF_COMMITS = [
  [18, 20],
  [24, 28],
  [40, 44],
  [92, 100],
] as const;

/** SHA-256 of the pages that a database's header counts, without the fields that differ after each commit. */
function hashOfPages(fd: number): string {
  const { page_size: size, pages } = readHeader(fd)!;
  const hash = createHash("sha256");
  const page = Buffer.alloc(size);
  const count = pages ?? Math.floor(fs.fstatSync(fd).size / size);
  for (let i = 0; i < count; i++) {
    fs.readSync(fd, page, 0, size, i * size);
    if (i === 0) for (const [from, to] of OF_COMMITS) page.fill(0, from, to);
    if (lockPage(size, count * size)?.from !== i * size) hash.update(page);
  }
  return hash.digest("hex");
}

/** Throws `refused` if SQLite would apply a log whose program, if there is one, takes its locks elsewhere. */
function requireSeenUsers(target: Uint8Array): void {
  const reason = inFile(target, (fd) => (isLeftBehind(fd, target) ? whyLocksAreLocal(fd, target) : null));
  if (reason === null) return;
  throw new CairnError(
    "refused",
    `${printablePath(target)} has a log or journal that no program here uses: ${reason}`,
    {
      hint: "end the programs that use it, open it once where they do, and try again",
    },
  );
}

const READ_ONLY = 8;
