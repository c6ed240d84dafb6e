import type {
  BackupList,
  BackupSnapshot,
  CallOptions,
  ListBackupsOptions,
  RestoredSnapshot,
  SnapshotChoice,
  SnapshotFilter,
} from "../../contract/index.ts";
import { advice, CairnError, call, type Hint, option, worded } from "../../errors.ts";
import { PROGRAM } from "../../formats/program.ts";
import { localTime, momentOf } from "../../formats/moments.ts";
import { plural } from "../../formats/sizes.ts";
import { type Snapshot, checkTags } from "../../formats/restic/snapshot.ts";
import { isSavePointId, type SavePointId } from "../../ids.ts";
import type { DamagedFile, ListedSnapshot, SnapshotListing } from "../../repository/repository.ts";
import type { OpenRepository } from "./open-repository.ts";

const POINT_TAG = "cairn:";
/** The tag of a snapshot that `backup rewrite` made, as `restic rewrite` has it. */
export const REWRITTEN = "rewrite";
/** The tag of a snapshot that `backup recover` made, as `restic recover` has it. */
export const RECOVERED = "recovered";
const MAX_CANDIDATES = 20;
const DAY_MS = 86_400_000;
const WORDS = advice`a snapshot is named by its id, a unique prefix of it, \`latest\`, a save point's id, or a time: yesterday, "2 hours ago", 14:00, 2026-11-23 or "2026-11-23 14:00"; see ${call("backup list", "list")}`;

/** The tag by which a snapshot names its save point. */
export function pointTag(id: string): string {
  return `${POINT_TAG}${id}`;
}

/** Throws `usage` for an invalid tag, and for a tag with the prefix that names save points. */
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

/** True for a snapshot of a save point or a stream, also if its tags were changed; a program that rewrites other snapshots names their originals. */
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

/** True for a snapshot of a single tree that an earlier version recovered: its ignore rules are not known. */
export function isRecovered({ tags }: Pick<Snapshot, "tags">): boolean {
  return tags?.includes(`${POINT_TAG}${RECOVERED}`) === true;
}

/** The tag of a snapshot of which entries are missing: `backup list` marks it, and rules count whole snapshots first. */
export const INCOMPLETE = pointTag("incomplete");

export function isIncomplete({ tags }: Pick<Snapshot, "tags">): boolean {
  return tags?.includes(INCOMPLETE) === true;
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
    ...(isIncomplete(snapshot) ? { incomplete: true } : {}),
    tree: snapshot.tree,
    parent: snapshot.parent ?? null,
    program_version: snapshot.program_version ?? null,
    save_point_id: pointOf(snapshot),
    files: count(summary["total_files_processed"]),
    bytes: count(summary["total_bytes_processed"]),
    bytes_stored: count(summary["data_added_packed"]),
  };
}

export function restoredSnapshot({ id, snapshot }: ListedSnapshot): RestoredSnapshot {
  return { snapshot_id: id, created_at: snapshot.time, hostname: snapshot.hostname };
}

/** True if a wrong clock gave this time (ms). Another machine's clock, or its zone, may be some hours ahead. */
export function isFuture(time: number): boolean {
  return time > Date.now() + DAY_MS;
}

/** The snapshots, oldest first; equal times by id, so that the order never varies. */
export function inOrder(snapshots: readonly ListedSnapshot[]): ListedSnapshot[] {
  const moments = momentsOf(snapshots);
  const byTime = (a: ListedSnapshot, b: ListedSnapshot): number => {
    const difference = moments.get(a.id)! - moments.get(b.id)! || uploadedAt(a) - uploadedAt(b);
    return difference === 0 ? (a.id < b.id ? -1 : 1) : difference;
  };
  return snapshots.toSorted(byTime);
}

/**
 * The time of each snapshot by its id, in milliseconds. A snapshot dated in the future gets its upload's time, or comes
 * just before the first snapshot that names it as parent. If neither is known, it keeps its date.
 */
