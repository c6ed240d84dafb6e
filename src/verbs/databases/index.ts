/** Verbs of SQLite databases that a process may have open. */
export { captureDatabase } from "./capture-database.ts";
export { listDatabases } from "./list-databases.ts";
export { restoreDatabase } from "./restore-database.ts";
