import { constants, existsSync, lstatSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { temporaryName } from "../../fs/durable.ts";
import { readRegular, writeRegular } from "../../fs/regular-file.ts";
import { isSavePointId, type SavePointId } from "../../ids.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { sequenceOfName } from "../place/control-layout.ts";

/**
 * A cache from ids to sequence numbers, so that a prefix is found without reading all descriptors. Each point has one
 * appended line of fixed width; later lines replace earlier ones. Callers check each row against the descriptor.
 */

/** `s`: an ordinary point; `n`: a point with a chosen id; `u`: an undo point, made by a restore or undo from the state before it. */
export type PointKind = "s" | "n" | "u";

export interface CatalogRow {
  readonly id: SavePointId;
  readonly kind: PointKind;
}

/** Rest of the line of a number whose point was removed. */
const REMOVED = `${"0".repeat(32)} x\n`;
const LINE_BYTES = 46;
const COMPACT_FROM = 1000;
/** For this many prefixes or more, one pass over all lines costs less than a search for each. */
const SEARCHES_BELOW = 16;

function lineOf(sequence: number, row: CatalogRow): string {
  return `${String(sequence).padStart(10, "0")} ${row.id} ${row.kind}\n`;
}

interface ReadCatalog {
  readonly size: number;
  readonly ino: number;
  readonly mtimeMs: number;
  readonly rows: Map<number, CatalogRow>;
  readonly lines: number;
}

/** Catalogs by file, for the whole process: each call makes its own `PointCatalog`. */
const catalogs = new Map<string, ReadCatalog>();
const MOST_CATALOGS = 32;

function isAsRead(known: ReadCatalog, file: string): boolean {
  const stat = lstatSync(file, { throwIfNoEntry: false });
  return stat?.size === known.size && stat.ino === known.ino && stat.mtimeMs === known.mtimeMs;
}

export class PointCatalog {
  readonly #file: string;
  #rows: Map<number, CatalogRow> | undefined;
  #lines = 0;
  #text: string | undefined;

  constructor(file: string) {
    this.#file = file;
  }

  /** All known rows by sequence number. The file is read once. */
  rows(): ReadonlyMap<number, CatalogRow> {
    return this.#load();
  }

  #load(): Map<number, CatalogRow> {
    if (this.#rows !== undefined) return this.#rows;
    const known = catalogs.get(this.#file);
    if (known !== undefined && isAsRead(known, this.#file)) {
      this.#lines = known.lines;
      return (this.#rows = known.rows);
    }
    const before = lstatSync(this.#file, { throwIfNoEntry: false });
    const rows = new Map<number, CatalogRow>();
    this.#rows = rows;
    const text = this.#read();
    for (let start = 0; start < text.length;) {
      const end = text.indexOf("\n", start);
      if (end === start + LINE_BYTES - 1) this.#take(rows, text, start);
      start = end < 0 ? text.length : end + 1;
    }
    if (before?.size === text.length) this.#keep(before);
    return rows;
  }

  /** Keeps the rows for later catalogs, which use them as long as the file has this size, inode and time. */
  #keep({ size, ino, mtimeMs }: { size: number; ino: number; mtimeMs: number }): void {
    if (catalogs.size >= MOST_CATALOGS) catalogs.clear();
    catalogs.set(this.#file, { size, ino, mtimeMs, rows: this.#rows!, lines: this.#lines });
  }

  /** Checks only the form of a line: readers compare its id with the descriptor. */
  #take(rows: Map<number, CatalogRow>, text: string, start: number): void {
    const sequence = Number(text.slice(start, start + 10));
    const kind = text[start + 44];
    if (!Number.isSafeInteger(sequence) || text[start + 10] !== " " || text[start + 43] !== " ") return;
    this.#lines++;
    if (kind === "x") rows.delete(sequence);
    else if (kind === "s" || kind === "n" || kind === "u")
      rows.set(sequence, { id: text.slice(start + 11, start + 43) as SavePointId, kind });
  }

  #read(): string {
    try {
      this.#text ??= readRegular(this.#file).toString("latin1");
    } catch {
      this.#text = "";
    }
    return this.#text;
  }

  /** Number of lines in the file: an upper limit of the known points. */
  get lines(): number {
    return Math.floor(this.#read().length / LINE_BYTES);
  }

  /** The number of a point, by a search in the text; undefined if only the rows can tell. */
  sequenceOf(id: SavePointId): number | undefined {
    const text = this.#read();
    const at = text.lastIndexOf(` ${id} `);
    const sequence = Number(text.slice(Math.max(0, at - 10), Math.max(0, at)));
    return this.#load().get(sequence)?.id === id ? sequence : undefined;
  }

  /** Ids that begin with one of `prefixes`, including ids of removed points; without decoding rows. */
  idsWith(prefixes: readonly string[]): SavePointId[] {
    const text = this.#read();
    const ids: string[] = [];
    if (prefixes.length > SEARCHES_BELOW) {
      const wanted = new Set(prefixes);
      const lengths = new Set(prefixes.map(({ length }) => length));
      for (let at = text.indexOf(" ") + 1; at > 0; at = text.indexOf(" ", at) + 1)
        for (const length of lengths) if (wanted.has(text.slice(at, at + length))) ids.push(text.slice(at, at + 32));
      return ids.filter(isSavePointId);
    }
    for (const prefix of prefixes) {
      for (let at = text.indexOf(` ${prefix}`); at >= 0; at = text.indexOf(` ${prefix}`, at + 1)) {
        ids.push(text.slice(at + 1, at + 33));
      }
    }
    return ids.filter(isSavePointId);
  }

  /** Drops the cached rows, so that the next call sees lines of other processes. */
  refresh(): void {
    this.#rows = undefined;
    this.#text = undefined;
    this.#lines = 0;
  }

  /** Adds rows. If the file cannot be written, they stay in memory only. */
  add(rows: ReadonlyMap<number, CatalogRow>): void {
    if (rows.size === 0) return;
    const known = this.#load();
    let text = "";
    for (const [sequence, row] of rows) {
      known.set(sequence, row);
      text += lineOf(sequence, row);
    }
    this.#lines += rows.size;
    this.#append(text);
  }

  /** Removes rows. Call this before the points are removed, so that a later point with the number is never taken for them. */
  forget(sequences: readonly number[]): void {
    const rows = this.#load();
    const known = sequences.filter((sequence) => rows.delete(sequence));
    if (known.length === 0) return;
    this.#lines += known.length;
    const text = known.map((sequence) => `${String(sequence).padStart(10, "0")} ${REMOVED}`).join("");
    if (!this.#append(text)) rmSync(this.#file, { force: true });
  }

  #append(text: string): boolean {
    try {
      const isKept = catalogs.get(this.#file)?.rows === this.#rows && isAsRead(catalogs.get(this.#file)!, this.#file);
      const size = lstatSync(this.#file, { throwIfNoEntry: false })?.size ?? 0;
      // A torn line at the end must not swallow the new one.
      this.#text = undefined;
      const { O_APPEND, O_CREAT, O_WRONLY } = constants;
      writeRegular(this.#file, size % LINE_BYTES === 0 ? text : `\n${text}`, O_WRONLY | O_APPEND | O_CREAT);
      const after = lstatSync(this.#file);
      // No other process has written in between.
      if (isKept && after.size === size + text.length) this.#keep(after);
      return true;
    } catch {
      // A cache that cannot be written is made again by the next process.
      return false;
    }
  }

  /** Rewrites the file without removed points if most lines are of such points. The caller holds the lock. */
  compact(present: ReadonlySet<number>): void {
    const rows = this.#load();
    if (this.#lines < COMPACT_FROM || this.#lines < 2 * present.size) return;
    let text = "";
    for (const [sequence, row] of rows) {
      if (present.has(sequence)) text += lineOf(sequence, row);
      else rows.delete(sequence);
    }
    const temporary = join(dirname(this.#file), temporaryName());
    try {
      writeFileSync(temporary, text, { mode: 0o600 });
      renameSync(temporary, this.#file);
      this.#lines = rows.size;
    } catch {
      rmSync(temporary, { force: true });
    }
  }
}

/** The sequence numbers in a folder of points. The folder is read again only if its modification time changed. */

interface Listing {
  readonly mtimeNs: bigint;
  readonly ino: bigint;
  readonly sequences: readonly number[];
}

/** Listings by directory, for the whole process: one command makes several `Points` of the same directory. */
const listings = new Map<string, Listing>();

// A change within one tick of the kernel's clock leaves the directory's time as it is.
const CLOCK_TICK_NS = 20_000_000n;
/** Largest difference between two times on a file system whose times have whole seconds, or two seconds as on FAT. */
const COARSE_TICK_NS = 2_100_000_000n;

function isCoarse(mtimeNs: bigint): boolean {
  return mtimeNs % 1_000_000_000n === 0n;
}

/** Doctor does not make an empty folder instead: all points would be gone, and the next cleanup would free their content. */
const LOST =
  "put the folder back from a copy of the control directory, or move it back if you moved it: until then the store keeps the content of the save points";

/** All sequence numbers that are taken, ascending. Throws `damaged` if only this folder is missing. */
export function listSequences(directory: string): readonly number[] {
  try {
    const { mtimeNs, ino } = statSync(directory, { bigint: true });
    const known = listings.get(directory);
    if (known?.mtimeNs === mtimeNs && known.ino === ino) return known.sequences;
    const sequences = sortedSequences(readdirSync(directory));
    const age = BigInt(Date.now()) * 1_000_000n - mtimeNs;
    if (age > (isCoarse(mtimeNs) ? COARSE_TICK_NS : CLOCK_TICK_NS))
      listings.set(directory, { mtimeNs, ino, sequences });
    else listings.delete(directory);
    return sequences;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const isLost = code === "ENOTDIR" || (code === "ENOENT" && existsSync(dirname(directory)));
    if (!isLost) throw toCairnError(error, `list ${directory}`);
    const what = code === "ENOENT" ? "is not there" : "is not a folder";
    throw new CairnError("damaged", `the save points' folder ${directory} ${what}`, { hint: LOST, cause: error });
  }
}

/** Makes the next call read the directory, whatever its time says. */
export function forgetListing(directory: string): void {
  listings.delete(directory);
}

/** Adds a claimed number to the listing. The lock's holder calls this, so that no other process adds one meanwhile. */
export function addToListing(directory: string, sequence: number): void {
  const known = listings.get(directory);
  const { mtimeNs, ino } = statSync(directory, { bigint: true });
  // With times in whole seconds, another process may change the directory within the same second.
  const fits = known?.ino === ino && !isCoarse(mtimeNs) && (known.sequences.at(-1) ?? 0) < sequence;
  if (fits) listings.set(directory, { mtimeNs, ino, sequences: [...known.sequences, sequence] });
  else listings.delete(directory);
}

function sortedSequences(names: readonly string[]): number[] {
  const sequences = new Float64Array(names.length);
  let count = 0;
  for (const name of names) {
    const sequence = sequenceOfName(name);
    if (sequence > 0) sequences[count++] = sequence;
  }
  return Array.from(sequences.subarray(0, count).sort());
}
