import { logsBeside } from "../../capture/sqlite/header.ts";
import { databasesAmong, holdOrRefuse, inWords, QuietDatabase } from "../../capture/sqlite/quiet-database.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { besideWhich, mayBeDatabase } from "../../formats/sqlite-header.ts";

const IN_USE =
  "end the programs that use it, or restore into another folder and use `cairn database restore --through-sqlite`";

/** The databases that a state replaces in a folder that it is put over. Paths are raw and relative to the folder. */
export class OverDatabases {
  readonly #target: Uint8Array;
  /** Names of the files that come, sidecars first, by the database's path in latin1; none once they have been taken. */
  readonly #names = new Map<string, Uint8Array[]>();

  constructor(target: Uint8Array) {
    this.#target = target;
  }

  /** Endings of the logs that lie beside a path to which a file of `size` bytes comes, if the file may be a database. */
  logsBeside(path: Uint8Array, size: number): string[] {
    return mayBeDatabase({ size }) ? logsBeside(joinPath(this.#target, path)) : [];
  }

  /** True if a log with something in it would come to lie beside a database that is there. */
  isLogOfAnother({ type, size }: TreeNode, path: Uint8Array): boolean {
    const database = type === "file" && size > 0 ? besideWhich(path) : null;
    return database !== null && databasesAmong([joinPath(this.#target, database)]).length > 0;
  }

  /** Takes note of an entry that comes; `size`: of the file that is there, else its own. */
  note({ type, name }: TreeNode, path: Uint8Array, size: number): void {
    if (type !== "file") return;
    const database = besideWhich(path);
    if (database === null && !mayBeDatabase({ size })) return;
    const key = latin1(database ?? path);
    const names = this.#names.get(key) ?? [];
    // Nobody finds the new database beside an old log.
    if (database === null) names.push(name);
    else names.unshift(name);
    this.#names.set(key, names);
  }

  /** Forgets what is no database. Throws `refused` if a process has a database open that is to be replaced. */
  requireQuiet(): void {
    for (const key of this.#names.keys()) {
      const place = this.#placeOf(key);
      if (databasesAmong([place]).length > 0) holdOrRefuse(place, IN_USE)[Symbol.dispose]();
      else this.#names.delete(key);
    }
  }

  /** Names of what comes together with an entry; null for an entry of no database, none if they have been taken. */
  take(path: Uint8Array): Uint8Array[] | null {
    const key = latin1(besideWhich(path) ?? path);
    const names = this.#names.get(key) ?? null;
    if (names !== null) this.#names.set(key, []);
    return names;
  }

  /** Holds the database of an entry, or tells people why it stays. */
  hold(path: Uint8Array): QuietDatabase | string {
    const held = QuietDatabase.hold(this.#placeOf(latin1(besideWhich(path) ?? path)));
    return held instanceof QuietDatabase ? held : `the database ${inWords(held)}`;
  }

  #placeOf(key: string): Uint8Array {
    return joinPath(this.#target, Buffer.from(key, "latin1"));
  }
}
