import { closeSync, constants, existsSync, fstatSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import { durableWrite, temporaryName, writeAll } from "../../fs/durable.ts";
import { openRegular, readRegular, writeRegular } from "../../fs/regular-file.ts";
import { failpoint } from "../../failpoint.ts";
import { isEvent } from "./agent-events.ts";
import type { Point } from "./point-files.ts";

/**
 * A cache of the texts that filters of the history compare, so that a filter reads the descriptors of fitting points only.
 * A file has the points of 1024 sequence numbers, a line each; later lines replace earlier ones. Readers add points that they
 * had to read. A writer that changes or removes a point replaces the file first, by one without the point's text and with a
 * mark. Readers add nothing to a replaced file, and no text of a marked point.
 */

const PER_FILE = 1024;
/** Longer rows are not kept: readers ask the point. */
const MOST_ROW_BYTES = 16 << 10;
const MOST_FILE_BYTES = 2 * PER_FILE * MOST_ROW_BYTES;

/** Texts of a point as UTF-8, a byte per character. */
export interface TextRow {
  readonly id: string;
  /** ms since 1970 */
  readonly time: number;
  /** JSON */
  readonly tags: string;
  /** {@link folded} message, tags and cause */
  readonly text: string;
}

/** Folds a text for a search that ignores case. A row is one line, so line breaks become U+001F. */
export function folded(text: string): string {
  return bytesOf(text.toLowerCase().replaceAll("\n", "\u001f"));
}

export function hasTag({ tags }: TextRow, tag: string): boolean {
  // A comma before a quote always ends a member: inside of one, JSON has a backslash before the quote.
  return `,${tags.slice(1, -1)},`.includes(`,${bytesOf(JSON.stringify(tag))},`);
}

export function textRow({ descriptor, tags }: Point): TextRow {
  const { save_point_id: id, created_at, message, cause } = descriptor;
  const text = folded([message, ...tags, JSON.stringify(cause)].join("\n"));
  return { id, time: Date.parse(created_at), tags: bytesOf(JSON.stringify(tags)), text };
}

function bytesOf(text: string): string {
  return Buffer.from(text).toString("latin1");
}

/** The number of the file that has a point's row. */
export function textFileOf(sequence: number): number {
  return Math.floor(sequence / PER_FILE);
}

type Rows = Map<number, TextRow | "withdrawn">;

function lineOf(sequence: number, row: TextRow | "withdrawn"): string {
  const text = row === "withdrawn" ? "-" : `${row.id} ${row.time}\t${row.tags}\t${row.text}`;
  const checked = `${String(sequence).padStart(10, "0")} ${text}`;
  return `${sumOf(Buffer.from(checked, "latin1"))} ${checked}\n`;
}

function sumOf(bytes: Uint8Array): string {
  return crc32(bytes).toString(16).padStart(8, "0");
}

/** Decodes a file; skips damaged lines and those of other versions. */
function decode(bytes: Buffer): Rows {
  const rows: Rows = new Map();
  const all = bytes.toString("latin1");
  for (let start = 0, end = 0; start < all.length; start = end + 1) {
    end = all.indexOf("\n", start);
    if (end < 0) break;
    if (all.slice(start, start + 8) !== sumOf(bytes.subarray(start + 9, end))) continue;
    const sequence = Number(all.slice(start + 9, start + 19));
    if (end === start + 21) rows.set(sequence, "withdrawn");
    const [tagsAt, textAt] = [all.indexOf("\t", start) + 1, all.indexOf("\t", all.indexOf("\t", start) + 1) + 1];
    if (end > start + 21)
      rows.set(sequence, {
        id: all.slice(start + 20, start + 52),
        time: Number(all.slice(start + 53, tagsAt - 1)),
        tags: all.slice(tagsAt, textAt - 1),
        text: all.slice(textAt, end),
      });
  }
  return rows;
}

/** The rows of one file, and those that its reader adds. Nothing fails: without the file each point is read. */
export class TextFile implements Disposable {
  readonly #path: string;
  #descriptor: number | null = null;
  #rows: Rows = new Map();
  #added = "";

  constructor(path: string) {
    this.#path = path;
    try {
      mkdirSync(dirname(path), { mode: 0o700, recursive: true });
      const { O_RDWR, O_APPEND, O_CREAT } = constants;
      this.#descriptor = openRegular(path, { flags: O_RDWR | O_APPEND | O_CREAT });
      if (fstatSync(this.#descriptor).size > MOST_FILE_BYTES) return;
      this.#take(readFileSync(this.#descriptor));
    } catch {
      // Somebody who may only read.
      if (existsSync(path)) this.#take(readOrNothing(path));
    }
  }

  #take(bytes: Buffer): void {
    this.#rows = decode(bytes);
    // A line that a kill cut off must not swallow the next one.
    if (bytes.length > 0 && bytes.at(-1) !== 0x0a) this.#added = "\n";
  }

  get(sequence: number): TextRow | undefined {
    const row = this.#rows.get(sequence);
    return row === "withdrawn" ? undefined : row;
  }

  /** Adds a point that was read. */
  add(point: Point): TextRow {
    const row = textRow(point);
    const { cause } = point.descriptor;
    // Points of earlier builds: what an agent typed is kept sealed only.
    const isTyped = isEvent(cause) && ("prompt" in cause || "command" in cause);
    const line = lineOf(point.sequence, row);
    if (this.#rows.get(point.sequence) !== "withdrawn" && !isTyped && line.length <= MOST_ROW_BYTES) this.#added += line;
    return row;
  }

  [Symbol.dispose](): void {
    if (this.#descriptor === null) return;
    try {
      if (this.#added.length > 1 && fstatSync(this.#descriptor).ino === lstatSync(this.#path).ino)
        writeAll(this.#descriptor, Buffer.from(this.#added, "latin1"));
    } catch {
      // The next reader adds the rows.
    } finally {
      closeSync(this.#descriptor);
    }
  }
}

function readOrNothing(path: string): Buffer {
  try {
    return readRegular(path, { limit: MOST_FILE_BYTES });
  } catch {
    return Buffer.alloc(0);
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
    // No other writer is under way, so marks in these files are of killed ones.
    for (const file of files.keys()) this.#withdraw(file, []);
    return result;
  }

  #withdraw(file: number, sequences: readonly number[]): void {
    const path = this.#path(file);
    const rows = decode(readOrNothing(path));
    const hadText = sequences.some((sequence) => typeof rows.get(sequence) === "object");
    for (const [sequence, row] of rows) if (row === "withdrawn") rows.delete(sequence);
    for (const sequence of sequences) rows.set(sequence, "withdrawn");
    const text = Array.from(rows, ([sequence, row]) => lineOf(sequence, row)).join("");
    try {
      if (text === "") rmSync(path, { force: true });
      else this.#replace(path, Buffer.from(text, "latin1"), hadText);
    } catch {
      rmSync(path, { force: true });
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
