/**
 * Another program that writes to a database: each commit changes one row in each of two tables to its own number, so that
 * the number of commits tells all that the database holds. Test only.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { DatabaseSync } from "node:sqlite";
import type { TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const ROWS = 40;
const PADDING = 500;

export type JournalMode = "wal" | "delete";

/** Makes the database as it is after no commit. */
export function makeDatabase(file: string, mode: JournalMode, pageSize = 4096): void {
  const database = new DatabaseSync(file);
  database.exec(`PRAGMA page_size = ${pageSize}; PRAGMA journal_mode = ${mode}; BEGIN;
    CREATE TABLE one (id INTEGER PRIMARY KEY, n INTEGER, padding TEXT);
    CREATE TABLE two (id INTEGER PRIMARY KEY, n INTEGER, padding TEXT)`);
  for (const table of ["one", "two"])
    for (let i = 0; i < ROWS; i++) database.exec(`INSERT INTO ${table} VALUES (${i}, 0, '${"x".repeat(PADDING)}')`);
  database.exec("COMMIT");
  database.close();
}

/** The numbers in each table after so many commits. */
export function stateAfter(commits: number): number[] {
  const rows = Array.from({ length: ROWS }, () => 0);
  for (let n = Math.max(1, commits - ROWS + 1); n <= commits; n++) rows[n % ROWS] = n;
  return rows;
}

/** Commits once. */
export function commit(database: DatabaseSync, n: number): void {
  const row = n % ROWS;
  database.exec(`BEGIN IMMEDIATE;
    UPDATE one SET n = ${n}, padding = '${String(n).padEnd(PADDING, "y")}' WHERE id = ${row};
    UPDATE two SET n = ${n}, padding = '${String(n).padEnd(PADDING, "z")}' WHERE id = ${row};
    COMMIT`);
}

/** What each table of a database holds, by which the commits in it are known. */
export function stateOf(database: DatabaseSync): { one: number[]; two: number[] } {
  const read = (table: string): number[] =>
    database
      .prepare(`SELECT n FROM ${table} ORDER BY id`)
      .all()
      .map(({ n }) => Number(n));
  return { one: read("one"), two: read("two") };
}

/** A process that commits until it is ended. */
export class Writer {
  readonly child: ChildProcess;

  constructor(child: ChildProcess) {
    this.child = child;
  }

  static async start(context: TestContext, file: string, synchronous: "OFF" | "FULL" = "OFF"): Promise<Writer> {
    const child = fork(fileURLToPath(import.meta.url), [file, synchronous], {
      execArgv: ["--disable-warning=ExperimentalWarning"],
    });
    context.after(() => child.kill("SIGKILL"));
    await once(child, "message");
    return new Writer(child);
  }

  /** How many commits it has made. */
  async commits(): Promise<number> {
    const heard = once(this.child, "message");
    this.child.send("how many");
    return Number((await heard)[0]);
  }

  /** Ends it after the commit that is under way. */
  async stop(): Promise<void> {
    const ended = once(this.child, "exit");
    this.child.send("stop");
    await ended;
  }
}

async function writeOn(file: string, synchronous: string): Promise<void> {
  const database = new DatabaseSync(file, { timeout: 60_000 });
  database.exec(`PRAGMA synchronous = ${synchronous}; PRAGMA wal_autocheckpoint = 100`);
  let n = 0;
  let isStopped = false;
  process.on("message", (asked) => {
    if (asked === "stop") isStopped = true;
    else process.send!(n);
  });
  process.send!("ready");
  while (!isStopped) {
    commit(database, n + 1);
    n += 1;
    await turn();
  }
  database.close();
  process.disconnect();
}

if (import.meta.main) await writeOn(process.argv[2]!, process.argv[3]!);
