import { DatabaseSync } from "node:sqlite";

// SQLite reads a whole database in one call, which only the end of its process can stop.
process.on("message", (path: string) => process.send!(wrongWith(path)));

function wrongWith(path: string): string[] {
  try {
    const database = new DatabaseSync(path);
    try {
      const rows = database.prepare("PRAGMA integrity_check").all();
      const lines = rows.map((row) => String(row["integrity_check"]));
      return lines.length === 1 && lines[0] === "ok" ? [] : lines;
    } finally {
      database.close();
    }
  } catch (error) {
    // What cannot be opened at all is no less wrong.
    return [error instanceof Error ? error.message : String(error)];
  }
}
