import { closeSync, constants, mkdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import { durableWrite, temporaryName, writeAll } from "../../fs/durable.ts";
import { openRegular, readRegular, writeRegular } from "../../fs/regular-file.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { failpoint } from "../../failpoint.ts";
import { isEvent } from "./agent-events.ts";
import type { Point } from "./point-files.ts";

/**
 * A cache of the texts that filters of the history compare, so that a filter reads the descriptors of fitting points
 * only. A file has the points of 1024 sequence numbers.
 * - A reader appends the rows of points that it had to read, except of marked points.
 * - A writer that changes or removes a point first replaces the file: the new one has a mark instead of the point's text.
 */

const PER_FILE = 1024;
/** Longer rows are not kept: each filter reads these points. */
const MOST_ROW_BYTES = 16 << 10;
const MOST_FILE_BYTES = 2 * PER_FILE * MOST_ROW_BYTES;
/** Appended rows follow a head: this, CRC-32 and number of their bytes. */
export const TEXTS_HEAD = "cairn-texts 1 ";
const HEAD_BYTES = TEXTS_HEAD.length + 8 + 1 + 10 + 1;

/** The texts of a point that filters of the history compare. */
export interface TextRow {
  /** {@link folded} message, tags and cause; a tag is between two of {@link BREAK} */
  readonly text: string;
  /** Returns ms since 1970. */
  time(): number;
}

/** Stands for a line break: a row is one line. */
export const BREAK = "\u001f";

/** Folds a text for a search that ignores case. The result has a character for each byte of UTF-8. */
export function folded(text: string): string {
  return Buffer.from(text.toLowerCase().replaceAll("\n", BREAK)).toString("latin1");
}

/** The number of the file that has a point's row. */
export function textFileOf(sequence: number): number {
  return Math.floor(sequence / PER_FILE);
}

const digits = (number: number, width: number): string => String(number).padStart(width, "0");

/** A row is `SEQUENCE ID TIME TEXT`, that of a marked point `SEQUENCE`. */
const [ID_AT, TIME_AT, TEXT_AT] = [11, 44, 60];

/** Returns rows of a file with their head. */
function blockOf(rows: string): Buffer {
  const bytes = Buffer.from(rows, "latin1");
  const sum = crc32(bytes).toString(16).padStart(8, "0");
  return Buffer.concat([Buffer.from(`${TEXTS_HEAD}${sum} ${digits(bytes.length, 10)}\n`), bytes]);
}

/** The newest rows of a file: where each begins and ends in the file's text. */
class Rows {
  readonly #all: string;
  readonly #starts = new Uint32Array(PER_FILE);
  readonly #ends = new Uint32Array(PER_FILE);

  /** Skips blocks that are damaged, or that another version of Cairn wrote. */
  constructor(bytes: Buffer) {
    this.#all = bytes.toString("latin1");
    for (let at = 0; at >= 0; at = this.#all.indexOf(`\n${TEXTS_HEAD}`, at) + 1 || -1) {
      const [sum, length] = this.#all.slice(at + TEXTS_HEAD.length, at + HEAD_BYTES - 1).split(" ");
      const from = at + HEAD_BYTES;
      const to = from + Number(length);
      const isWhole = to <= bytes.length && crc32(bytes.subarray(from, to)) === Number.parseInt(sum!, 16);
      if (isWhole && this.#all.startsWith(TEXTS_HEAD, at)) this.#take(from, to);
    }
  }

  #take(from: number, to: number): void {
    for (let start = from, end = from; start < to; start = end + 1) {
      end = this.#all.indexOf("\n", start);
      const at = Number(this.#all.slice(start, start + 10)) % PER_FILE;
      this.#starts[at] = start;
      this.#ends[at] = end;
    }
  }

  /** The row of a point; undefined if there is none with this id. */
  get(sequence: number, id: string | null): TextRow | undefined {
    const at = sequence % PER_FILE;
    const [start, end] = [this.#starts[at]!, this.#ends[at]!];
    if (id === null || !this.hasText(sequence) || !this.#all.startsWith(id, start + ID_AT)) return undefined;
    const all = this.#all;
    const textAt = start + TEXT_AT;
    return { text: all.slice(textAt, end), time: () => Number(all.slice(start + TIME_AT, textAt)) };
  }

  /** The length of a point's row; 0 without a row. */
  #length(sequence: number): number {
    return this.#ends[sequence % PER_FILE]! - this.#starts[sequence % PER_FILE]!;
  }

  isMarked(sequence: number): boolean {
    return this.#length(sequence) === ID_AT - 1;
  }

  hasText(sequence: number): boolean {
    return this.#length(sequence) >= TEXT_AT;
  }

  /** Returns the rows that have a text, except those of `sequences`. */
  without(sequences: readonly number[]): string {
    const leaving = new Set(sequences.map((sequence) => sequence % PER_FILE));
    return Array.from(this.#starts, (start, at) =>
      leaving.has(at) || !this.hasText(at) ? "" : this.#all.slice(start, this.#ends[at]! + 1),
    ).join("");
  }
}

/** One file, open for a reader, which appends the added rows at the end. Errors are ignored: the points are read. */
class TextFile implements Disposable {
  #descriptor: number | null = null;
  readonly #rows: Rows;
  /** True if a kill cut the last row off. */
  readonly #isCut: boolean;
  /** False for a file that is too long. */
  readonly #isReadable: boolean;
  #added = "";

  constructor(path: string) {
    try {
      mkdirSync(dirname(path), { mode: 0o700, recursive: true });
      const { O_WRONLY, O_APPEND, O_CREAT } = constants;
      this.#descriptor = openRegular(path, { flags: O_WRONLY | O_APPEND | O_CREAT });
    } catch {
      // The user may only read the file.
    }
    const bytes = readOrNothing(path);
    this.#rows = new Rows(bytes ?? Buffer.alloc(0));
    this.#isCut = bytes !== null && bytes.length > 0 && bytes.at(-1) !== 0x0a;
    this.#isReadable = bytes !== null;
  }

  get(sequence: number, id: string | null): TextRow | undefined {
    return this.#rows.get(sequence, id);
  }

  /** Adds a point that was read. */
  add({ sequence, descriptor, tags }: Point): TextRow {
    const { save_point_id: id, created_at, message, cause } = descriptor;
    const text = folded([message, ...tags, JSON.stringify(cause)].join("\n"));
    const time = Date.parse(created_at);
    // A cause of an earlier build may have a prompt or command, of which no copy is made.
    const isTyped = isEvent(cause) && ("prompt" in cause || "command" in cause);
    const line = `${digits(sequence, 10)} ${id} ${digits(time, 15)} ${text}\n`;
    const isKept = time >= 0 && line.length <= MOST_ROW_BYTES && !isTyped && !this.#rows.isMarked(sequence);
    if (isKept) this.#added += line;
    return { text, time: () => time };
  }

  [Symbol.dispose](): void {
    if (this.#descriptor === null) return;
    try {
      if (this.#added === "" || !this.#isReadable) return;
      // If a writer replaced the file meanwhile, the rows go with the old one.
      writeAll(this.#descriptor, Buffer.concat([Buffer.from(this.#isCut ? "\n" : ""), blockOf(this.#added)]));
    } catch {
      // The next reader adds the rows.
    } finally {
      closeSync(this.#descriptor);
    }
  }
}

/** Null for a file that cannot be read, or is too long. */
function readOrNothing(path: string): Buffer | null {
  try {
    return readRegular(path, { limit: MOST_FILE_BYTES });
  } catch {
    return null;
  }
}

export class PointTexts {
  readonly #directory: string;
  readonly #staging: string;

  /** `staging`: a folder of the same file system whose leftovers the next writer removes */
  constructor(directory: string, staging: string) {
    this.#directory = directory;
    this.#staging = staging;
  }

  #path(file: number): string {
    return join(this.#directory, String(file).padStart(6, "0"));
  }

  open(file: number): TextFile {
    return new TextFile(this.#path(file));
  }

  /** Removes the rows of points durably while `change` changes or removes the points. The caller holds the workspace's lock. */
  without<T>(sequences: readonly number[], change: () => T): T {
    const files = Map.groupBy(sequences, textFileOf);
    for (const [file, own] of files) this.#withdraw(file, own);
    failpoint("texts.withdrawn");
    const result = change();
    // No other writer is under way: all other marks in these files are of killed writers.
    for (const file of files.keys()) this.#withdraw(file, []);
    return result;
  }

  #withdraw(file: number, sequences: readonly number[]): void {
    const path = this.#path(file);
    const rows = new Rows(readOrNothing(path) ?? Buffer.alloc(0));
    const hadText = sequences.some((sequence) => rows.hasText(sequence));
    const text = rows.without(sequences) + sequences.map((sequence) => `${digits(sequence, 10)}\n`).join("");
    try {
      if (text === "") rmSync(path, { force: true });
      else this.#replace(path, blockOf(text), hadText);
    } catch {
      removeAll(this.#directory);
    }
  }

  #replace(path: string, bytes: Uint8Array, isDurable: boolean): void {
    mkdirSync(this.#directory, { mode: 0o700, recursive: true });
    if (isDurable) return void durableWrite(path, bytes, { stagedIn: this.#staging });
    const temporary = join(this.#staging, temporaryName());
    writeRegular(temporary, bytes);
    renameSync(temporary, path);
  }
}
