import fs from "node:fs";
import { whyLocksAreLocal } from "../../fs/linux/kernel-lock.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { whyNotOpened } from "./capture.ts";
import type { Label } from "./captured.ts";
import { type DatabaseHeader } from "../../formats/sqlite-header.ts";
import { isBeingWritten, isShort, readHeader } from "./header.ts";
import { sizeOf } from "./plain-copy.ts";

export interface FoundDatabase extends DatabaseHeader {
  /** Raw path below the folder; empty if the database itself was named. */
  path: Uint8Array;
  bytes: number;
  wal_bytes: number;
  locked: boolean;
  damaged: boolean;
  label: Label;
  reason: string | null;
}

/** Databases at or below a path, and the entries that could not be read. */
export interface Finds {
  databases: FoundDatabase[];
  unread: { path: Uint8Array; detail: string }[];
}

/**
 * Reads every regular file at or below a path, without SQLite. Follows no link, and enters no other file system except
 * subvolumes of the same kind.
 */
export function find(place: Uint8Array): Finds {
  const root = Buffer.from(place);
  const finds: Finds = { databases: [], unread: [] };
  const { dev } = fs.statSync(root);
  const isElsewhere = (path: Buffer, facts: fs.Stats): boolean =>
    facts.dev !== dev && [path, root].some((each) => fs.statfsSync(each).type !== BTRFS);
  const waiting: Buffer[] = [Buffer.alloc(0)];
  for (let relative = waiting.pop(); relative !== undefined; relative = waiting.pop()) {
    const path = relative.length === 0 ? root : Buffer.concat([root, SLASH, relative]);
    try {
      const facts = fs.lstatSync(path);
      if (facts.isFile()) lookAt(finds, { path, relative, bytes: facts.size });
      if (!facts.isDirectory() || isElsewhere(path, facts)) continue;
      const names = fs.readdirSync(path, "buffer").toSorted((a, b) => Buffer.compare(b, a));
      for (const name of names) waiting.push(relative.length === 0 ? name : Buffer.concat([relative, SLASH, name]));
    } catch (error) {
      // An entry that vanished meanwhile is not listed.
      if ((error as NodeJS.ErrnoException).code === "ENOENT" && relative.length > 0) continue;
      finds.unread.push({ path: relative, detail: (error as Error).message });
    }
  }
  return finds;
}

const SLASH = Buffer.from("/");
const BTRFS = 0x9123683e;

function lookAt(finds: Finds, { path, relative, bytes }: { path: Buffer; relative: Buffer; bytes: number }): void {
  const fd = openRegular(path);
  let header: DatabaseHeader | null;
  let unshared: string | null;
  let locked = false;
  try {
    header = readHeader(fd);
    locked = header?.journal_mode === "rollback" && isBeingWritten(fd);
    unshared = header === null ? null : whyLocksAreLocal(fd, path);
  } finally {
    fs.closeSync(fd);
  }
  if (header === null) return;
  const reason = whyNotOpened(path, header) ?? unshared;
  finds.databases.push({
    ...header,
    path: relative,
    bytes,
    wal_bytes: sizeOf(path, "-wal") ?? 0,
    locked,
    // A program that is writing may not have grown the file yet.
    damaged: !locked && isShort(path, header, bytes),
    label: reason === null ? "transaction-consistent" : "crash-consistent",
    reason,
  });
}
