import type { Snapshot } from "../../formats/snapshot.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { BackupList, ListBackupsOptions, SnapshotFilter } from "../contract.ts";
import { byTime, ownTags, publicSnapshot } from "./public-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/** The snapshots of a repository, oldest first, and those that cannot be read. Takes no lock: a list may be late. */
export async function listBackups(access: RepositoryAccess, options: ListBackupsOptions): Promise<BackupList> {
  const { snapshots, damaged } = await access.repository.listSnapshots(options.signal);
  const chosen = snapshots.filter(({ snapshot }) => isChosen(snapshot, options)).sort(byTime);
  const shown = options.latest === undefined ? chosen : newestOfEach(chosen, options.latest);
  return {
    ...access.info,
    snapshots: shown.map(publicSnapshot),
    damaged: damaged.map(({ name, error }) => ({ snapshot_id: name, detail: error.message })),
  };
}

/** Whether a snapshot is one of those that a filter names; a filter that names nothing takes all. */
export function isChosen(snapshot: Snapshot, filter: SnapshotFilter): boolean {
  const { hosts, paths, tags } = filter;
  if (hosts !== undefined && hosts.length > 0 && !hosts.includes(snapshot.hostname)) return false;
  if (paths !== undefined && paths.length > 0 && !paths.some((path) => snapshot.paths.includes(path))) return false;
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
