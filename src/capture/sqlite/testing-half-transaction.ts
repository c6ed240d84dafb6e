/** Databases as a crash leaves them during the commit of a transaction over all of them. Test only. */
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";

const ROWS = 200;

export interface HalfTransaction {
  /** Paths of the databases below the folder; the first one names the super-journal. */
  names: readonly string[];
  /** The super-journal's path as the program sees it; default: below the folder. */
  superJournal?: string;
  /** The folder's path as the program sees it; default: the folder itself. */
  seenAs?: string;
  /** `before`: the super-journal exists; `after`: it is removed, so that the transaction is committed. */
  moment: "before" | "after";
  mode?: "delete" | "truncate" | "persist";
  pageSize?: (i: number) => number;
}

/** Makes databases whose rows are all 0 before the transaction and 1 after it. Returns the super-journal's path in the folder. */
export function makeHalfTransaction(folder: string, half: HalfTransaction): string {
  const { names, seenAs = folder, moment, mode = "delete", pageSize = () => 4096 } = half;
  const places = names.map((name) => path.join(folder, name));
  fs.mkdirSync(folder, { recursive: true });
  const scratch = fs.mkdtempSync(path.join(folder, "half-"));
  const made = names.map((_, i) => path.join(scratch, `${i}.db`));
  for (const [i, place] of made.entries()) {
    const database = new DatabaseSync(place);
    database.exec(
      `PRAGMA page_size = ${pageSize(i)}; CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, padding TEXT)`,
    );
    database.exec(`WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ${ROWS})
      INSERT INTO t SELECT x, 0, hex(randomblob(400)) FROM c`);
    database.close();
  }
  const database = new DatabaseSync(made[0]!);
  const schemas = made.map((_, i) => (i === 0 ? "main" : `d${i}`));
  for (const [i, place] of made.entries()) if (i > 0) database.prepare(`ATTACH ? AS d${i}`).run(place);
  for (const schema of schemas)
    database.exec(
      `PRAGMA ${schema}.journal_mode = ${mode}; PRAGMA ${schema}.synchronous = FULL; PRAGMA ${schema}.cache_size = 5`,
    );
  database.exec("BEGIN");
  for (const schema of schemas) database.exec(`UPDATE ${schema}.t SET n = 1`);
  // Pages that do not fit into the cache are in the database's file by now; the journal was flushed before.
  for (const [i, place] of places.entries()) {
    fs.mkdirSync(path.dirname(place), { recursive: true });
    fs.copyFileSync(made[i]!, place);
    fs.copyFileSync(`${made[i]!}-journal`, `${place}-journal`);
  }
  database.exec("COMMIT");
  database.close();
  if (moment === "after") for (const [i, place] of places.entries()) fs.copyFileSync(made[i]!, place);
  fs.rmSync(scratch, { recursive: true });
  const own = `${names[0]!}-mj1A2B3C904`;
  const superJournal = half.superJournal ?? path.join(seenAs, own);
  for (const place of places) fs.appendFileSync(`${place}-journal`, trailer(Buffer.from(superJournal)));
  const listed = names.map((name) => `${path.join(seenAs, name)}-journal\0`).join("");
  if (moment === "before" && half.superJournal === undefined) fs.writeFileSync(path.join(folder, own), listed);
  return path.join(folder, own);
}

/** The end of a journal as SQLite writes it: the page at the lock byte, the name, its length and sum, the magic bytes. */
export function trailer(name: Buffer): Buffer {
  const bytes = Buffer.alloc(name.length + 20);
  bytes.writeUInt32BE(0x4000_0000 / 4096 + 1, 0);
  name.copy(bytes, 4);
  bytes.writeUInt32BE(name.length, name.length + 4);
  bytes.writeUInt32BE(
    name.reduce((sum, byte) => (sum + (byte > 127 ? byte - 256 : byte)) >>> 0, 0),
    name.length + 8,
  );
  bytes.write("d9d505f920a163d7", name.length + 12, "hex");
  return bytes;
}

/** The distinct values of a database's rows: `0` before the transaction, `1` after it, `0,1` of half of it. Leaves the files as they are. */
export function valuesOf(file: string): string {
  const scratch = fs.mkdtempSync(`${file}.look-`);
  try {
    for (const ending of ["", "-journal", "-wal"])
      if (fs.existsSync(`${file}${ending}`)) fs.copyFileSync(`${file}${ending}`, path.join(scratch, `look${ending}`));
    const database = new DatabaseSync(path.join(scratch, "look"));
    try {
      const check = String(database.prepare("PRAGMA integrity_check").get()!["integrity_check"]);
      if (check !== "ok") return check;
      return database
        .prepare("SELECT DISTINCT n FROM t ORDER BY n")
        .all()
        .map(({ n }) => String(n))
        .join();
    } finally {
      database.close();
    }
  } finally {
    fs.rmSync(scratch, { recursive: true });
  }
}
