import fs from "node:fs";
import { constants, type SQLOutputValue } from "node:sqlite";
import { CairnError } from "../../errors.ts";
import { beside, LOGS } from "../../formats/sqlite-header.ts";
import { applyLog, MOST_PATH_BYTES, openDatabase, storedText } from "./image.ts";
import { sizeOf } from "./plain-copy.ts";

const { SQLITE_DENY, SQLITE_FUNCTION, SQLITE_OK, SQLITE_READ, SQLITE_RECURSIVE, SQLITE_SELECT } = constants;
const ALLOWED: ReadonlySet<number> = new Set([SQLITE_FUNCTION, SQLITE_READ, SQLITE_RECURSIVE, SQLITE_SELECT]);
const COLUMNS = ["path", "size", "sha256"];
const MOST_ROWS = 2_000_000;

/** A file that a row names. Null: the row does not say it. */
export interface NamedFile {
  path: Uint8Array;
  size: number | null;
  /** 64 hex digits; another text is wrong. */
  sha256: string | null;
}

export interface NamedFilesRequest {
  /** A database that no process uses. */
  path: Uint8Array;
  /** A SELECT with the columns path and perhaps size and sha256. */
  query: string;
  /** An empty folder for a copy, if the database has a log to be applied. */
  scratch: string;
}

/** Returns the files that the rows of a query name. Changes nothing. Throws `usage` if the query is not one, or fails. */
export function namedFiles({ path, query, scratch }: NamedFilesRequest): NamedFile[] {
  let place = Buffer.from(path);
  const logs = LOGS.filter((ending) => (sizeOf(place, ending) ?? 0) > 0);
  if (logs.length > 0 || place.length > MOST_PATH_BYTES) {
    const copy = Buffer.from(`${scratch}/image`);
    for (const ending of ["", ...logs])
      fs.copyFileSync(beside(place, ending), beside(copy, ending), fs.constants.COPYFILE_FICLONE);
    applyLog(copy);
    place = copy;
  }
  const database = openDatabase(place, "image");
  try {
    const { encoding } = database.prepare("PRAGMA encoding").get()!;
    // The query may come from a repository.
    database.setAuthorizer((action) => (ALLOWED.has(action) ? SQLITE_OK : SQLITE_DENY));
    const given = database.prepare(query);
    const columns = given.columns().map(({ name }) => name.toLowerCase());
    const other = columns.find((name) => !COLUMNS.includes(name));
    if (!columns.includes("path") || other !== undefined)
      throw new Error(`its columns are ${columns.join(", ") || "none"}; expected path, and perhaps size and sha256`);
    const wanted = columns.map((name) => (name === "path" ? storedText(name, encoding) : name));
    const statement = database.prepare(`SELECT ${wanted.join()} FROM (${given.sourceSQL.replace(/;\s*$/, "")}\n)`);
    statement.setReturnArrays(true);
    const named: NamedFile[] = [];
    for (const row of statement.iterate() as Iterable<unknown>) {
      const of = (name: string) => (row as SQLOutputValue[])[columns.indexOf(name)] ?? null;
      const [file, size, hash] = [of("path"), of("size"), of("sha256")];
      if (file === null || file === "" || (file instanceof Uint8Array && file.length === 0)) continue;
      if (named.length === MOST_ROWS) throw new Error(`it has more than ${MOST_ROWS} rows`);
      const raw = file instanceof Uint8Array ? file : Buffer.from(String(file));
      const sha256 = hash instanceof Uint8Array ? Buffer.from(hash).toString("hex") : hash;
      named.push({
        path: raw,
        size: size === null ? null : Number(size),
        sha256: sha256 === null ? null : String(sha256).toLowerCase(),
      });
    }
    return named;
  } catch (error) {
    throw new CairnError("usage", `the query ${JSON.stringify(query)} fails: ${(error as Error).message}`, {
      hint: 'a query names files, for example --rows "select path, sha256 from attachments"',
    });
  } finally {
    database.close();
  }
}
