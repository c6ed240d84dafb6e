import { checkRetention, applyRetention, keepsByRule, type RetentionDecision } from "../../workspace/keep/retention.ts";
import { advice, CairnError, call, option, reworded } from "../../errors.ts";
import { planIdOf, requirePlan } from "../../crypto/plan-id.ts";
import { plural } from "../../formats/sizes.ts";
import { listedNames } from "../../fs/paths/safe-path.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import { removeSnapshots } from "../../repository/care/remove.ts";
import type { DamagedFile, ListedSnapshot, SnapshotListing } from "../../repository/repository.ts";
import { refuseEmpty, requireReadable, requireWholeIndex } from "../../repository/care/sweep-plan.ts";
import type {
  ForgetBackupsOptions,
  ForgetBackupsResult,
  ForgetGroup,
  PruneBackupsResult,
  SnapshotGrouping,
} from "../../contract/index.ts";
import {
  isChosen,
  isIncomplete,
  ownTags,
  removalHint,
  removedSnapshots,
  inOrder,
  isFuture,
  momentsOf,
  uploadedAt,
  warnOfNone,
  warnOfUnreadable,
} from "../open/snapshots.ts";
import { pruneBackups } from "./prune.ts";
import { lockCall, type OpenRepository } from "../open/open-repository.ts";

const GROUPING: readonly SnapshotGrouping[] = ["host", "paths"];

/**
 * Removes snapshots by rules or by id. Each removal of a file is one step: a kill leaves some of the chosen snapshots
 * whole, and the next call with the same rules removes them. `prune` frees their content; `plan` covers the snapshots
 * only. Removes an unreadable snapshot only by its name; rules neither count nor remove it.
 */
export async function forgetBackups(
  access: OpenRepository,
  options: ForgetBackupsOptions,
): Promise<ForgetBackupsResult> {
  const started = Date.now();
  const listing = await access.repository.listSnapshots(options.signal);
  const decision = decide(listing, options);
  requireShown(access, decision, options);
  const { groups, unreadable } = decision;
  if (options.retention !== undefined) warnOfUnreadable(access, listing.damaged, options);
  const doomed = [...doomedOf(groups), ...unreadable.map(({ name }) => name)];
  const dryRun = options.dryRun === true;
  const index = options.prune === true ? await prunableIndex(access, listing, { doomed, options }) : undefined;
  if (!dryRun && doomed.length > 0) {
    await removeSnapshots(access.repository, doomed, {
      ...lockCall(options),
      confirm: async () => {
        await requireStillDoomed(access, doomed, options);
        await requireStillUnreadable(access, unreadable);
      },
    });
  }
  const prune = options.prune === true ? await pruneAfter(access, options, { doomed, dryRun, index }) : null;
  return {
    ...access.info,
    dry_run: dryRun,
    plan_id: dryRun ? idOfPlan(decision, options) : null,
    groups,
    unreadable: unreadable.map(({ name, error }) => ({ snapshot_id: name, reason: error.message })),
    removed: dryRun ? [] : doomed,
    prune,
    duration_ms: Date.now() - started,
  };
}

/**
 * Returns the index for the prune. Throws `damaged` or `refused`, before a snapshot is removed, if the prune could not
 * run.
 */
async function prunableIndex(
  access: OpenRepository,
  { snapshots, damaged }: SnapshotListing,
  { doomed, options }: { doomed: readonly string[]; options: ForgetBackupsOptions },
): Promise<BlobIndex> {
  requireReadable(damaged, { withoutSnapshots: new Set(doomed), unreadableHint: removalHint });
  const index = await access.index(options.signal);
  requireWholeIndex(index);
  const stays = snapshots.some(({ id }) => !doomed.includes(id));
  if (!stays && index.packCount > 0 && options.allow?.includes("empty") !== true)
    refuseEmpty(access.storage, access.repository.seen?.missing() ?? []);
  return index;
}

/** If the prune fails, the error still says that the snapshots are gone. */
async function pruneAfter(
  access: OpenRepository,
  options: ForgetBackupsOptions,
  { doomed, dryRun, index }: { doomed: readonly string[]; dryRun: boolean; index: BlobIndex | undefined },
): Promise<PruneBackupsResult> {
  try {
    return await pruneBackups(
      access,
      { ...options, plan: undefined },
      { without: new Set(dryRun ? doomed : []), index },
    );
  } catch (error) {
    if (dryRun || doomed.length === 0 || !(error instanceof CairnError)) throw error;
    throw reworded(error, {
      message: `${plural(doomed.length, "snapshot")} removed, but the prune failed: ${error.message}`,
    });
  }
}