export function momentsOf(snapshots: readonly ListedSnapshot[]): Map<string, number> {
  const moments = new Map<string, number>();
  const wrong = new Map<string, ListedSnapshot>();
  for (const listed of snapshots) {
    const { id, snapshot } = listed;
    const time = Date.parse(snapshot.time);
    moments.set(id, isFuture(time) && uploadedAt(listed) > 0 ? uploadedAt(listed) : time);
    if (isFuture(moments.get(id)!)) wrong.set(id, listed).set(snapshot.original ?? id, listed);
  }
  for (const { id, snapshot } of wrong.size === 0 ? [] : snapshots) {
    let later = moments.get(id)!;
    for (let above = wrong.get(snapshot.parent ?? ""); above !== undefined;) {
      if (isFuture(later) || moments.get(above.id)! < later) break;
      moments.set(above.id, --later);
      above = wrong.get(above.snapshot.parent ?? "");
    }
  }
  return moments;
}

/**
 * The time of a snapshot's upload. 0 if no valid time is known, and for a snapshot that lacks rewritten-out entries:
 * the complete original counts as newer.
 */
export function uploadedAt({ snapshot }: ListedSnapshot): number {
  if (snapshot.original !== undefined && snapshot.tags?.includes(REWRITTEN) === true) return 0;
  const end = snapshot.summary?.["backup_end"];
  const at = typeof end === "string" ? Date.parse(end) : Number.NaN;
  const known = Number.isFinite(at) ? at : Date.parse(snapshot.time);
  return isFuture(known) ? 0 : known;
}

/**
 * The time for a state made after its parent: never before the parent's, even if a clock was set back. Ignores a parent
 * dated far in the future, and warns of it.
 */
export function timeAfter(time: string, parent: ListedSnapshot | null, onWarning: CallOptions["onWarning"]): string {
  if (parent === null) return time;
  const least = Date.parse(parent.snapshot.time) + 1;
  if (Date.parse(time) >= least) return time;
  if (!isFuture(least)) return new Date(least).toISOString();
  if (uploadedAt(parent) === 0) warnOfDates([parent], onWarning);
  return time;
}

/** Warns of snapshots that a wrong clock dated in the future. Other programs take the last of them for the latest. */
function warnOfDates(snapshots: readonly ListedSnapshot[], onWarning: CallOptions["onWarning"]): void {
  const wrong = snapshots.filter(({ snapshot }) => isFuture(Date.parse(snapshot.time)));
  const [first] = wrong;
  if (first === undefined) return;
  const isOne = wrong.length === 1;
  onWarning?.(
    `${shortNames(wrong.map(({ id }) => id))} ${isOne ? "is" : "are"} dated in the future (${first.snapshot.time}) by a wrong clock: ${isOne ? "it counts" : "they count"} as older than snapshots that are known to be newer, but other programs take ${isOne ? "it" : "one of them"} for the latest`,
  );
}

/** The newest snapshot of the same host and paths, from any program. */
export function newestOfSame(
  snapshots: readonly ListedSnapshot[],
  { hostname, paths }: Pick<Snapshot, "hostname" | "paths">,
): ListedSnapshot | null {
  const same = snapshots.filter(
    ({ snapshot }) => snapshot.hostname === hostname && snapshot.paths.join("\0") === paths.join("\0"),
  );
  return inOrder(same).at(-1) ?? null;
}

/**
 * The one snapshot that a word means: `latest`, an id, a unique prefix, a save point's id or prefix (its newest
 * snapshot), or a time (the newest snapshot until then). Throws `not_found`, `ambiguous`. Throws `damaged` for an
 * unreadable snapshot, and for `latest` or a time while any is unreadable: it may be the newest.
 */
export function findSnapshot(listing: SnapshotListing, word: string): ListedSnapshot {
  const found = findSnapshotFile(listing, word);
  if ("snapshot" in found) return found;
  const { name, error } = found;
  throw new CairnError("damaged", `snapshot ${name.slice(0, 8)} cannot be read: ${error.message}`, {
    hint: advice`its content is recorded nowhere else; ${removalHint([found])}`,
    cause: error,
    details: { snapshots: [name] },
  });
}

