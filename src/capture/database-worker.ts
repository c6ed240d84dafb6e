import { DatabaseSync } from "node:sqlite";
import { compareDatabases } from "./compare-databases.ts";
import type { DatabaseAnswer, DatabaseRequest } from "./database-process.ts";

// SQLite reads a whole database in one call, which only the end of its process can stop.
process.on("message", (request: DatabaseRequest) => process.send!(answerTo(request)));

function answerTo(request: DatabaseRequest): DatabaseAnswer {
  try {
    return { value: request.kind === "check" ? wrongWith(request.path) : differencesOf(request) };
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) };
  }
}

function wrongWith(path: string): string[] {
  const database = new DatabaseSync(path);
  try {
    const rows = database.prepare("PRAGMA integrity_check").all();
    const lines = rows.map((row) => String(row["integrity_check"]));
    return lines.length === 1 && lines[0] === "ok" ? [] : lines;
  } finally {
    database.close();
  }
}

function differencesOf({ before, after, limit }: Extract<DatabaseRequest, { kind: "compare" }>): unknown {
  return compareDatabases(before, after, limit);
}
