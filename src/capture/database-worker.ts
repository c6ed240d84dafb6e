import { backup, DatabaseSync } from "node:sqlite";
import { compareDatabases } from "./compare-databases.ts";
import type { DatabaseAnswer, DatabaseRequest } from "./database-process.ts";

const BUSY_MS = 5000;

// SQLite reads a whole database in one call, which only the end of its process can stop.
process.on("message", (request: DatabaseRequest) => void answerTo(request).then((answer) => process.send!(answer)));

async function answerTo(request: DatabaseRequest): Promise<DatabaseAnswer> {
  try {
    switch (request.kind) {
      case "check":
        return { value: wrongWith(request.path) };
      case "copy":
        return { value: await copy(request.from, request.to) };
      case "compare":
        return { value: compareDatabases(request.before, request.after, request.limit) };
    }
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

async function copy(from: string, to: string): Promise<void> {
  const source = new DatabaseSync(from, { readOnly: true, timeout: BUSY_MS });
  try {
    await backup(source, to);
  } finally {
    source.close();
  }
}
