import { createRequire } from "node:module";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { advice, CairnError, line, word } from "../errors.ts";

/** A level of an entry as the index knows it. */
export interface IndexRow {
  id: number;
  /** Path of the file or directory, without `viking://`. */
  path: string;
  /** 0 and 1: a directory's abstract and overview; 2: a file. */
  level: number;
  isDirectory: boolean;
  type: string | null;
  contextType: string;
  name: string;
  description: string | null;
  tags: string | null;
  abstract: string;
  /** True if the abstract came with the entry; else it is taken from the file. */
  isOwnAbstract: boolean;
  /** A directory's text that came without its file. */
  text: string | null;
  /** Size and time of the file when it was read, which show a later change; null before the first read. */
  source: string | null;
  /** Digest of the content read; null before the first read. */
  digest: string | null;
  createdAt: string;
  updatedAt: string;
  activeCount: number;
  hasVector: boolean;
}

/** A row before its file is read; words and vector follow. */
export type NewRow = Pick<IndexRow, "path" | "level" | "isDirectory" | "contextType" | "name"> &
  Partial<Pick<IndexRow, "type" | "description" | "tags" | "abstract" | "text">>;

/** Words of a file for the word index. */
export interface ReadRow {
  id: number;
  abstract: string;
  isOwnAbstract: boolean;
  /** UTF-8. */
  words: Buffer;
  source: string;
  digest: string;
}

export interface Hit {
  id: number;
  /** Rank of words: lower is better; of vectors: cosine similarity. */
  score: number;
}

const VERSION = 2;
const BUSY_MS = 10_000;
/** Rows that are read at once. */
const PAGE = 500;

/** A run of letters of scripts that have no spaces between words, or whose words have endings. */
const RUN = /[[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Hangul}]&&[\p{L}\p{N}]]+/gv;

/**
 * Splits runs of Chinese, Japanese and Korean letters into pairs, because FTS5 takes a run as one word: `数据库` becomes
 * `数据 据库`, and in the index also `库`, so that each letter begins a word.
 */
export function inPairs(text: string, isQuery: boolean): string {
  return text.replace(RUN, (run) => {
    const letters = Array.from(run);
    const pairs = letters.map((letter, i) => letter + (letters[i + 1] ?? ""));
    return ` ${(isQuery && pairs.length > 1 ? pairs.slice(0, -1) : pairs).join(" ")} `;
  });
}

/** The index of a context store: records, their words (FTS5) and their vectors (sqlite-vec). */
export class ContextIndex implements Disposable {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, ReturnType<DatabaseSync["prepare"]>>();
  /** Length of a vector; null if the index has none. */
  readonly dimensions: number | null;

  private constructor(db: DatabaseSync, dimensions: number | null) {
    this.#db = db;
    this.dimensions = dimensions;
  }

  /** Opens the database, or creates it. Throws `newer_version`, `damaged`, `unsupported` if this machine cannot use vectors. */
  static open(path: string, dimensions: number | null): ContextIndex {
    const db = new DatabaseSync(path, { allowExtension: dimensions !== null, timeout: BUSY_MS });
    try {
      if (dimensions !== null) loadVectors(db);
      db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
      const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
      if (version > VERSION)
        throw new CairnError("newer_version", `${path} is of a newer version`, {
          hint: "a newer Cairn has worked here: use it from now on",
        });
      if (version === 0) db.exec(schema(dimensions));
      if (version === 1) db.exec(WORDS_AGAIN);
      return new ContextIndex(db, dimensions);
    } catch (error) {
      db.close();
      throw toDamage(error, path);
    }
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }

  /** Runs `work` in one transaction: all of its changes, or none. */
  transaction<T>(work: () => T): T {
    try {
      this.#db.exec("BEGIN IMMEDIATE");
      const result = work();
      this.#db.exec("COMMIT");
      return result;
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      throw toFailure(error);
    }
  }

