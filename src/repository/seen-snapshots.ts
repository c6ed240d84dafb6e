import { dirname } from "node:path";
import { orderedWrite } from "../fs/durable.ts";
import { makeFolder } from "../fs/make-folder.ts";
import { readRegular } from "../fs/regular-file.ts";
import type { Snapshot } from "../formats/restic/snapshot.ts";

/** Milliseconds for which a snapshot's content is still kept after a list first lacked the snapshot: less than a daily timer's pause. */
export const MISSING_COUNTS_MS = 23 * 60 * 60_000;

const VERSION = 1;
const MAX_BYTES = 256 * 1024 * 1024;

/** A snapshot as this host remembers it. */
export interface SeenSnapshot {
  /** 64 hex digits. */
  readonly tree: string;
  readonly time: string;
  /** When a list first lacked the snapshot, ISO 8601; absent while the snapshot is listed. */
  readonly missed_at?: string;
}

/** A snapshot that this host saw before, did not remove itself, and misses now. */
export interface MissingSnapshot {
  readonly id: string;
  readonly tree: string;
  readonly time: string;
  readonly missedAt: string;
  /** True for the first 23 hours. */
  readonly counts: boolean;
}

/**
 * The snapshots that this host last saw in a repository, in a file of its cache. A prune compares a new list with them.
 * Never fails: without the file only this process remembers, and an unreadable file counts as empty.
 */
export class SeenSnapshots {
  readonly #path: string | null;
  #seen = new Map<string, SeenSnapshot>();

  constructor(path: string | null) {
    this.#path = path;
  }

  /** Compares a list with the remembered snapshots. `ids` has all listed names, also of unreadable snapshots. */
  listed(ids: Iterable<string>, snapshots: Iterable<{ id: string; snapshot: Snapshot }>): void {
    const present = new Set(ids);
    this.#change((seen) => {
      for (const { id, snapshot } of snapshots) seen.set(id, { tree: snapshot.tree, time: snapshot.time });
      const now = new Date().toISOString();
      for (const [id, { missed_at: missed, ...known }] of seen) {
        if (present.has(id)) seen.set(id, known);
        // If the clock was set back since, the 23 hours start again.
        else if (missed === undefined || missed > now) seen.set(id, { ...known, missed_at: now });
      }
    });
  }

  /** Remembers a snapshot that this process is about to save. */
  made(id: string, { tree, time }: Snapshot): void {
    this.#change((seen) => void seen.set(id, { tree, time }));
  }

  /** Drops snapshots that this host removed, or whose loss need not be reported any more. */
  forgot(ids: Iterable<string>): void {
    this.#change((seen) => {
      for (const id of ids) seen.delete(id);
    });
  }

  /** Returns the snapshots that the last list lacked. */
  missing(): MissingSnapshot[] {
    const now = Date.now();
    return [...this.#read()].flatMap(([id, { tree, time, missed_at: missedAt }]) =>
      missedAt === undefined
        ? []
        : [{ id, tree, time, missedAt, counts: now - Date.parse(missedAt) < MISSING_COUNTS_MS }],
    );
  }

  /** Reads the file again before each change: other processes of this user write it too. */
  #change(change: (seen: Map<string, SeenSnapshot>) => void): void {
    const seen = this.#read();
    const before = encode(seen);
    change(seen);
    this.#seen = seen;
    const after = encode(seen);
    if (this.#path === null || after === before) return;
    try {
      makeFolder(dirname(this.#path));
      orderedWrite(this.#path, Buffer.from(after));
    } catch {
      // Without a cache only this process remembers.
    }
  }

  #read(): Map<string, SeenSnapshot> {
    try {
      if (this.#path !== null) return decode(readRegular(this.#path, { limit: MAX_BYTES }).toString("utf8"));
    } catch {
      // Absent, damaged or no regular file.
    }
    return new Map(this.#seen);
  }
}

function encode(seen: ReadonlyMap<string, SeenSnapshot>): string {
  return `${JSON.stringify({ version: VERSION, snapshots: Object.fromEntries(seen) })}\n`;
}

const ID = /^[0-9a-f]{64}$/;

/** Throws if the text has another form or version. */
function decode(text: string): Map<string, SeenSnapshot> {
  const { version, snapshots } = JSON.parse(text) as { version: unknown; snapshots: Record<string, SeenSnapshot> };
  const entries = Object.entries(snapshots);
  const isSound = entries.every(
    ([id, { tree, time, missed_at: missed }]) =>
      ID.test(id) &&
      ID.test(tree) &&
      typeof time === "string" &&
      (missed === undefined || Number.isFinite(Date.parse(missed))),
  );
  if (version !== VERSION || !isSound) throw new Error("not a list of snapshots");
  return new Map(entries);
}
