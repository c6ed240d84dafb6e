import { CairnError } from "../../errors.ts";
import type { Snapshot } from "../../formats/snapshot.ts";
import type { ListedSnapshot, SnapshotListing } from "../../repository/repository.ts";
import type { BackupList, ListBackupsOptions, SnapshotChoice, SnapshotFilter } from "../contract.ts";
import { findSnapshot } from "./find-snapshot.ts";
import { byTime, ownTags, publicSnapshot } from "./public-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/** The snapshots of a repository, oldest first, and those that cannot be read. Takes no lock: a list may be late. */
export async function listBackups(access: RepositoryAccess, options: ListBackupsOptions): Promise<BackupList> {
  const listing = await access.repository.listSnapshots(options.signal);
  const chosen = chosenSnapshots(listing, options);
  const shown = options.latest === undefined ? chosen : newestOfEach(chosen, options.latest);
  return {
    ...access.info,
    snapshots: shown.map(publicSnapshot),
    damaged: listing.damaged.map(({ name, error }) => ({ snapshot_id: name, detail: error.message })),
  };
}

/** Those that are named, else all that a filter takes; oldest first. `not_found`, `ambiguous`, `damaged` (see `findSnapshot`). */
export function chosenSnapshots(listing: SnapshotListing, choice: SnapshotChoice): ListedSnapshot[] {
  const { snapshots, damaged } = listing;
  const { snapshots: words = [] } = choice;
  const taken = snapshots.filter(({ snapshot }) => isChosen(snapshot, choice)).sort(byTime);
  if (words.length === 0) return taken;
  if (words.includes("latest") && taken.length === 0 && snapshots.length > 0 && damaged.length === 0)
    throw new CairnError("not_found", "no snapshot fits the filter, so there is no latest one", {
      hint: "`cairn backup list` shows what there is; choose by --host, --path and --tag, or name a snapshot by its id",
    });
  const ids = new Set(
    words.map((word) => findSnapshot(word === "latest" ? { snapshots: taken, damaged } : listing, word).id),
  );
  return snapshots.filter(({ id }) => ids.has(id)).sort(byTime);
}

/** The one that a word means, `latest` being the newest that a filter takes. `not_found`, `ambiguous`, `damaged`. */
export function chosenSnapshot(listing: SnapshotListing, word: string, latestOf: SnapshotFilter = {}): ListedSnapshot {
  return chosenSnapshots(listing, { ...latestOf, snapshots: [word] })[0] ?? findSnapshot(listing, word);
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
