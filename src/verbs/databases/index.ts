/** Verbs of SQLite databases that a process may have open. */
export { CaptureDatabaseOptions, CaptureDatabaseResult, captureDatabase } from "./capture-database.ts";
export { DatabaseInfo, DatabaseList, listDatabases } from "./list-databases.ts";
export { RestoreDatabaseOptions, RestoreDatabaseResult, restoreDatabase } from "./restore-database.ts";