function doomedOf(groups: readonly ForgetGroup[]): string[] {
  return groups.flatMap((group) => group.snapshots.filter(({ keep }) => !keep).map((each) => each.snapshot_id));
}

function idOfPlan({ groups, unreadable }: Decision, { prune, instant, allow = [] }: ForgetBackupsOptions): string {
  const lists = groups.map(({ snapshots }) => snapshots.map(({ snapshot_id: id, keep }) => [id, keep]));
  const names = unreadable.map(({ name }) => name);
  return planIdOf(["forget", prune === true, instant === true, allow.toSorted(), names, ...lists]);
}

/** Throws `stale_plan` if the caller was shown another decision. */
function requireShown(
  { repository: { seen } }: OpenRepository,
  decision: Decision,
  options: ForgetBackupsOptions,
): void {
  if (options.plan === undefined) return;
  requirePlan(options.plan, idOfPlan(decision, options), () => inWords(decision, seen));
}

function inWords(decision: Decision, seen: OpenRepository["repository"]["seen"]): string {
  const all = decision.groups.flatMap(({ snapshots }) => snapshots);
  const newest = all.toSorted((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at));
  const [kept, going] = [true, false].map((is) => newest.filter(({ keep }) => keep === is));
  const gone = named(seen?.missing().map(({ id }) => id) ?? []);
  const lists = [
    `remove ${named([...decision.unreadable.map(({ name }) => name), ...going!.map((each) => each.snapshot_id)])}`,
    `keep ${named(kept!.map((each) => each.snapshot_id))}`,
  ];
  const missing = gone === NONE ? "" : `; this host saw ${gone} before that the repository no longer lists`;
  return `it would ${lists.join(" and ")} now${missing}`;
}

const NONE = "no snapshot";

function named(ids: readonly string[]): string {
  if (ids.length === 0) return NONE;
  return `${plural(ids.length, "snapshot")} (${listedNames(ids.map((id) => id.slice(0, 8)))})`;
}

/**
 * Decides again under the lock: another process may have removed snapshots that the rules would have kept instead, or
 * made snapshots that the plan does not list. Throws `stale_plan`.
 */
async function requireStillDoomed(
  access: OpenRepository,
  doomed: readonly string[],
  options: ForgetBackupsOptions,
): Promise<void> {
  if (options.retention === undefined && options.plan === undefined) return;
  const listing = await access.repository.listSnapshots(options.signal);
  const decision = decide(listing, options);
  requireShown(access, decision, options);
  const now = new Set(doomedOf(decision.groups));
  const present = new Set<string>(listing.snapshots.map(({ id }) => id));
  if (doomed.every((id) => now.has(id) || !present.has(id))) return;
  throw new CairnError(
    "stale_plan",
    "snapshots were removed meanwhile, so the rules now keep other snapshots; nothing was removed",
    {
      hint: "run the command again",
    },
  );
}

/** Throws `stale_plan` if a snapshot can be read now: perhaps only the connection damaged it before. */
async function requireStillUnreadable(access: OpenRepository, unreadable: readonly DamagedFile[]): Promise<void> {
  for (const { name } of unreadable) {
    try {
      await access.asStored(async () => access.repository.loadSnapshot(name));
    } catch (error) {
      if (error instanceof CairnError && (error.code === "damaged" || error.code === "not_found")) continue;
      throw error;
    }
    throw new CairnError("stale_plan", `snapshot ${name.slice(0, 8)} can be read now; nothing was removed`, {
      hint: advice`look at the snapshot with ${call("backup list", "list")}; to remove it anyway, run the command again`,
    });
  }
}

/**
 * If the newest snapshot is kept, also keeps the last upload: after a restore of an older state, only the last upload
 * has the folder's present content. `sorted`: oldest state first.
 */
function keepingLastUpload(
  sorted: readonly ListedSnapshot[],
  decisions: readonly RetentionDecision[],
): readonly RetentionDecision[] {
  if (sorted.length === 0) return decisions;
  const keeps = new Set<string>(decisions.flatMap(({ id, keep }) => (keep ? id : [])));
  const last = sorted.reduce((late, each) => (uploadedAt(each) >= uploadedAt(late) ? each : late));
  const isHeld = sorted.some(({ id, snapshot }) => keeps.has(id) && snapshot.tree === last.snapshot.tree);
  if (!keeps.has(sorted.at(-1)!.id) || isHeld) return decisions;
  return decisions.map((each) => (each.id === last.id ? { ...each, keep: true, reasons: ["uploaded last"] } : each));
}

interface Decision {
  groups: ForgetGroup[];
  /** Unreadable snapshots that the caller named; they belong to no group. */
  unreadable: DamagedFile[];
}

