import { advice, CairnError, call, either } from "../../errors.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import { freeSpace } from "../../fs/linux/mounts.ts";
import { planIdOf, requirePlan } from "../../crypto/plan-id.ts";
import { formatBytes, plural } from "../../formats/sizes.ts";
import { listedNames } from "../../fs/paths/safe-path.ts";
import { compact } from "../../repository/care/compact.ts";
import {
  type MarkedPacks,
  previewSweep,
  runSweep,
  type SweepOptions,
  type SweepPlan,
  type SweepResult,
} from "../../repository/care/remove.ts";
import { namesOfMissing } from "../../repository/care/sweep-plan.ts";
import type { CallOptions, PruneBackupsOptions, PruneBackupsResult } from "../../contract/index.ts";
import { removalHint } from "../open/snapshots.ts";
import { noteDamage } from "../open/session.ts";
import { collectMemory } from "../../native.ts";
import { lockCall, type OpenRepository } from "../open/open-repository.ts";

const MAX_UNUSED = 0.05;
/** One merge takes a bounded number of small files; at most this many merges run in turn. */
const MERGES = 64;
const MERGE_BUDGET_MS = 10_000;
const MERGE_FROM = 8;
const DAMAGED_HINT = advice`nothing was freed. ${call("backup verify", "verify")} shows the damage, ${call("backup repair packs", "repair", { what: "packs" })} saves the readable content of damaged packs, and ${either("`repair snapshots`", call("repairSnapshots"))} takes lost files out of the snapshots`;

/**
 * Frees content that no snapshot needs, and merges small packs and index files; with a plan it merges nothing. `without`:
 * snapshots that count as removed, for a dry run. `index`: the caller's index.
 * - Finds the needed content, copies, indexes and then marks packs under a shared lock, beside running backups.
 * - Deletes ● packs that were marked 23 hours before under an exclusive lock, after the snapshots were listed anew; if that
 * lock is refused, the next prune deletes. A kill anywhere leaves a whole repository.
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
    mayBeMissing: options.allow?.includes("missing") === true,
    looks: options.instant === true ? "once" : "twice",
    roomForCopies: () => roomForCopies(access),
    onDamagedPack: noteDamage(access, options),
    hint: DAMAGED_HINT,
    maxWaste: maxUnused,
    work: () => access.workDirectory(),
    confirm: options.plan === undefined ? undefined : (plan) => requireShown(plan, options),
    ...lockCall(options),
  };
  if (options.dryRun === true) {
    const plan = await previewSweep(access.repository, sweep);
    sweep.confirm?.(plan);
    warnOfMissing(access, plan, options);
    warnOfMarks({ ...plan, warnings: plan.marks.warnings }, options);
    return {
      ...access.info,
      dry_run: true,
      plan_id: idOfPlan(plan, options),
      planned_packs: packsOf(plan),
      removed_packs: plan.remove.length,
      repacked_packs: plan.repack.length,
      new_packs: 0,
      ...NOTHING_MERGED,
      unindexed_packs: plan.unindexed.length,
      bytes_freed: Math.max(0, plan.bytesFreed),
      ...markedOf(plan.marked, started),
      unused_bytes: plan.unusedBytes,
      postponed: plan.unlisted.length > 0,
      missing_snapshots: missingOf(plan, options),
      damaged_packs: [...plan.unsound],
      ...since(started),
    };
  }
  const done = await runSweep(access.repository, sweep);
  warnOfMissing(access, done, options);
  warnOfMarks(done, options);
  // The plan of the sweep is garbage now, mostly outside of the collector's own memory. Takes some tens of ms.
  if (done.index !== null) collectMemory();
  const merged =
    done.index === null || options.plan !== undefined ? NOTHING_MERGED : await merge(access, done, options);
  return {
    ...access.info,
    dry_run: false,
    plan_id: null,
    planned_packs: null,
    removed_packs: done.removedPacks,
    repacked_packs: done.repackedPacks,
    new_packs: done.newPacks,
    ...merged,
    unindexed_packs: done.removedUnindexed,
    // Copies of repacked packs take room until the old packs are freed.
    bytes_freed: Math.max(0, done.bytesFreed),
    ...markedOf(done.marked, started),
    unused_bytes: done.unusedBytes,
    postponed: done.postponed,
    missing_snapshots: missingOf(done, options),
    damaged_packs: done.damagedPacks,
    ...since(started),
  };
}

function packsOf({ unmarked, remove, unindexed, repack }: SweepPlan): NonNullable<PruneBackupsResult["planned_packs"]> {
  const names = (packs: readonly { name: string }[]): string[] => packs.map(({ name }) => name).toSorted();
  return { mark: [...unmarked.keys()].toSorted(), free: names([...remove, ...unindexed]), rewrite: names(repack) };
}

function idOfPlan(plan: SweepPlan, { maxUnused = MAX_UNUSED, instant, allow = [] }: PruneBackupsOptions): string {
  const isPostponed = plan.unlisted.length > 0;
  return planIdOf(["prune", maxUnused, instant === true, allow.toSorted(), isPostponed, packsOf(plan)]);
}

function requireShown(plan: SweepPlan, options: PruneBackupsOptions): void {
  requirePlan(options.plan, idOfPlan(plan, options), () => {
    const packs = Object.entries(packsOf(plan)).flatMap(([what, names]) =>
      names.length === 0 ? [] : [`${what} ${plural(names.length, "pack")} (${listedNames(names.map(shortName))})`],
    );
    return `it would ${packs.join(", ") || "change no pack"} now`;
  });
}

function shortName(pack: string): string {
  return pack.slice(0, 8);
}

/** Half of the free room of a local repository: the rest is left for backups. */
function roomForCopies({ storage, location }: OpenRepository): number {
  if (storage.localPath === undefined) return Number.POSITIVE_INFINITY;
  const { freeBytes, totalBytes } = freeSpace(location);
  return totalBytes === 0 ? Number.POSITIVE_INFINITY : freeBytes / 2;
}

