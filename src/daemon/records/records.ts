import { chmodSync, lstatSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { CairnError, toCairnError } from "../../errors.ts";
import { fsyncDirectory } from "../../fs/durable.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";

/** The layout is in docs/formats/records.md. */
const NAME = "records.db";
const VERSION = 1;
const SCHEMA = `
CREATE TABLE events (
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, type TEXT NOT NULL,
  workspace TEXT, path BLOB, owner INTEGER, uid INTEGER, data TEXT NOT NULL
) STRICT;
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, uid INTEGER NOT NULL, owner TEXT NOT NULL, verb TEXT NOT NULL,
  path TEXT, key TEXT, request TEXT, since INTEGER NOT NULL, state TEXT NOT NULL,
  created INTEGER NOT NULL, started INTEGER, ended INTEGER,
  answer TEXT, error TEXT, warnings TEXT, bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, key) WHERE key IS NOT NULL;
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
PRAGMA user_version = ${VERSION};
`;

export type Row = Record<string, string | number | Uint8Array | null>;

/** The daemon's database of events and jobs. No other process opens it meanwhile. */
export class Records {
  readonly path: string;
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  private constructor(path: string, db: DatabaseSync) {
    this.path = path;
    this.#db = db;
  }

  /**
   * Opens the database in the state directory, or makes it. Renames a damaged database and tells `log` so. Throws
   * `newer_version`, `no_space` and other system errors.
   */
  static open(directory: string, log: (message: string) => void): Records {
    const path = join(directory, NAME);
    try {
      return Records.#open(path);
    } catch (error) {
      const failed = failureOf(error);
      if (failed.code !== "damaged") throw failed;
      const aside = `${path}.damaged-${new Date().toISOString().replaceAll(/[:.]/g, "-")}`;
      for (const end of ["", "-wal", "-journal"])
        if (lstatSync(path + end, { throwIfNoEntry: false }) !== undefined) renameSync(path + end, aside + end);
      fsyncDirectory(directory);
      log(
        `${printablePath(path)} cannot be read (${failed.message}) and was moved to ${printablePath(aside)}: earlier events and jobs are lost`,
      );
      return Records.#open(path);
    }
  }

  /** Makes a database that ends with this process. */
  static inMemory(): Records {
    const db = new DatabaseSync(":memory:");
    db.exec(SCHEMA);
    return new Records("", db);
  }

  static #open(path: string): Records {
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found === undefined) writeFileSync(path, "", { flag: "wx", mode: 0o600 });
    else if (!found.isFile()) throw new CairnError("damaged", "it is not a regular file");
    chmodSync(path, 0o600);
    const db = new DatabaseSync(path, { timeout: 0, defensive: true });
    try {
      db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
      const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
      if (version > VERSION)
        throw new CairnError(
          "newer_version",
          `${printablePath(path)} is of version ${version}, but this Cairn reads up to ${VERSION}`,
          {
            hint: "start the newer Cairn that wrote the file; it was left as it is",
          },
        );
      if (version === 0) db.exec(`BEGIN; ${SCHEMA} COMMIT`);
      const [problem] = Object.values(db.prepare("PRAGMA quick_check(1)").get()!);
      if (problem !== "ok") throw new CairnError("damaged", String(problem).replaceAll(/\s+/g, " "));
      return new Records(path, db);
    } catch (error) {
      db.close();
      throw error;
    }
  }

  close(): void {
    this.#db.close();
  }

  #prepared(sql: string): StatementSync {
    let known = this.#statements.get(sql);
    if (known === undefined) this.#statements.set(sql, (known = this.#db.prepare(sql)));
    return known;
  }

  get(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#reading(() => this.#prepared(sql).get(...values) as Row | undefined);
  }

  all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#reading(() => this.#prepared(sql).all(...values) as Row[]);
  }

  #reading<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw failureOf(error);
    }
  }

  run(sql: string, values: readonly SQLInputValue[]): void {
    this.#prepared(sql).run(...values);
  }

  /**
   * Runs `work` in one transaction. `durable`: the change survives a power cut once this returns; else only a kill.
   * Throws `no_space`, `damaged`, `io`.
   */
  write(work: () => void, { durable = false }: { durable?: boolean } = {}): void {
    try {
      if (durable) this.#db.exec("PRAGMA synchronous = FULL");
      this.#db.exec("BEGIN IMMEDIATE");
      work();
      this.#db.exec("COMMIT");
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      throw failureOf(error);
    } finally {
      if (durable) this.#db.exec("PRAGMA synchronous = NORMAL");
    }
  }
}

/** SQLite's primary result codes. */
const FAILURES: Readonly<Record<number, "io" | "no_space" | "damaged" | "permission" | "busy">> = {
  5: "busy",
  8: "permission",
  10: "io",
  11: "damaged",
  13: "no_space",
  14: "io",
  26: "damaged",
};

function failureOf(error: unknown): CairnError {
  const { errcode, message } = error as { errcode?: number; message: string };
  const code = errcode === undefined ? undefined : FAILURES[errcode & 0xff];
  if (code === undefined) return toCairnError(error);
  return new CairnError(code, `the daemon's records: ${message}`, { cause: error });
}
