import { CairnError } from "../../errors.ts";
import {
  type IndexRepairPlan,
  planIndexRepair,
  type RepairOptions,
  runIndexRepair,
} from "../../repository/care/repair.ts";
import type { RepairBackupsOptions, RepairBackupsResult } from "../../contract/index.ts";
import { oneOf } from "../cat.ts";
import { callOf, lockCall, type OpenRepository } from "../open/open-repository.ts";
import { nearPacks } from "../open/session.ts";
import { verifyRepository } from "./verify.ts";

/**
 * Mends the index of a repository and takes damaged packs apart, under an exclusive lock. Names the lost content; the
 * next backup of a folder that still has it stores it again.
 * - Sound blobs of damaged packs go into new packs; new index files, durable.
 * - The old index files go ● one by one; then damaged packs. A kill leaves all blobs readable that were readable
 * before, and the next repair finishes.
 */
export async function repairBackups(
  access: OpenRepository,
  options: RepairBackupsOptions,
): Promise<RepairBackupsResult> {
  const started = Date.now();
  const { what } = options;
  if (what !== "index" && what !== "packs")
    throw new CairnError("usage", `repair knows index and packs, not ${JSON.stringify(what)}`);
  const repair: RepairOptions = {
    ...lockCall(options),
    work: () => access.workDirectory(),
    ...(what === "packs" ? { damagedPacks: await damagedPacks(access, options), near: nearPacks(access) } : {}),
  };
  const plan = await planIndexRepair(access.repository, repair);
  const planned = {
    ...access.info,
    added_packs: plan.add.map(({ name }) => name),
    dropped_packs: plan.drop.map(({ name, blobs, reason }) => ({ pack: name, blobs, reason })),
    damaged_indexes: [...plan.damagedIndexes],
    unreadable_packs: plan.unreadable.map(({ name, reason }) => ({ pack: name, reason })),
  };
  if (options.plan === true || isNothing(plan)) {
    const isPlan = options.plan === true;
    const outcome = isPlan ? { saved_blobs: null, lost_blobs: null } : { saved_blobs: 0, lost_blobs: [] };
    return { ...planned, plan: isPlan, ...outcome, duration_ms: Date.now() - started };
  }
  const done = await runIndexRepair(access.repository, plan, repair);
  return {
    ...planned,
    plan: false,
    saved_blobs: done.savedBlobs,
    lost_blobs: done.lostBlobs,
    duration_ms: Date.now() - started,
  };
}

function isNothing(plan: IndexRepairPlan): boolean {
  return plan.add.length + plan.drop.length + plan.damagedIndexes.length === 0;
}

/** The packs that the caller named, or all damaged packs that a full read finds. */
async function damagedPacks(access: OpenRepository, options: RepairBackupsOptions): Promise<Set<string>> {
  const { packs } = options;
  if (packs !== undefined) {
    const names = (await access.storage.list("data")).map(({ name }) => name);
    return new Set(packs.map((word) => oneOf("pack", word, names)));
  }
  const { problems } = await verifyRepository(access, callOf(options));
  return new Set(problems.filter(({ kind }) => kind === "pack_damaged").map(({ object }) => object));
}
