/** Verbs of SQLite databases that a process may have open. */
export { listDatabases } from "./list-databases.ts";
export { captureDatabase } from "./capture-database.ts";
export { restoreDatabase } from "./restore-database.ts";