/** Like `findSnapshot`, but also finds an unreadable snapshot by its id. */
function findSnapshotFile({ snapshots, damaged }: SnapshotListing, word: string): ListedSnapshot | DamagedFile {
  if (word === "latest" && damaged.length > 0) throw latestUnknown(damaged);
  if (snapshots.length === 0 && damaged.length === 0)
    throw new CairnError("not_found", "the repository has no snapshots", {
      hint: advice`make one: ${call("backup create", "createBackup")}`,
    });
  if (word === "latest") return inOrder(snapshots).at(-1)!;
  const moment = timeOf(word);
  if (moment !== null) return notAfter({ snapshots, damaged }, moment);
  if (!HEX.test(word))
    throw new CairnError("not_found", `no snapshot ${JSON.stringify(word.slice(0, 80))}`, {
      hint: word.includes(":")
        ? advice`${WORDS}; ${call("backup show", "show")}, \`restore\` and \`diff\` accept a path in a snapshot as ID:PATH`
        : WORDS,
    });
  const fitting = (all: readonly ListedSnapshot[]): (ListedSnapshot | DamagedFile)[] => [
    ...all.filter(({ id }) => id.startsWith(word)),
    ...damaged.filter(({ name }) => name.startsWith(word)),
  ];
  const [first, second] = fitting(snapshots);
  if (first !== undefined && second === undefined) return first;
  // A call may name thousands of snapshots by their ids. Their order matters only for other words.
  const sorted = inOrder(snapshots);
  if (first === undefined) {
    const ofPoints = sorted.filter(({ snapshot }) => pointOf(snapshot)?.startsWith(word) === true);
    const points = new Set(ofPoints.map(({ snapshot }) => pointOf(snapshot)));
    if (points.size === 1) return ofPoints.at(-1)!;
    if (points.size === 0) throw new CairnError("not_found", `no snapshot ${word}`, { hint: WORDS });
  }
  throw new CairnError("ambiguous", `${word} fits more than one snapshot`, {
    hint: "give more digits",
    details: {
      candidates: fitting(sorted)
        .slice(0, MAX_CANDIDATES)
        .map((file) => ("snapshot" in file ? file.id : file.name)),
    },
  });
}

const HEX = /^[0-9a-f]{2,64}$/;

/** A word as a time, as for save points; null for other words, and for the beginning of an id such as `5d`. */
function timeOf(word: string): number | null {
  return HEX.test(word) ? null : momentOf(word, Date.now());
}

/** The newest snapshot that was made at `moment` or before. */
function notAfter({ snapshots, damaged }: SnapshotListing, moment: number): ListedSnapshot {
  if (damaged.length > 0) throw latestUnknown(damaged);
  const moments = momentsOf(snapshots);
  const sorted = inOrder(snapshots);
  const found = sorted.findLast(({ id }) => moments.get(id)! <= moment);
  if (found !== undefined) return found;
  const [oldest] = sorted;
  throw new CairnError("not_found", `no snapshot had been made by ${localTime(moment)}`, {
    hint: `the oldest is ${oldest!.id.slice(0, 8)}, of ${localTime(moments.get(oldest!.id)!)}`,
  });
}

function latestUnknown(damaged: readonly DamagedFile[]): CairnError {
  const names = damaged.map(({ name }) => name);
  return new CairnError(
    "damaged",
    `cannot tell which snapshot is the latest: ${shortNames(names)} cannot be read, and may be newer than all others`,
    {
      hint: advice`name a snapshot by its id (${call("backup list", "list")} shows them), or ${removalHint(damaged)}`,
      cause: damaged[0]!.error,
      details: { snapshots: names },
    },
  );
}

/** Advice for unreadable files of snapshots. A file that the storage lists but does not return may be whole, so it must not be removed. */
export function removalHint(files: readonly DamagedFile[]): Hint {
  const lost = files.filter(({ error }) => error.details?.["not_given"] !== true);
  if (lost.length < files.length)
    return "run the command again later: the storage lists a snapshot that it cannot return now. If that does not change, check the server, or put the file back from a copy of the repository";
  const words = lost.length > MAX_CANDIDATES ? ["ID…"] : lost.map(({ name }) => name.slice(0, 8));
  return advice`remove unreadable snapshots: ${call(`backup forget ${words.join(" ")}`, "forget", { snapshots: words })}`;
}

function shortNames(names: readonly string[]): string {
  const shown = names.slice(0, MAX_CANDIDATES).map((name) => name.slice(0, 8));
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : "";
  return `${names.length === 1 ? "snapshot" : "snapshots"} ${shown.join(", ")}${more}`;
}

