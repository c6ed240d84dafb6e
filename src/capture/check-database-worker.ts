import { parentPort, workerData } from "node:worker_threads";
import { DatabaseSync } from "node:sqlite";

// SQLite reads a whole database in one call: here that holds nobody up, and can be ended at any moment.
const { path } = workerData as { path: Uint8Array };
const database = new DatabaseSync(Buffer.from(path));
try {
  const rows = database.prepare("PRAGMA integrity_check").all();
  parentPort!.postMessage(rows.map((row) => String(row["integrity_check"])));
} finally {
  database.close();
}