  /** 1 in a store without vectors, whose rows would otherwise all count as unfinished for ever. */
  get #withoutVector(): number {
    return this.dimensions === null ? 1 : 0;
  }

  /** Replaces the row of a path and level, with its words and vector. */
  put(row: NewRow, now: string): number {
    const old = this.#get("SELECT id, created_at FROM records WHERE path = ? AND level = ?", row.path, row.level);
    if (old !== undefined) this.#forget([old["id"] as number]);
    const { lastInsertRowid } = this.#run(
      `INSERT INTO records (path, level, is_directory, type, context_type, name, description, tags, abstract, own_abstract, text, created_at, updated_at, has_vector)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      row.path,
      row.level,
      row.isDirectory ? 1 : 0,
      row.type ?? null,
      row.contextType,
      row.name,
      row.description ?? null,
      row.tags ?? null,
      row.abstract ?? "",
      row.abstract === undefined || row.abstract === "" ? 0 : 1,
      row.text ?? null,
      (old?.["created_at"] as string | undefined) ?? now,
      now,
      this.#withoutVector,
    );
    return Number(lastInsertRowid);
  }

  /** Adds the words of a row whose file was read; does nothing if the row is gone. */
  setWords({ id, abstract, isOwnAbstract, words, source, digest }: ReadRow): void {
    const row = this.#get("SELECT name, tags FROM records WHERE id = ?", id) as
      | { name: string; tags: string | null }
      | undefined;
    if (row === undefined) return;
    // A vector of other content is made again.
    const sql = `UPDATE records SET abstract = ?, own_abstract = ?, source = ?, digest = ?,
      has_vector = iif(digest IS NULL OR digest = ?, has_vector, ?) WHERE id = ?`;
    this.#run(sql, abstract, isOwnAbstract ? 1 : 0, source, digest, digest, this.#withoutVector, id);
    this.#run("DELETE FROM words WHERE rowid = ?", id);
    const texts = [`${row.name} ${row.tags ?? ""}`, abstract, words.toString()].map((text) => inPairs(text, false));
    this.#run("INSERT INTO words (rowid, name, abstract, body) VALUES (?, ?, ?, ?)", id, ...texts);
  }

  /** Does nothing if the row is gone. */
  setVector(id: number, vector: Float32Array): void {
    if (this.#get("SELECT 1 FROM records WHERE id = ?", id) === undefined) return;
    this.#run("DELETE FROM vectors WHERE rowid = ?", BigInt(id));
    this.#run("INSERT INTO vectors (rowid, embedding) VALUES (?, ?)", BigInt(id), bytesOf(vector));
    this.#run("UPDATE records SET has_vector = 1 WHERE id = ?", id);
  }

  /** Removes a place, and everything below it, from the index. */
  removeWithin(path: string): number {
    const ids = this.#all(`SELECT id FROM records WHERE ${WITHIN}`, ...within(path)).map(({ id }) => id as number);
    this.#forget(ids);
    return ids.length;
  }

  /** Removes one level of a place. */
  removeLevel(path: string, level: number): void {
    const found = this.#get("SELECT id FROM records WHERE path = ? AND level = ?", path, level);
    if (found !== undefined) this.#forget([found["id"] as number]);
  }

  remove(ids: readonly number[]): void {
    this.#forget(ids);
  }

  #forget(ids: readonly number[]): void {
    for (const id of ids) {
      this.#run("DELETE FROM words WHERE rowid = ?", id);
      if (this.dimensions !== null) this.#run("DELETE FROM vectors WHERE rowid = ?", BigInt(id));
      this.#run("DELETE FROM records WHERE id = ?", id);
    }
  }

  /** Marks the file behind a row to be read again. */
  markStale(id: number): void {
    this.#run("UPDATE records SET source = NULL, has_vector = ? WHERE id = ?", this.#withoutVector, id);
  }

  /** Rows of a place and everything below it, by path and level; a page at a time, so that no query stays open in between. */
  *rows(path: string): Generator<IndexRow> {
    const [, first, end] = within(path);
    // One range by path and level: with alternative ranges SQLite sorts all rows for each page.
    const sql = `SELECT * FROM records WHERE (path, level) > (?, ?) AND path < ? AND (+path = ? OR +path >= ?)
      ORDER BY path, level LIMIT ${PAGE}`;
    let last: [string, number] = [path, -1];
    for (;;) {
      const page = this.#all(sql, ...last, end, path, first).map(rowOf);
      yield* page;
      const newest = page.at(-1);
      if (newest === undefined || page.length < PAGE) return;
      last = [newest.path, newest.level];
    }
  }

  row(id: number): IndexRow | null {
    const found = this.#get("SELECT * FROM records WHERE id = ?", id);
    return found === undefined ? null : rowOf(found);
  }

  /** Rows whose file was not read yet, with `any` also rows without a vector; oldest first. */
  pending(limit: number, lacking: "words" | "any" = "any"): IndexRow[] {
    const isVector = lacking === "any" && this.dimensions !== null;
    const lacks = isVector ? "source IS NULL OR has_vector = 0" : "source IS NULL";
    return this.#all(`SELECT * FROM records WHERE ${lacks} ORDER BY id LIMIT ?`, limit).map(rowOf);
  }

  vector(id: number): Float32Array | null {
    const found = this.#get("SELECT embedding FROM vectors WHERE rowid = ?", BigInt(id));
    if (found === undefined) return null;
    const bytes = Uint8Array.from(found["embedding"] as Uint8Array);
    return new Float32Array(bytes.buffer);
  }

  /** Counts a use of rows that a search found. */
  countUse(ids: readonly number[]): void {
    const sql = "UPDATE records SET active_count = active_count + 1 WHERE id IN (SELECT value FROM json_each(?))";
    this.#run(sql, JSON.stringify(ids));
  }

  /** Rows that contain some of the words, best first. */
  searchWords(words: readonly string[], path: string, limit: number): Hit[] {
    if (words.length === 0) return [];
    const match = words
      .slice(0, 64)
      .map((word) => `"${word}"${Array.from(word).length === 1 && word.replace(RUN, "") === "" ? "*" : ""}`)
      .join(" OR ");
    // The plus keeps SQLite from running the full-text query once for each record below the path.
    const below = path === "" ? "" : `AND +rowid IN (SELECT id FROM records WHERE ${WITHIN})`;
    const sql = `SELECT rowid AS id, bm25(words, 4.0, 2.0, 1.0) AS score FROM words WHERE words MATCH ? ${below}
      ORDER BY score LIMIT ?`;
    return this.#all(sql, match, ...(path === "" ? [] : within(path)), limit) as unknown as Hit[];
  }

  /** Rows with the nearest vectors, best first. */
  searchVectors(vector: Float32Array, path: string, limit: number): Hit[] {
    const where = path === "" ? "" : `AND rowid IN (SELECT id FROM records WHERE ${WITHIN})`;
    const sql = `SELECT rowid AS id, 1 - distance AS score FROM vectors WHERE embedding MATCH ? AND k = ? ${where} ORDER BY distance`;
    return this.#all(sql, bytesOf(vector), limit, ...(path === "" ? [] : within(path))) as unknown as Hit[];
  }

  #statement(sql: string): ReturnType<DatabaseSync["prepare"]> {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const made = this.#db.prepare(sql);
    this.#statements.set(sql, made);
    return made;
  }

  #run(sql: string, ...values: SQLInputValue[]): { lastInsertRowid: number | bigint } {
    return this.#statement(sql).run(...values);
  }

  #get(sql: string, ...values: SQLInputValue[]): Record<string, unknown> | undefined {
    return this.#statement(sql).get(...values);
  }

  #all(sql: string, ...values: SQLInputValue[]): Record<string, unknown>[] {
    return this.#statement(sql).all(...values);
  }
}

/** A place and everything below it: such names sort right behind `PATH/`, up to the character after the slash. */
const WITHIN = "(path = ? OR (path >= ? AND path < ?))";

function within(path: string): [string, string, string] {
  return path === "" ? ["", "", "\u{10ffff}"] : [path, `${path}/`, `${path}0`];
}

/** Version 1 had runs of Chinese letters as one word: all files are read again, and keep their vectors. */
const WORDS_AGAIN = `BEGIN IMMEDIATE;
  INSERT INTO words (words) VALUES ('delete-all');
  UPDATE records SET source = NULL;
  PRAGMA user_version = ${VERSION};
  COMMIT;`;

function schema(dimensions: number | null): string {
  const vectors =
    dimensions === null
      ? ""
      : `CREATE VIRTUAL TABLE vectors USING vec0(embedding float[${dimensions}] distance_metric=cosine);`;
  return `BEGIN IMMEDIATE;
    CREATE TABLE records (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      path TEXT NOT NULL,
      level INTEGER NOT NULL,
      is_directory INTEGER NOT NULL,
      type TEXT,
      context_type TEXT NOT NULL,
      name TEXT NOT NULL,
      description TEXT,
      tags TEXT,
      abstract TEXT NOT NULL,
      own_abstract INTEGER NOT NULL DEFAULT 0,
      text TEXT,
      source TEXT,
      digest TEXT,
      created_at TEXT NOT NULL,
      updated_at TEXT NOT NULL,
      active_count INTEGER NOT NULL DEFAULT 0,
      has_vector INTEGER NOT NULL DEFAULT 0,
      UNIQUE (path, level)
    );
    CREATE INDEX unfinished ON records (id) WHERE source IS NULL OR has_vector = 0;
    CREATE VIRTUAL TABLE words USING fts5(name, abstract, body, content = '', contentless_delete = 1, tokenize = 'porter unicode61');
    ${vectors}
    PRAGMA user_version = ${VERSION};
    COMMIT;`;
}

function rowOf(row: Record<string, unknown>): IndexRow {
  return {
    id: row["id"] as number,
    path: row["path"] as string,
    level: row["level"] as number,
    isDirectory: row["is_directory"] === 1,
    type: row["type"] as string | null,
    contextType: row["context_type"] as string,
    name: row["name"] as string,
    description: row["description"] as string | null,
    tags: row["tags"] as string | null,
    abstract: row["abstract"] as string,
    isOwnAbstract: row["own_abstract"] === 1,
    text: row["text"] as string | null,
    source: row["source"] as string | null,
    digest: row["digest"] as string | null,
    createdAt: row["created_at"] as string,
    updatedAt: row["updated_at"] as string,
    activeCount: row["active_count"] as number,
    hasVector: row["has_vector"] === 1,
  };
}

function bytesOf(vector: Float32Array): Uint8Array {
  return new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
}

function loadVectors(db: DatabaseSync): void {
  try {
    // Loaded only if there are vectors; the package has a library for each supported platform.
    const { load } = createRequire(import.meta.url)("sqlite-vec") as { load: (db: DatabaseSync) => void };
    load(db);
  } catch (error) {
    throw new CairnError("unsupported", "this machine cannot use vectors: sqlite-vec could not be loaded", {
      hint: advice`make a store without vectors, which is searched by words: ${line("context init --embedding none", "initContext", word("folder"), { embedding: "none" })}`,
      cause: error,
    });
  }
}

/** Translates a failure of SQLite by its code; a failure that may be retried gets its own code. */
function toFailure(error: unknown): unknown {
  const { errcode, message } = error as { errcode?: number; message: string };
  if (errcode === undefined) return error;
  const code = FAILURES[errcode & 0xff];
  return code === undefined ? error : new CairnError(code, `the index: ${message}`, { cause: error });
}

const FAILURES: Readonly<Record<number, "busy" | "no_space" | "io">> = {
  5: "busy",
  6: "busy",
  10: "io",
  13: "no_space",
};
const DAMAGED = new Set([11, 26]);

function toDamage(error: unknown, path: string): unknown {
  const { errcode } = error as { errcode?: number };
  if (errcode === undefined || !DAMAGED.has(errcode & 0xff)) return error;
  return new CairnError("damaged", `${path} is a damaged index: ${(error as Error).message}`, {
    hint: advice`move the file away and make a new index: ${line("context reindex", "reindexContext", word("store"))}`,
    cause: error,
  });
}
