import { advice, CairnError, either, option } from "../../errors.ts";
import { encodeSnapshot, type Snapshot } from "../../formats/restic/snapshot.ts";
import { replaceSnapshots } from "../../repository/care/remove.ts";
import type { ListedSnapshot, SnapshotListing } from "../../repository/repository.ts";
import type { TaggedSnapshot, TagBackupsOptions, TagBackupsResult } from "../../contract/index.ts";
import { changedSnapshots, checkSnapshotTags, ownTags, warnOfUnreadable } from "../open/snapshots.ts";
import type { OpenRepository } from "../open/open-repository.ts";

/**
 * Gives snapshots other tags, under an exclusive lock. A snapshot's id is the hash of its file, so each snapshot is
 * stored anew, and its `original` has the id of its first file, as in restic. For one snapshot after the other:
 * - The new file is written; then the old file is removed, which is the commit point (●).
 * - A kill in between leaves both, which differ only in their tags; the next call removes the old one.
 */
export async function tagBackups(access: OpenRepository, options: TagBackupsOptions): Promise<TagBackupsResult> {
  const edit = editOf(options);
  const started = Date.now();
  const done = ({ tagged, unchanged }: Pick<TagBackupsResult, "tagged" | "unchanged">): TagBackupsResult => ({
    ...access.info,
    dry_run: options.dryRun === true,
    tagged,
    unchanged,
    duration_ms: Date.now() - started,
  });
  const read = async (): Promise<SnapshotListing> => {
    const listing = await access.repository.listSnapshots(options.signal);
    warnOfUnreadable(access, listing.damaged, options);
    return listing;
  };
  if (options.dryRun === true) {
    const { changed, unchanged } = changesIn(await read(), options, edit);
    return done({ tagged: changed.map((each) => publicChange(each, null)), unchanged });
  }
  await access.repository.tryRemoval();
  return access.locked(true, options, async (lock) => {
    const listing = await read();
    const { changed, unchanged } = changesIn(listing, options, edit);
    const before = new Map(listing.snapshots.map(({ id, snapshot }) => [textOf(snapshot), id]));
    await lock.recheck();
    const ids = await replaceSnapshots(
      access.repository,
      changed.map(({ old, snapshot }) => ({ old: old.id, snapshot, made: before.get(textOf(snapshot)) ?? null })),
      options.signal,
    );
    return done({ tagged: changed.map((each, at) => publicChange(each, ids[at]!)), unchanged });
  });
}

type Edit = (tags: readonly string[]) => string[];

interface Change {
  old: ListedSnapshot;
  snapshot: Snapshot;
}

function editOf({
  add = [],
  remove = [],
  set,
  snapshots = [],
  hosts = [],
  paths = [],
  tags = [],
}: TagBackupsOptions): Edit {
  if (set === undefined && add.length + remove.length === 0)
    throw new CairnError("usage", "no tags were given", {
      hint: advice`give ${option("add")}, ${option("remove")} or ${option("set")}; ${either("--set ''", "an empty `set`")} takes all tags away`,
    });
  if (set !== undefined && add.length + remove.length > 0)
    throw new CairnError("usage", "either set the tags, or add and remove some, not both");
  checkSnapshotTags([...add, ...remove, ...(set ?? [])]);
  if (snapshots.length + hosts.length + paths.length + tags.length === 0)
    throw new CairnError("usage", "no snapshots were chosen", {
      hint: advice`name snapshots (ids, prefixes, latest), or choose them by ${option("hosts")}, ${option("paths")} and ${option("tags")}`,
    });
  return (own) => [...new Set(set ?? [...own, ...add])].filter((tag) => !remove.includes(tag));
}

function changesIn(
  listing: SnapshotListing,
  options: TagBackupsOptions,
  edit: Edit,
): { changed: Change[]; unchanged: number } {
  const chosen = changedSnapshots(listing, options);
  const changed = chosen.flatMap((old): Change[] => {
    const { snapshot, id } = old;
    const own = ownTags(snapshot);
    const wanted = edit(own);
    if (wanted.join("\0") === own.join("\0")) return [];
    const ours = (snapshot.tags ?? []).filter((tag) => !own.includes(tag));
    return [{ old, snapshot: { ...snapshot, tags: [...wanted, ...ours], original: snapshot.original ?? id } }];
  });
  return { changed, unchanged: chosen.length - changed.length };
}

function textOf(snapshot: Snapshot): string {
  return Buffer.from(encodeSnapshot(snapshot)).toString("latin1");
}

function publicChange({ old, snapshot }: Change, newId: string | null): TaggedSnapshot {
  return { snapshot_id: old.id, created_at: snapshot.time, new_id: newId, tags: ownTags(snapshot) };
}