/** Warns of unreadable snapshots, which the call skips. */
export function warnOfUnreadable(
  { location }: OpenRepository,
  damaged: readonly DamagedFile[],
  { onWarning }: CallOptions,
): void {
  if (damaged.length === 0) return;
  const names = damaged.map(({ name }) => name);
  onWarning?.(
    `${shortNames(names)} of ${location} cannot be read and will be ignored; ${worded(removalHint(damaged))}`,
  );
}

/** The snapshots of a repository, oldest first, and the unreadable ones. Takes no lock: the list may be slightly old. */
export async function listBackups(access: OpenRepository, options: ListBackupsOptions): Promise<BackupList> {
  const listing = await access.repository.listSnapshots(options.signal);
  const chosen = chosenSnapshots(listing, options);
  warnOfNone(listing, chosen, options);
  warnOfDates(chosen, options.onWarning);
  const shown = options.latest === undefined ? chosen : newestOfEach(chosen, options.latest);
  return {
    ...access.info,
    snapshots: shown.map(publicSnapshot),
    damaged: listing.damaged.map(({ name, error }) => ({ snapshot_id: name, detail: error.message })),
  };
}

/** The newest snapshots of each host and paths. */
export function newestOfEach(sorted: readonly ListedSnapshot[], most: number): ListedSnapshot[] {
  const seen = new Map<string, number>();
  return sorted
    .toReversed()
    .filter(({ snapshot: { hostname, paths } }) => {
      const key = [hostname, ...paths].join("\0");
      const count = seen.get(key) ?? 0;
      seen.set(key, count + 1);
      return count < most;
    })
    .reverse();
}

/** The named snapshots, else all that the filter takes; oldest first. Throws `not_found`, `ambiguous`, `damaged` (see `findSnapshot`). */
export function chosenSnapshots(listing: SnapshotListing, choice: SnapshotChoice): ListedSnapshot[] {
  const { snapshots: words = [] } = choice;
  if (words.length === 0) return takenBy(listing, choice);
  const ids = new Set(words.map((word) => findSnapshot(listingOf(word, listing, choice), word).id));
  return inOrder(listing.snapshots).filter(({ id }) => ids.has(id));
}

/** Chooses snapshots to rewrite. Throws `usage` if a named snapshot does not fit the filter. */
export function changedSnapshots(listing: SnapshotListing, choice: SnapshotChoice): ListedSnapshot[] {
  requireOneEach(listing, choice);
  const chosen = chosenSnapshots(listing, choice);
  requireTaken(chosen, choice);
  return chosen;
}

/** Chooses files of snapshots to remove, also of unreadable snapshots, to which no filter applies. */
export function removedSnapshots(listing: SnapshotListing, choice: SnapshotChoice): Set<ListedSnapshot | DamagedFile> {
  requireOneEach(listing, choice);
  const words = choice.snapshots ?? [];
  const files = words.map((word) => findSnapshotFile(listingOf(word, listing, choice), word));
  requireTaken(
    files.filter((file) => "snapshot" in file),
    choice,
  );
  return new Set(files);
}

/**
 * Throws `ambiguous` if a save point's id means several snapshots: only one of them would be changed. Throws `usage` for
 * a time: a date could be meant for all snapshots of that day.
 */
function requireOneEach({ snapshots }: SnapshotListing, { snapshots: words = [] }: SnapshotChoice): void {
  for (const word of words) {
    if (timeOf(word) !== null)
      throw new CairnError("usage", `a time does not name snapshots to change: ${JSON.stringify(word)}`, {
        hint: advice`name them by their ids: ${call("backup list", "list")}`,
      });
    if (snapshots.some(({ id }) => id.startsWith(word))) continue;
    const of = snapshots.filter(({ snapshot }) => pointOf(snapshot)?.startsWith(word) === true);
    if (of.length < 2) continue;
    throw new CairnError("ambiguous", `there are ${of.length} snapshots of save point ${word}; nothing was changed`, {
      hint: `name the snapshots: ${of.map(({ id }) => id.slice(0, 8)).join(", ")}`,
      details: { candidates: of.map(({ id }) => id) },
    });
  }
}

