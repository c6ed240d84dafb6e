import { uptime } from "node:os";
import { CairnError, toCairnError } from "../../errors.ts";
import { encodeMarks } from "../../formats/restic/prune-marks.ts";
import { thisProcess } from "../../fs/lock-owner.ts";
import type { ObjectId } from "../../ids.ts";
import type { MarkFile } from "../index/blob-index.ts";
import type { ListedSnapshot, Repository } from "../repository.ts";
import { removeFile } from "./replaced-files.ts";

/**
 * A prune looks twice: it marks packs that nothing needs, and a look at least 23 hours later frees those that still are
 * unneeded. So a daily timer comes late enough.
 */
export const SECOND_LOOK_MS = 23 * 3_600_000;

/** Packs of one mark file; a file of 8 MiB is the largest that restic writes. */
const PACKS_A_FILE = 60_000;
/** A mark that is younger than this is from the future: a clock was set back. */
const LEAST_AGE_MS = -60_000;

/** The time of a prune's look, and the snapshots that it counted. */
export interface Look {
  /** The storage's own time before the snapshots were listed; null if the storage does not tell. */
  readonly lookedAt: number | null;
  /** Root trees of the counted snapshots, 64 hex digits each. */
  readonly trees: ReadonlySet<string>;
}

/** The marks of a repository that count now. */
export interface MarksNow {
  /** Marked packs, by name, and the milliseconds until each may be freed; infinite if the storage tells no time. */
  readonly waits: ReadonlyMap<string, number>;
  /** Bytes of the marked packs when they were marked. */
  readonly bytes: number;
  /** Names of all mark files that this version understands. */
  readonly files: readonly string[];
  /** Names of mark files whose marks do not count. */
  readonly void: readonly string[];
  /** Mark files of which all packs may be freed now: their names and packs. */
  readonly ripe: ReadonlyMap<string, readonly string[]>;
  /** The error of a mark file of a newer version. */
  readonly newer: CairnError | null;
  readonly warnings: readonly string[];
}

interface Seen {
  /** The snapshots that are listed now. */
  readonly snapshots: readonly ListedSnapshot[];
  /** The storage's own time. */
  readonly now: number | null;
  readonly isLocal: boolean;
}

/**
 * Tells which marks count. A mark's age is measured by the storage's clock; in a local folder also by this machine's
 * uptime, if it has marked since its last boot. A listed snapshot that is older than a mark and was not counted drops
 * all marks, because that look had a wrong list.
 */
export function marksNow(found: readonly MarkFile[], seen: Seen): MarksNow {
  const waits = new Map<string, number>();
  const ripe = new Map<string, readonly string[]>();
  const [files, wrongs, warnings]: string[][] = [[], [], []];
  let [newer, bytes, wrong]: [CairnError | null, number, ListedSnapshot | undefined] = [null, 0, undefined];
  for (const { name, writtenAt, marks } of found) {
    if (marks instanceof CairnError) {
      if (marks.code === "newer_version") newer = marks;
      else {
        warnings!.push(`marks of an earlier prune cannot be read and do not count: ${marks.message}`);
        files!.push(name);
        wrongs!.push(name);
      }
      continue;
    }
    files!.push(name);
    // The time of the file counts: a copy of the repository does not bring old marks.
    const at = marks.lookedAt === null ? null : (writtenAt ?? marks.lookedAt);
    const sameBoot = seen.isLocal && marks.bootId !== "" && marks.bootId === thisProcess().bootId;
    const age = Math.min(
      at === null || seen.now === null ? 0 : seen.now - at,
      sameBoot ? uptime() * 1000 - marks.uptimeMs : Infinity,
    );
    wrong ??= seen.snapshots.find(
      (listed) => !marks.trees.has(listed.snapshot.tree) && isOlder(listed, marks.lookedAt),
    );
    const wait = at === null || seen.now === null ? Infinity : Math.max(0, SECOND_LOOK_MS - age);
    if (age < LEAST_AGE_MS) {
      wrongs!.push(name);
      continue;
    }
    if (wait === 0) ripe.set(name, marks.packs);
    bytes += marks.bytes;
    for (const pack of marks.packs) waits.set(pack, Math.max(wait, waits.get(pack) ?? 0));
  }
  if (wrong === undefined) return { waits, bytes, files: files!, void: wrongs!, ripe, newer, warnings: warnings! };
  const { id, snapshot } = wrong;
  warnings!.push(
    `snapshot ${id.slice(0, 8)} of ${snapshot.time.slice(0, 16)} was not listed when an earlier prune looked. What that prune marked does not count and is looked at anew`,
  );
  return { waits: new Map(), bytes: 0, files: files!, void: files!, ripe: new Map(), newer, warnings: warnings! };
}

/** Storages tell times in whole seconds. Without a storage's time the snapshot's own time counts, unless it is a copy's. */
function isOlder({ snapshot, writtenAt }: ListedSnapshot, lookedAt: number | null): boolean {
  if (lookedAt === null || (writtenAt === undefined && snapshot.original !== undefined)) return false;
  const { backup_end: end } = (snapshot.summary ?? {}) as { backup_end?: unknown };
  const stated = Math.max(Date.parse(snapshot.time), typeof end === "string" ? Date.parse(end) : 0);
  return Math.floor((writtenAt ?? stated) / 1000) < Math.floor(lookedAt / 1000);
}

/** Removes all marks, if this user may: the caller makes content needed again that may be marked. */
export async function dropMarks(repository: Repository, files: readonly MarkFile[]): Promise<void> {
  for (const { name } of files)
    await removeFile(repository, "index", name).catch((error: unknown) => {
      if (toCairnError(error).code !== "permission") throw error;
    });
}

/** Marks packs, durable. `sizes`: bytes by pack. Returns the names of the new index files. */
export async function writeMarks(
  repository: Repository,
  sizes: ReadonlyMap<string, number>,
  look: Look,
): Promise<ObjectId[]> {
  const names: ObjectId[] = [];
  const packs = [...sizes.keys()];
  for (let from = 0; from < packs.length; from += PACKS_A_FILE) {
    const some = packs.slice(from, from + PACKS_A_FILE);
    const bytes = some.reduce((sum, name) => sum + Math.max(0, sizes.get(name)!), 0);
    const marks = { ...look, bootId: thisProcess().bootId, uptimeMs: uptime() * 1000, packs: some, bytes };
    names.push(await repository.saveUnpacked("index", encodeMarks(marks)));
  }
  return names;
}