function markedOf(
  { packs, bytes, waitMs }: MarkedPacks,
  now: number,
): Pick<PruneBackupsResult, "marked_packs" | "marked_bytes" | "free_from"> {
  const isTold = packs > 0 && waitMs < Infinity;
  return { marked_packs: packs, marked_bytes: bytes, free_from: isTold ? new Date(now + waitMs).toISOString() : null };
}

function warnOfMarks(
  { warnings, crowded, look }: Pick<SweepResult, "warnings" | "crowded" | "look">,
  { onWarning, instant }: PruneBackupsOptions,
): void {
  for (const warning of warnings) onWarning?.(warning);
  if (instant !== true && look?.lookedAt === null)
    onWarning?.("the storage does not tell its time, so no second look can free what is marked: --instant frees it");
  if (crowded !== null)
    onWarning?.(
      `${formatBytes(crowded.unusedBytes)} of unused data stay in packs with needed data: there is no room for copies of these packs${instant === true ? "" : ", which a prune keeps beside them for a day; --instant removes the old packs at once"}`,
    );
}

function missingOf(
  { missing }: Pick<SweepPlan, "missing">,
  { allow }: PruneBackupsOptions,
): PruneBackupsResult["missing_snapshots"] {
  return missing.map(({ id, time, missedAt, counts }) => ({
    snapshot_id: id,
    created_at: time,
    missed_at: missedAt,
    needed: counts && allow?.includes("missing") !== true,
  }));
}

/** Warns of snapshots that this host knew and that are no longer listed. */
function warnOfMissing(
  { location }: OpenRepository,
  { missing, unlisted }: Pick<SweepPlan, "missing" | "unlisted">,
  { allow, onWarning }: PruneBackupsOptions,
): void {
  const [wrong, absent] = [true, false].map((is) => missing.filter(({ id }) => unlisted.includes(id) === is));
  if (wrong!.length > 0)
    onWarning?.(
      `${location} has snapshots that it does not list: ${namesOfMissing(wrong!)}. Its listing cannot be trusted now, so nothing was removed; run the command again later`,
    );
  const kept = absent!.filter(({ counts }) => counts && allow?.includes("missing") !== true);
  if (kept.length > 0)
    onWarning?.(
      `snapshots that this host saw in ${location} are missing now, and this host did not forget them: ${namesOfMissing(kept)}. Their content stays for 23 hours after they were first missed; if they were forgotten on another host, use --allow missing`,
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
async function merge(
  access: OpenRepository,
  { index, look }: Pick<SweepResult, "index" | "look">,
  { signal, onWarning }: CallOptions,
): Promise<Merged> {
  const merged = { ...NOTHING_MERGED };
  for (let round = 0; round < MERGES; round++) {
    const done = await compact(access.repository, index!, {
      budgetMs: MERGE_BUDGET_MS,
      trigger: MERGE_FROM,
      work: () => access.workDirectory(),
      look,
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