function requireTaken(named: readonly ListedSnapshot[], choice: SnapshotChoice): void {
  const other = named.find(({ snapshot }) => !isChosen(snapshot, choice));
  if (other === undefined) return;
  throw new CairnError("usage", `the filter excludes snapshot ${other.id.slice(0, 8)}; nothing was changed`, {
    hint: advice`either name snapshots, or choose them by ${option("hosts")}, ${option("paths")} and ${option("tags")}`,
  });
}

/** Warns if a filter takes no snapshot: the filter may have a mistake. */
export function warnOfNone(
  { snapshots }: SnapshotListing,
  chosen: readonly ListedSnapshot[],
  { onWarning }: Pick<CallOptions, "onWarning">,
): void {
  if (chosen.length > 0 || snapshots.length === 0) return;
  onWarning?.(`no snapshot fits the filter (of ${plural(snapshots.length, "snapshot")})`);
}

function takenBy({ snapshots }: SnapshotListing, filter: SnapshotFilter): ListedSnapshot[] {
  return inOrder(snapshots).filter(({ snapshot }) => isChosen(snapshot, filter));
}

/** Returns the snapshots in which `word` is looked up: for `latest` and a time, only snapshots that match the filter. */
function listingOf(word: string, listing: SnapshotListing, filter: SnapshotFilter): SnapshotListing {
  if (word !== "latest" && timeOf(word) === null) return listing;
  const { snapshots, damaged } = listing;
  const taken = takenBy(listing, filter);
  if (taken.length > 0 || snapshots.length === 0 || damaged.length > 0) return { ...listing, snapshots: taken };
  // A filter of one path may be the default for a folder: then the message names the path.
  const { hosts = [], paths = [], tags = [] } = filter;
  const isOfPath = paths.length === 1 && hosts.length + tags.length === 0;
  const wanted = isOfPath ? `of ${paths[0]}` : "fits the filter";
  throw new CairnError(
    "not_found",
    `no snapshot ${wanted}, so there is ${word === "latest" ? "no latest one" : "none of that time"}`,
    {
      hint: advice`${call("backup list", "list")} shows all snapshots; choose by ${option("hosts")}, ${option("paths")} and ${option("tags")}, or name a snapshot by its id`,
    },
  );
}

/** The snapshot that a word means; `latest` is the newest that the filter takes. Throws `not_found`, `ambiguous`, `damaged`. */
export function chosenSnapshot(
  listing: SnapshotListing,
  word: string,
  { latestOf = {}, onWarning }: Pick<CallOptions, "onWarning"> & { latestOf?: SnapshotFilter | undefined },
): ListedSnapshot {
  const found = chosenSnapshots(listing, { ...latestOf, snapshots: [word] })[0] ?? findSnapshot(listing, word);
  if (word === "latest") warnOfFuture(takenBy(listing, latestOf), found, onWarning);
  return found;
}

/** Warns if the latest snapshot is dated in the future by a wrong clock: it stays the newest until then. `all`: oldest first. */
export function warnOfFuture(
  all: readonly ListedSnapshot[],
  { id, snapshot }: ListedSnapshot,
  onWarning: CallOptions["onWarning"],
): void {
  const moments = momentsOf(all);
  if (!isFuture(moments.get(id)!)) return;
  const newest = all.findLast((each) => !isFuture(moments.get(each.id)!));
  const other = newest === undefined ? "" : `; ${newest.id.slice(0, 8)} is the newest with a date in the past`;
  onWarning?.(
    `snapshot ${id.slice(0, 8)} counts as the latest because its date lies in the future: ${snapshot.time}${other}`,
  );
}

/** True if a filter takes a snapshot; an empty filter takes all. */
export function isChosen(snapshot: Snapshot, { hosts = [], paths = [], tags = [] }: SnapshotFilter): boolean {
  if (hosts.length > 0 && !hosts.includes(snapshot.hostname)) return false;
  if (!paths.every((path) => snapshot.paths.includes(path))) return false;
  const own = ownTags(snapshot);
  const fits = (all: readonly string[]): boolean =>
    all.length === 0 ? own.length === 0 : all.every((tag) => own.includes(tag));
  return tags.length === 0 || tags.some(fits);
}
