import fs from "node:fs";
import type { DatabaseCapture, HeldDatabase } from "../../archive/scan/databases.ts";
import { RecordFinder } from "../../archive/scan/find-record.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { CairnError } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { Attachments } from "./engine.ts";

/** Databases that were captured before the folder is read, so that files that their rows name are read later than the rows. */
export interface CapturedFirst {
  /** Returns the early images of the databases in `databases`; captures other databases when asked. */
  capture: DatabaseCapture;
  /** Raw paths of the databases that were captured early. */
  databases: readonly Uint8Array[];
  /** Notes files that existed when their database was captured, and were removed before the scan read them. */
  noteMissing(scanned: ScanResult): void;
}

/**
 * Captures each database whose rows name files of a folder as an image, and lists these files. Throws `not_found` if
 * the database or the folder is missing, `usage` if a file is no database.
 */
export async function captureFirst(
  capture: DatabaseCapture,
  attachments: readonly Attachments[],
  { root, scratch, signal }: { root: Uint8Array; scratch: string; signal?: AbortSignal | undefined },
): Promise<CapturedFirst> {
  const held = new Map<string, HeldDatabase>();
  const files = new Map<string, { path: Buffer; database: Uint8Array }>();
  const close = async (): Promise<void> => {
    for (const each of held.values()) await each.release();
    held.clear();
    await capture.close();
  };
  for (const { folder } of attachments) requireFolder(joinPath(root, folder), folder);
  for (const { database, folder } of attachments) {
    for (const path of filesBelow(root, folder)) files.set(latin1(path), { path, database });
    if (held.has(latin1(joinPath(root, database)))) continue;
    const image = await capture.hold(joinPath(root, database), { signal, how: "image", scratch });
    if (image === null) {
      await close();
      throw new CairnError(
        "usage",
        `${printablePath(database)} is not a SQLite database, which --with expects before the =`,
      );
    }
    held.set(latin1(joinPath(root, database)), image);
  }
  return {
    capture: {
      check: async (path, call) => capture.check(path, call),
      still: async (databases, call) => capture.still(databases, call),
      hold: async (path, call) => {
        const given = held.get(latin1(path));
        held.delete(latin1(path));
        return given ?? capture.hold(path, call);
      },
      close,
    },
    databases: attachments.map(({ database }) => database),
    noteMissing: (scanned) => {
      const finder = new RecordFinder(scanned);
      for (const { path, database } of files.values()) {
        if (finder.find(path) !== null || isThere(joinPath(root, path))) continue;
        const reason = `it was removed after ${printablePath(database)} had been captured, and before Cairn read it`;
        scanned.notes.torn.push({ path, reason });
      }
    },
  };
}

function requireFolder(place: Uint8Array, folder: Uint8Array): void {
  if (fs.statSync(Buffer.from(place), { throwIfNoEntry: false })?.isDirectory() === true) return;
  throw new CairnError("not_found", `${printablePath(folder)} is not a folder here, which --with expects after the =`);
}

/** Raw paths of files, relative to the root. Skips entries that disappear meanwhile. */
function filesBelow(root: Uint8Array, folder: Uint8Array): Buffer[] {
  const found: Buffer[] = [];
  const waiting: Buffer[] = [Buffer.from(folder)];
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    for (const name of namesIn(joinPath(root, directory))) {
      const path = joinPath(directory, name);
      const facts = fs.lstatSync(joinPath(root, path), { throwIfNoEntry: false });
      if (facts?.isDirectory() === true) waiting.push(path);
      else if (facts?.isFile() === true) found.push(path);
    }
  }
  return found;
}

function namesIn(place: Buffer): Buffer[] {
  try {
    return fs.readdirSync(place, "buffer");
  } catch {
    return [];
  }
}

function isThere(place: Buffer): boolean {
  return fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined;
}
