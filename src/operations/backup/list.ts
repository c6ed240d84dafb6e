import { CairnError } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import type { Snapshot } from "../../formats/snapshot.ts";
import type { DamagedFile, ListedSnapshot, SnapshotListing } from "../../repository/repository.ts";
import type { BackupList, CallOptions, ListBackupsOptions, SnapshotChoice, SnapshotFilter } from "../contract.ts";
import { findSnapshot, findSnapshotFile } from "./find-snapshot.ts";
import { byTime, ownTags, pointOf, publicSnapshot } from "./public-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/** The snapshots of a repository, oldest first, and those that cannot be read. Takes no lock: a list may be late. */
export async function listBackups(access: RepositoryAccess, options: ListBackupsOptions): Promise<BackupList> {
  const listing = await access.repository.listSnapshots(options.signal);
  const chosen = chosenSnapshots(listing, options);
  warnOfNone(listing, chosen, options);
  const shown = options.latest === undefined ? chosen : newestOfEach(chosen, options.latest);
  return {
    ...access.info,
    snapshots: shown.map(publicSnapshot),
    damaged: listing.damaged.map(({ name, error }) => ({ snapshot_id: name, detail: error.message })),
  };
}

/** Those that are named, else all that a filter takes; oldest first. `not_found`, `ambiguous`, `damaged` (see `findSnapshot`). */
export function chosenSnapshots(listing: SnapshotListing, choice: SnapshotChoice): ListedSnapshot[] {
  const { snapshots: words = [] } = choice;
  if (words.length === 0) return takenBy(listing, choice);
  const ids = new Set(words.map((word) => findSnapshot(listingOf(word, listing, choice), word).id));
  return listing.snapshots.filter(({ id }) => ids.has(id)).sort(byTime);
}

/** The same for what removes snapshots, or writes them anew: `usage` for one that is named beside a filter that does not take it. */
export function changedSnapshots(listing: SnapshotListing, choice: SnapshotChoice): ListedSnapshot[] {
  requireOneEach(listing, choice);
  const chosen = chosenSnapshots(listing, choice);
  requireTaken(chosen, choice);
  return chosen;
}

/** The files of snapshots that are to go, likewise; also those that cannot be read, which no filter takes or leaves. */
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

/** `ambiguous` for the id of a save point of which there are several: only one of them would go, or change. */
function requireOneEach({ snapshots }: SnapshotListing, { snapshots: words = [] }: SnapshotChoice): void {
  for (const word of words) {
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
  throw new CairnError("usage", `snapshot ${other.id.slice(0, 8)} is none that the filter takes; nothing was changed`, {
    hint: "name snapshots, or choose them by --host, --path and --tag",
  });
}

/** A filter with a mistake in it is no reason to say nothing. */
export function warnOfNone(
  { snapshots }: SnapshotListing,
  chosen: readonly ListedSnapshot[],
  { onWarning }: Pick<CallOptions, "onWarning">,
): void {
  if (chosen.length > 0 || snapshots.length === 0) return;
  onWarning?.(`no snapshot fits the filter (of ${plural(snapshots.length, "snapshot")})`);
}

function takenBy({ snapshots }: SnapshotListing, filter: SnapshotFilter): ListedSnapshot[] {
  return snapshots.filter(({ snapshot }) => isChosen(snapshot, filter)).sort(byTime);
}

/** In which a word names a snapshot: `latest` is of those that the filter takes. */
function listingOf(word: string, listing: SnapshotListing, filter: SnapshotFilter): SnapshotListing {
  if (word !== "latest") return listing;
  const { snapshots, damaged } = listing;
  const taken = takenBy(listing, filter);
  if (taken.length === 0 && snapshots.length > 0 && damaged.length === 0)
    throw new CairnError("not_found", `no snapshot ${wordsOf(filter)}, so there is no latest one`, {
      hint: "`cairn backup list` shows what there is; choose by --host, --path and --tag, or name a snapshot by its id",
    });
  return { ...listing, snapshots: taken };
}

/** A path may be meant without being given: the folder's own. */
function wordsOf({ hosts = [], paths = [], tags = [] }: SnapshotFilter): string {
  const [path] = paths;
  return path === undefined || paths.length + hosts.length + tags.length > 1 ? "fits the filter" : `of ${path}`;
}

/** The one that a word means, `latest` being the newest that a filter takes. `not_found`, `ambiguous`, `damaged`. */
export function chosenSnapshot(
  listing: SnapshotListing,
  word: string,
  { latestOf = {}, onWarning }: { latestOf?: SnapshotFilter | undefined; onWarning?: OnWarning },
): ListedSnapshot {
  const found = chosenSnapshots(listing, { ...latestOf, snapshots: [word] })[0] ?? findSnapshot(listing, word);
  if (word === "latest") warnOfFuture(takenBy(listing, latestOf), found, onWarning);
  return found;
}

type OnWarning = CallOptions["onWarning"] | undefined;

const DAY_MS = 86_400_000;

/** What a wrong clock has dated in the future is the newest until then, whatever is backed up meanwhile. `all`: oldest first. */
export function warnOfFuture(
  all: readonly ListedSnapshot[],
  { id, snapshot }: ListedSnapshot,
  onWarning: OnWarning,
): void {
  const now = Date.now();
  if (Date.parse(snapshot.time) <= now + DAY_MS) return;
  const newest = all.findLast((each) => Date.parse(each.snapshot.time) <= now);
  const other = newest === undefined ? "" : `, and ${newest.id.slice(0, 8)} is the newest of the past`;
  onWarning?.(`snapshot ${id.slice(0, 8)} is the latest as its date is yet to come: ${snapshot.time}${other}`);
}

/** Whether a snapshot is one of those that a filter names; a filter that names nothing takes all. */
export function isChosen(snapshot: Snapshot, filter: SnapshotFilter): boolean {
  const { hosts, paths, tags } = filter;
  if (hosts !== undefined && hosts.length > 0 && !hosts.includes(snapshot.hostname)) return false;
  if (paths?.every((path) => snapshot.paths.includes(path)) === false) return false;
  if (tags === undefined || tags.length === 0) return true;
  const own = ownTags(snapshot);
  return tags.some((all) => (all.length === 0 ? own.length === 0 : all.every((tag) => own.includes(tag))));
}

function newestOfEach(sorted: readonly ListedSnapshot[], most: number): ListedSnapshot[] {
  const left = new Map<string, number>();
  const kept: ListedSnapshot[] = [];
  for (const listed of sorted.toReversed()) {
    const { hostname, paths } = listed.snapshot;
    const key = [hostname, ...paths].join("\0");
    const count = left.get(key) ?? most;
    if (count <= 0) continue;
    left.set(key, count - 1);
    kept.push(listed);
  }
  return kept.reverse();
}