function decide(listing: SnapshotListing, options: ForgetBackupsOptions): Decision {
  const { snapshots: named, retention } = options;
  const { snapshots } = listing;
  if (named !== undefined) {
    if (retention !== undefined) throw new CairnError("usage", "name snapshots or give rules, not both");
    const files = removedSnapshots(listing, options);
    const unreadable = listing.damaged.filter((file) => files.has(file));
    const groups = groupsOf(snapshots, GROUPING).flatMap((group) => {
      const chosen = group.filter((listed) => files.has(listed));
      return chosen.length === 0
        ? []
        : [
            groupResult(
              chosen,
              GROUPING,
              chosen.map(({ id }) => ({ id, keep: false, reasons: ["named"] })),
            ),
          ];
    });
    return { groups, unreadable };
  }
  if (retention === undefined || !keepsByRule(retention))
    throw new CairnError("usage", "forget needs the snapshots to remove, or a rule that keeps some", {
      hint: advice`for example ${option({ retention: { keepLast: 10, keepDaily: 30 } }, "--keep-last 10 --keep-daily 30")}, or the ids of the snapshots to remove`,
    });
  checkRetention(retention);
  const grouping = options.groupBy ?? GROUPING;
  const chosen = snapshots.filter(({ snapshot }) => isChosen(snapshot, options));
  warnOfNone(listing, chosen, options);
  const moments = momentsOf(snapshots);
  const groups = groupsOf(chosen, grouping).map((group) => {
    // Snapshots dated in the future cannot be ordered: they stay, and take no other snapshot's place.
    const [dated, undated] = [false, true].map((is) => group.filter(({ id }) => isFuture(moments.get(id)!) === is));
    const decided = applyRetention(
      dated!.map(({ id, snapshot }, sequence) => ({
        id,
        sequence,
        time: moments.get(id)!,
        tags: ownTags(snapshot),
        undo: false,
        incomplete: isIncomplete(snapshot),
      })),
      retention,
      Date.now(),
    );
    const future = undated!.map(({ id }) => ({ id, keep: true, reasons: ["dated in the future"] }));
    const decisions = [...future, ...keepingLastUpload(dated!, decided)];
    const result = groupResult(group, grouping, decisions);
    if (dated!.length > 0 && decisions.every(({ id, keep }) => !keep || isFuture(moments.get(id)!)))
      throw keepsNothing(result);
    return result;
  });
  return { groups, unreadable: [] };
}

function keepsNothing({ hostname, paths, tags, snapshots }: ForgetGroup): CairnError {
  const parts = [
    paths === null ? "" : ` of ${paths.join(", ")}`,
    hostname === null ? "" : ` on ${hostname}`,
    tags === null ? "" : tags.length === 0 ? " without tags" : ` tagged ${tags.join(", ")}`,
  ];
  return new CairnError(
    "refused",
    `the rules keep none of ${plural(snapshots.length, "snapshot")}${parts.join("")}; nothing was removed`,
    {
      hint: advice`add a rule such as ${option({ retention: { keepLast: 1 } }, "--keep-last 1")}, choose with ${option("hosts")}, ${option("paths")} and ${option("tags")}, or name the snapshots to remove`,
    },
  );
}

function keyOf({ snapshot }: ListedSnapshot, grouping: readonly SnapshotGrouping[]): string {
  return JSON.stringify([
    grouping.includes("host") ? snapshot.hostname : null,
    grouping.includes("paths") ? snapshot.paths.toSorted() : null,
    grouping.includes("tags") ? ownTags(snapshot).toSorted() : null,
  ]);
}

function groupsOf(snapshots: readonly ListedSnapshot[], grouping: readonly SnapshotGrouping[]): ListedSnapshot[][] {
  const groups = new Map<string, ListedSnapshot[]>();
  for (const listed of inOrder(snapshots)) {
    const key = keyOf(listed, grouping);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [listed]);
    else group.push(listed);
  }
  return [...groups.values()];
}

function groupResult(
  group: readonly ListedSnapshot[],
  grouping: readonly SnapshotGrouping[],
  decisions: readonly RetentionDecision[],
): ForgetGroup {
  const { snapshot: first } = group[0]!;
  const byId = new Map<string, ListedSnapshot>(group.map((listed) => [listed.id, listed]));
  return {
    hostname: grouping.includes("host") ? first.hostname : null,
    paths: grouping.includes("paths") ? first.paths : null,
    tags: grouping.includes("tags") ? ownTags(first) : null,
    snapshots: decisions.map(({ id, keep, reasons }) => ({
      snapshot_id: id,
      created_at: byId.get(id)!.snapshot.time,
      keep,
      reasons,
    })),
  };
}
