import fs from "node:fs";
import { join } from "node:path";
import { isDatabase } from "../../capture/sqlite/header.ts";
import { joinPath } from "../../formats/bytes.ts";
import { beside, LOGS } from "../../formats/sqlite-header.ts";
import { makePrivate } from "../../fs/owner-writes.ts";
import { newPacer } from "../../pacer.ts";
import { HeldDirectories, throughDescriptor } from "../../workspace/restore/held-directories.ts";

/** A restored database, taken out of its tree. */
export interface RestoredDatabase {
  /** Below the folder, raw bytes. */
  path: Buffer;
  /** Path where the database lies now, alone with its journal. */
  file: string;
}

const NAME = "database";
const MAX_NAME_BYTES = 255;
const { O_NOFOLLOW, O_RDONLY } = fs.constants;

/**
 * Finds the databases in a folder that is no longer needed, at any depth, and moves each into `aside`, an empty folder
 * beside it, for one step: SQLite takes paths of 512 bytes and makes files beside its database. Changes modes so that
 * every entry can be opened. Throws the system's error, `interrupted`.
 */
export async function* restoredDatabases(
  folder: Buffer,
  aside: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<RestoredDatabase> {
  makePrivate(folder);
  const held = new HeldDirectories(folder);
  const pace = newPacer(signal);
  const found: Buffer[] = [Buffer.alloc(0)];
  try {
    for (let directory = found.pop(); directory !== undefined; directory = found.pop()) {
      const place = throughDescriptor(held.open(directory), joinPath(folder, directory));
      for (const entry of fs.readdirSync(place, { withFileTypes: true, encoding: "buffer" })) {
        await pace();
        const { name } = entry;
        if (entry.isDirectory()) {
          fs.chmodSync(joinPath(place, name), 0o700);
          found.push(joinPath(directory, name));
        } else if (entry.isFile() && isOne(joinPath(place, name))) {
          for (const ending of ["", ...LOGS]) moveAside(place, beside(name, ending), join(aside, `${NAME}${ending}`));
          yield { path: joinPath(directory, name), file: join(aside, NAME) };
          for (const own of fs.readdirSync(aside)) fs.rmSync(join(aside, own));
        }
      }
    }
  } finally {
    held.close();
  }
}

/** True if a file is a database; false for a log that was moved with its database. */
function isOne(file: Buffer): boolean {
  if (!isFile(file)) return false;
  fs.chmodSync(file, 0o600);
  const fd = fs.openSync(file, O_RDONLY | O_NOFOLLOW);
  try {
    return isDatabase(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function moveAside(directory: Buffer, name: Buffer, to: string): void {
  const from = joinPath(directory, name);
  if (name.length > MAX_NAME_BYTES || !isFile(from)) return;
  fs.chmodSync(from, 0o600);
  fs.renameSync(from, to);
}

function isFile(place: Buffer): boolean {
  return fs.lstatSync(place, { throwIfNoEntry: false })?.isFile() === true;
}
