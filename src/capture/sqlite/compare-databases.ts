import { DatabaseSync } from "node:sqlite";
import { sqliteError } from "./image.ts";

/** A table, index, view or trigger that differs; `sql` is null if the database has none of that name. */
export interface SchemaDifference {
  type: string;
  name: string;
  sqlBefore: string | null;
  sqlAfter: string | null;
}

/** A row that differs, its values as SQL literals by column; null if the database has no row with that key. */
export interface RowDifference {
  before: Record<string, string> | null;
  after: Record<string, string> | null;
}

/** The rows that differ of one table that both databases have. */
export interface TableDifference {
  name: string;
  /** columns that identify a row; `rowid` if the table has no key */
  key: string[];
  added: number;
  removed: number;
  changed: number;
  /** the first of each kind, by key */
  rows: RowDifference[];
  /** why the rows were not compared */
  problem?: string;
}

export interface DatabaseDifferences {
  schema: SchemaDifference[];
  tables: TableDifference[];
}

/**
 * Compares two private databases: their definitions, and the rows of tables by their keys. `limit`: rows listed of each
 * kind and table; all are counted. Virtual tables are compared by their shadow tables. Throws `damaged` for a file that
 * is damaged or no database.
 */
export function compareDatabases(request: { before: string; after: string; limit: number }): DatabaseDifferences {
  try {
    return compared(request);
  } catch (error) {
    throw sqliteError(error, "the databases cannot be compared");
  }
}

function compared({ before, after, limit }: Parameters<typeof compareDatabases>[0]): DatabaseDifferences {
  const database = new DatabaseSync(":memory:");
  try {
    database.exec("PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF");
    database.prepare("ATTACH ? AS a").run(before);
    database.prepare("ATTACH ? AS b").run(after);
    const [old, now] = [definitions(database, "a"), definitions(database, "b")];
    const schema: SchemaDifference[] = [];
    for (const key of new Set([...old.keys(), ...now.keys()])) {
      const [sqlBefore, sqlAfter] = [old.get(key)?.sql ?? null, now.get(key)?.sql ?? null];
      const { type, name } = (now.get(key) ?? old.get(key))!;
      if (sqlBefore !== sqlAfter) schema.push({ type, name, sqlBefore, sqlAfter });
    }
    const tables: TableDifference[] = [];
    for (const [key, { type, name, sql }] of now) {
      if (type !== "table" || !old.has(key) || /^\s*CREATE\s+VIRTUAL\b/i.test(sql)) continue;
      const found = compareTable(database, name, limit);
      if (found.added + found.removed + found.changed > 0 || found.problem !== undefined) tables.push(found);
    }
    return { schema, tables };
  } finally {
    database.close();
  }
}

interface Definition {
  type: string;
  name: string;
  sql: string;
}

/** By type and name, in the database's order; without SQLite's internal tables. */
function definitions(database: DatabaseSync, of: "a" | "b"): Map<string, Definition> {
  const rows = database.prepare(
    `SELECT type, name, sql FROM ${of}.sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid`,
  );
  const all = rows.all() as unknown as Definition[];
  return new Map(all.map((each) => [`${each.type} ${each.name}`, each]));
}

function compareTable(database: DatabaseSync, name: string, limit: number): TableDifference {
  const [old, now] = [columnsOf(database, "a", name), columnsOf(database, "b", name)];
  const key = now.key.length > 0 ? now.key : [rowidOf(now)];
  const found: TableDifference = { name, key, added: 0, removed: 0, changed: 0, rows: [] };
  if (String(old.key) !== String(now.key)) return { ...found, problem: "its primary key has changed" };
  if (key.includes("")) return { ...found, problem: "it has neither a primary key nor a rowid" };
  try {
    const shared = now.all.filter((column) => old.all.includes(column) && !key.includes(column));
    const equal = key.map((column) => `x.${quoted(column)} IS y.${quoted(column)}`).join(" AND ");
    const isNull = key.map((column) => `x.${quoted(column)} IS NULL`).join(" OR ");
    const hasNulls = ["a", "b"].some((of) => count(database, `FROM ${of}.${quoted(name)} x WHERE ${isNull}`) > 0);
    const rowid = rowidOf(now);
    if (hasNulls && rowid === "") return { ...found, problem: "its primary key has NULLs, and it has no rowid" };
    // NULL keys are not unique, so the rowid identifies such rows.
    const same = hasNulls ? `${equal} AND (NOT (${isNull}) OR x.${rowid} = y.${rowid})` : equal;
    const differs = shared
      .map((column) => `x.${quoted(column)} IS NOT y.${quoted(column)} COLLATE BINARY`)
      .join(" OR ");
    const table = quoted(name);
    const order = key.map((column) => `x.${quoted(column)}`).join(", ");
    const missing = (here: string, there: string): string =>
      `FROM ${here}.${table} x WHERE NOT EXISTS (SELECT 1 FROM ${there}.${table} y WHERE ${same})`;
    const pair = `FROM a.${table} x JOIN b.${table} y ON ${same} WHERE ${differs}`;
    const ask = (what: string, from: string): Record<string, string>[] =>
      database.prepare(`SELECT ${what} ${from} ORDER BY ${order} LIMIT ${limit}`).all() as Record<string, string>[];
    found.added = count(database, missing("b", "a"));
    found.removed = count(database, missing("a", "b"));
    if (differs !== "") found.changed = count(database, pair);
    const whole = (columns: readonly string[]): string =>
      columns.map((each) => `quote(x.${quoted(each)}) AS ${quoted(each)}`).join(", ");
    const [keyed, added] = [[...key, ...shared], [...new Set([...key, ...now.all])]];
    const both = keyed.flatMap((each, i) => [`quote(x.${quoted(each)}) AS x${i}`, `quote(y.${quoted(each)}) AS y${i}`]);
    for (const row of ask(whole(added), missing("b", "a"))) found.rows.push({ before: null, after: { ...row } });
    for (const row of ask(whole([...new Set([...key, ...old.all])]), missing("a", "b")))
      found.rows.push({ before: { ...row }, after: null });
    for (const row of differs === "" ? [] : ask(both.join(", "), pair)) {
      const side = (letter: string): Record<string, string> =>
        Object.fromEntries(keyed.map((each, i) => [each, row[`${letter}${i}`]!]));
      found.rows.push({ before: side("x"), after: side("y") });
    }
    return found;
  } catch (error) {
    // The comparison needs a collation or function that only the database's own program has.
    return { ...found, problem: error instanceof Error ? error.message : String(error) };
  }
}

function count(database: DatabaseSync, from: string): number {
  return Number((database.prepare(`SELECT count(*) AS n ${from}`).get() as { n: number }).n);
}

interface Columns {
  /** with generated columns */
  taken: string[];
  all: string[];
  key: string[];
}

function columnsOf(database: DatabaseSync, of: "a" | "b", table: string): Columns {
  const rows = database.prepare("SELECT name, pk, hidden FROM pragma_table_xinfo(?, ?)").all(table, of) as {
    name: string;
    pk: number;
    hidden: number;
  }[];
  const key = rows.filter(({ pk }) => pk > 0).toSorted((a, b) => a.pk - b.pk);
  return {
    taken: rows.map(({ name }) => name),
    all: rows.filter(({ hidden }) => hidden === 0).map(({ name }) => name),
    key: key.map(({ name }) => name),
  };
}

/** A name of the rowid that no column uses; empty if columns use all of them. */
function rowidOf({ taken }: Columns): string {
  const names = new Set(taken.map((name) => name.toLowerCase()));
  return ["rowid", "_rowid_", "oid"].find((name) => !names.has(name)) ?? "";
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
