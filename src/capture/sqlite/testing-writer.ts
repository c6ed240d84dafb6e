/**
 * Another program that writes to a database: each commit changes one row in each of two tables to its own number, so that
 * the number of commits tells all that the database holds. The second table may lie in a second database. Test only.
 */
import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { DatabaseSync } from "node:sqlite";
import type { TestContext } from "node:test";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const ROWS = 40;
const PADDING = 500;

export type JournalMode = "wal" | "delete" | "truncate" | "persist";

/** Makes the database before any commit; `second` gets the second table. */
export function makeDatabase(file: string, mode: JournalMode, pageSize = 4096, second?: string): void {
  if (second !== undefined) {
    for (const [place, tables] of [
      [file, ["one"]],
      [second, ["two"]],
    ] as const)
      fillDatabase(place, mode, { pageSize, tables });
    return;
  }
  fillDatabase(file, mode, { pageSize, tables: ["one", "two"] });
}

function fillDatabase(
  file: string,
  mode: JournalMode,
  { pageSize, tables }: { pageSize: number; tables: readonly string[] },
): void {
  const database = new DatabaseSync(file);
  database.exec(`PRAGMA page_size = ${pageSize}; PRAGMA journal_mode = ${mode}; BEGIN`);
  for (const table of tables) database.exec(`CREATE TABLE ${table} (id INTEGER PRIMARY KEY, n INTEGER, padding TEXT)`);
  for (const table of tables)
    for (let i = 0; i < ROWS; i++) database.exec(`INSERT INTO ${table} VALUES (${i}, 0, '${"x".repeat(PADDING)}')`);
  database.exec("COMMIT");
  database.close();
}

/** The numbers in each table after this many commits. */
export function stateAfter(commits: number): number[] {
  const rows = Array.from({ length: ROWS }, () => 0);
  for (let n = Math.max(1, commits - ROWS + 1); n <= commits; n++) rows[n % ROWS] = n;
  return rows;
}

export function commit(database: DatabaseSync, n: number): void {
  const row = n % ROWS;
  database.exec(`BEGIN IMMEDIATE;
    UPDATE one SET n = ${n}, padding = '${String(n).padEnd(PADDING, "y")}' WHERE id = ${row};
    UPDATE two SET n = ${n}, padding = '${String(n).padEnd(PADDING, "z")}' WHERE id = ${row};
    COMMIT`);
}

/** The rows of each table, which identify the database's commits. */
export function stateOf(database: DatabaseSync): { one: number[]; two: number[] } {
  const read = (table: string): number[] =>
    database
      .prepare(`SELECT n FROM ${table} ORDER BY id`)
      .all()
      .map(({ n }) => Number(n));
  return { one: read("one"), two: read("two") };
}

/** Returns the number of commits that a closed database has. Asserts that the database is whole, and all of one commit. */
export function commitsIn(file: string): number {
  const database = new DatabaseSync(file);
  try {
    assert.equal(database.prepare("PRAGMA integrity_check").get()!["integrity_check"], "ok");
    const { one, two } = stateOf(database);
    const newest = Math.max(...one);
    assert.deepEqual({ one, two }, { one: stateAfter(newest), two: stateAfter(newest) });
    return newest;
  } finally {
    database.close();
  }
}

/** A process that commits until it is stopped. */
export class Writer {
  readonly child: ChildProcess;

  constructor(child: ChildProcess) {
    this.child = child;
  }

  /**
   * `more`: the second database, the journal mode, if the database's own file does not record it, and the pause between
   * two commits.
   */
  static async start(
    context: TestContext,
    file: string,
    synchronous: "OFF" | "FULL" = "OFF",
    more: { second?: string; mode?: JournalMode; pauseMs?: number } = {},
  ): Promise<Writer> {
    const words = [file, synchronous, more.second ?? "", more.mode ?? "", String(more.pauseMs ?? 0)];
    const child = fork(fileURLToPath(import.meta.url), words, {
      execArgv: ["--disable-warning=ExperimentalWarning"],
    });
    context.after(() => child.kill("SIGKILL"));
    await once(child, "message");
    return new Writer(child);
  }

  /** Number of commits so far. */
  async commits(): Promise<number> {
    const heard = once(this.child, "message");
    this.child.send("how many");
    return Number((await heard)[0]);
  }

  /** Stops it after the current commit. */
  async stop(): Promise<void> {
    const ended = once(this.child, "exit");
    this.child.send("stop");
    await ended;
  }
}

async function writeOn([file, synchronous, second, mode, pauseMs]: string[]): Promise<void> {
  const database = new DatabaseSync(file!, { timeout: 60_000 });
  if (second !== "") database.prepare("ATTACH ? AS second").run(second!);
  database.exec(`PRAGMA synchronous = ${synchronous}; PRAGMA wal_autocheckpoint = 100`);
  if (second !== "") database.exec(`PRAGMA second.synchronous = ${synchronous}`);
  if (mode !== "")
    database.exec(`PRAGMA main.journal_mode = ${mode}; ${second === "" ? "" : `PRAGMA second.journal_mode = ${mode}`}`);
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
    await (pauseMs === "0" ? turn() : sleep(Number(pauseMs)));
  }
  database.close();
  process.disconnect();
}

if (import.meta.main) await writeOn(process.argv.slice(2));
