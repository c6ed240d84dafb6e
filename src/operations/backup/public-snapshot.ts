import { PROGRAM } from "../../formats/program.ts";
import type { Snapshot } from "../../formats/snapshot.ts";
import { CairnError } from "../../errors.ts";
import { isSavePointId, type SavePointId } from "../../ids.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { BackupSnapshot, RestoredSnapshot } from "../contract.ts";
import { checkTags } from "../tag.ts";

const POINT_TAG = "cairn:";
/** What `backup rewrite` makes has this one, as what `restic rewrite` does. */
export const REWRITTEN = "rewrite";
/** What `backup recover` makes has this one, as what `restic recover` does. */
export const RECOVERED = "recovered";
/** Beside it, of a tree of ours: this one people neither give nor take. */
export const RECOVERED_HERE = `${POINT_TAG}${RECOVERED}`;

/** The tag by which a snapshot tells which save point it was made of. */
export function pointTag(id: string): string {
  return `${POINT_TAG}${id}`;
}

/** Throws `usage` for what is no tag, and for one that a snapshot would hide, or take for another point's. */
export function checkSnapshotTags(tags: readonly string[]): void {
  checkTags(tags);
  const own = tags.find((each) => each.startsWith(POINT_TAG));
  if (own === undefined) return;
  throw new CairnError(
    "usage",
    `tags that begin with ${POINT_TAG} are Cairn's own: ${JSON.stringify(own.slice(0, 80))}`,
  );
}

/** The save point that a snapshot was made of, by its tag; null for others. */
export function pointOf(snapshot: Snapshot): SavePointId | null {
  for (const tag of snapshot.tags ?? []) {
    const id = tag.startsWith(POINT_TAG) ? tag.slice(POINT_TAG.length) : "";
    if (isSavePointId(id)) return id;
  }
  return null;
}

/** Of a save point or a stream, whatever became of its tags; `repair snapshots` makes others' anew, and says of which. */
export function isMadeByUs({
  tags,
  program_version: by,
  original,
}: Pick<Snapshot, "tags" | "program_version" | "original">): boolean {
  return (
    (tags ?? []).some((tag) => tag.startsWith(POINT_TAG)) ||
    (original === undefined && by !== undefined && by.startsWith(`${PROGRAM.split(" ")[0]} `))
  );
}

/** Made anew of its trees: it does not say what rules had left out. */
export function isRecovered({ tags }: Pick<Snapshot, "tags">): boolean {
  return tags?.includes(RECOVERED_HERE) === true;
}

/** A snapshot's tags as its maker chose them. */
export function ownTags(snapshot: Snapshot): string[] {
  return (snapshot.tags ?? []).filter((tag) => !tag.startsWith(POINT_TAG));
}

/** A snapshot as the library returns it and `--json` prints it. */
export function publicSnapshot({ id, snapshot }: ListedSnapshot): BackupSnapshot {
  const summary = snapshot.summary ?? {};
  const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
  const count = (value: unknown): number | null => (typeof value === "number" && value >= 0 ? value : null);
  return {
    snapshot_id: id,
    created_at: snapshot.time,
    uploaded_at: text(summary["backup_end"]),
    hostname: snapshot.hostname,
    username: snapshot.username,
    paths: snapshot.paths,
    tags: ownTags(snapshot),
    tree: snapshot.tree,
    parent: snapshot.parent ?? null,
    program_version: snapshot.program_version ?? null,
    save_point_id: pointOf(snapshot),
    files: count(summary["total_files_processed"]),
    bytes: count(summary["total_bytes_processed"]),
  };
}

export function restoredSnapshot({ id, snapshot }: ListedSnapshot): RestoredSnapshot {
  return { snapshot_id: id, created_at: snapshot.time, hostname: snapshot.hostname };
}

/** Oldest first; of equal times by id, so that the order is always the same. */
export function byTime(a: ListedSnapshot, b: ListedSnapshot): number {
  const [x, y] = [Date.parse(a.snapshot.time), Date.parse(b.snapshot.time)];
  if (x !== y) return x - y;
  const [m, n] = [uploadedAt(a), uploadedAt(b)];
  if (m !== n) return m - n;
  return a.id < b.id ? -1 : 1;
}

/** Of a rewritten one nothing says: while the one is there that has all, that one is the newer. */
export function uploadedAt({ snapshot }: ListedSnapshot): number {
  if (snapshot.original !== undefined && snapshot.tags?.includes(REWRITTEN) === true) return 0;
  const end = snapshot.summary?.["backup_end"];
  const at = typeof end === "string" ? Date.parse(end) : Number.NaN;
  return Number.isFinite(at) ? at : Date.parse(snapshot.time);
}
