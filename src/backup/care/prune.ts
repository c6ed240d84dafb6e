import { advice, CairnError, call, either } from "../../errors.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import { compact } from "../../repository/care/compact.ts";
import { previewSweep, runSweep, type SweepOptions, type SweepPlan } from "../../repository/care/remove.ts";
import { namesOfMissing } from "../../repository/care/sweep-plan.ts";
import type { CallOptions, PruneBackupsOptions, PruneBackupsResult } from "../../contract/index.ts";
import { removalHint } from "../open/snapshots.ts";
import { warnOfOthers } from "../open/session.ts";
import { collectMemory } from "../../native.ts";
import { lockCall, type OpenRepository } from "../open/open-repository.ts";

const MAX_UNUSED = 0.05;
/** One merge takes a bounded number of small files; at most this many merges run in turn. */
const MERGES = 64;
const MERGE_BUDGET_MS = 10_000;
const MERGE_FROM = 8;
const DAMAGED_HINT = advice`nothing was freed. ${call("backup verify", "verify")} shows the damage, ${call("backup repair packs", "repair", { what: "packs" })} saves the readable content of damaged packs, and ${either("`repair snapshots`", call("repairSnapshots"))} takes lost files out of the snapshots`;

/**
 * Frees content that no snapshot needs, and merges small packs and index files. `without`: snapshots that count as
 * removed, for a dry run. `index`: the caller's index.
 * - Marks, copies and indexes under a shared lock, beside running backups.
 * - Deletes ● under an exclusive lock; if that lock is refused, the next prune deletes. A kill anywhere leaves a whole
 * repository.
 */
export async function pruneBackups(
  access: OpenRepository,
  options: PruneBackupsOptions,
  { without = new Set(), index }: { without?: ReadonlySet<string>; index?: BlobIndex | undefined } = {},
): Promise<PruneBackupsResult> {
  const started = Date.now();
  const { maxUnused = MAX_UNUSED } = options;
  if (!(maxUnused >= 0 && maxUnused <= 1))
    throw new CairnError("usage", `the share of unused space must be from 0 to 1; found ${maxUnused}`);
  const sweep: SweepOptions = {
    cachePath: access.indexCache(),
    index,
    roots: async () => [],
    onTree: (done) => options.onProgress?.({ phase: "cleaning", done }),
    withoutSnapshots: without,
    unreadableHint: removalHint,
    mayBeEmpty: options.allow?.includes("empty") === true,
    instant: options.instant === true,
    onElsewhere: warnOfOthers(access, options),
    hint: DAMAGED_HINT,
    maxWaste: maxUnused,
    work: () => access.workDirectory(),
    ...lockCall(options),
  };
  if (options.dryRun === true) {
    const plan = await previewSweep(access.repository, sweep);
    warnOfMissing(access, plan, options);
    return {
      ...access.info,
      dry_run: true,
      removed_packs: plan.remove.length,
      repacked_packs: plan.repack.length,
      new_packs: 0,
      ...NOTHING_MERGED,
      unindexed_packs: plan.unindexed.length,
      bytes_freed: plan.bytesFreed,
      unused_bytes: plan.unusedBytes,
      postponed: plan.unlisted.length > 0,
      missing_snapshots: missingOf(plan, options),
      damaged_packs: [...plan.unsound],
      ...since(started),
    };
  }
  const done = await runSweep(access.repository, sweep);
  warnOfMissing(access, done, options);
  // The plan of the sweep is garbage now, mostly outside of the collector's own memory. Takes some tens of ms.
  if (done.index !== null) collectMemory();
  const merged = done.index === null ? NOTHING_MERGED : await merge(access, done.index, options);
  return {
    ...access.info,
    dry_run: false,
    removed_packs: done.removedPacks,
    repacked_packs: done.repackedPacks,
    new_packs: done.newPacks,
    ...merged,
    unindexed_packs: done.removedUnindexed,
    bytes_freed: done.bytesFreed,
    unused_bytes: done.unusedBytes,
    postponed: done.postponed,
    missing_snapshots: missingOf(done, options),
    damaged_packs: done.damagedPacks,
    ...since(started),
  };
}

function missingOf(
  { missing }: Pick<SweepPlan, "missing">,
  { instant }: PruneBackupsOptions,
): PruneBackupsResult["missing_snapshots"] {
  return missing.map(({ id, time, missedAt, counts }) => ({
    snapshot_id: id,
    created_at: time,
    missed_at: missedAt,
    needed: counts && instant !== true,
  }));
}

/** Warns of snapshots that this host knew and that are no longer listed. */
function warnOfMissing(
  { location }: OpenRepository,
  { missing, unlisted }: Pick<SweepPlan, "missing" | "unlisted">,
  { instant, onWarning }: PruneBackupsOptions,
): void {
  const [wrong, absent] = [true, false].map((is) => missing.filter(({ id }) => unlisted.includes(id) === is));
  if (wrong!.length > 0)
    onWarning?.(
      `${location} has snapshots that it does not list: ${namesOfMissing(wrong!)}. Its listing cannot be trusted now, so nothing was removed; run the command again later`,
    );
  const kept = absent!.filter(({ counts }) => counts && instant !== true);
  if (kept.length > 0)
    onWarning?.(
      `snapshots that this host saw in ${location} are missing now, and this host did not forget them: ${namesOfMissing(kept)}. Their content stays for 24 hours after they were first missed; if they were forgotten on another host, --instant frees the content at once`,
    );
  const freed = absent!.filter((each) => !kept.includes(each));
  if (freed.length > 0)
    onWarning?.(
      `snapshots that this host saw in ${location} are missing there, and count as forgotten now: ${namesOfMissing(freed)}`,
    );
}

type Merged = Pick<PruneBackupsResult, "merged_packs" | "merged_indexes">;

const NOTHING_MERGED: Merged = { merged_packs: 0, merged_indexes: 0 };

/** Merges index files and packs of many small backups. Work that other processes block is left for a later call. */
async function merge(access: OpenRepository, index: BlobIndex, { signal, onWarning }: CallOptions): Promise<Merged> {
  const merged = { ...NOTHING_MERGED };
  for (let round = 0; round < MERGES; round++) {
    const done = await compact(access.repository, index, {
      budgetMs: MERGE_BUDGET_MS,
      trigger: MERGE_FROM,
      work: () => access.workDirectory(),
      signal,
      onWarning,
    });
    merged.merged_packs += done.mergedPacks;
    merged.merged_indexes += done.mergedIndexes;
    if (done.postponed || done.mergedIndexes === 0) break;
  }
  return merged;
}

function since(started: number): { duration_ms: number } {
  return { duration_ms: Date.now() - started };
}
