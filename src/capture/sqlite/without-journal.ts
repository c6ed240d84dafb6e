import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { SHARED_BYTES } from "../../formats/sqlite-header.ts";
import { isWriteLocked } from "../../fs/linux/kernel-lock.ts";
import { logsBeside, readHeader } from "./header.ts";
import { inOpenFile, ownDescriptors } from "./quiet-database.ts";

/** Milliseconds in which a program that has a journal shows it, or lets go of its lock, even on a loaded machine. */
const BUDGET_MS = 200;
const PAUSE_MS = 1;

/** A database whose file a program may be changing without a journal on the disk; `looks` tell later changes. */
export interface Suspect {
  place: Uint8Array;
  looks: string;
}

interface Look {
  isLocked: boolean;
  hasJournal: boolean;
  looks: string;
}

/** Finds databases (absolute raw paths) that are locked for a change of the file and have no journal. */
export function suspectsAmong(places: readonly Uint8Array[]): Suspect[] {
  const own = ownDescriptors();
  return places.flatMap((place) => {
    const now = lookAt(place, own);
    return now?.isLocked === true && !now.hasJournal ? [{ place, looks: now.looks }] : [];
  });
}

/**
 * Tells if a suspect had half of a transaction in its file. A program with a journal has removed it, and unlocks the
 * unchanged file next, or it soon writes another journal.
 */
export async function wasHalfWritten({ place, looks }: Suspect): Promise<boolean> {
  for (const deadline = performance.now() + BUDGET_MS; performance.now() < deadline; await sleep(PAUSE_MS)) {
    const now = lookAt(place);
    if (now !== null && (now.hasJournal || (!now.isLocked && now.looks === looks))) return false;
  }
  return true;
}

/** Null if the file is no database of rollback mode. */
function lookAt(place: Uint8Array, own = ownDescriptors()): Look | null {
  const look = (fd: number): Look | null => {
    if (readHeader(fd)?.journal_mode !== "rollback") return null;
    const isLocked = isWriteLocked(fd, SHARED_BYTES);
    const { size, mtimeNs, ctimeNs } = fs.fstatSync(fd, { bigint: true });
    return { isLocked, hasJournal: logsBeside(place).length > 0, looks: [size, mtimeNs, ctimeNs].join() };
  };
  return inOpenFile(place, look, own);
}
