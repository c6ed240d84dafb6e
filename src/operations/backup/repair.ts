import { CairnError } from "../../errors.ts";
import type { NearPacks } from "../../repository/near-packs.ts";
import { PackVerifier } from "../../repository/pack-verifier.ts";
import { type IndexRepairPlan, planIndexRepair, type RepairOptions, runIndexRepair } from "../../repository/repair.ts";
import type { StoredFile } from "../../repository/storage/storage.ts";
import type { RepairBackupsOptions, RepairBackupsResult } from "../contract.ts";
import { oneOf } from "./object-names.ts";
import { callOf, lockCall, type RepositoryAccess } from "./repository-access.ts";
import { verifyBackup } from "./verify.ts";

/**
 * Mends the index of a repository, and takes damaged packs apart. Steps, under an exclusive lock: what is sound in damaged
 * packs goes into new ones → new index files, durable → the old index files go ● one by one → damaged packs go. A kill
 * anywhere leaves everything that was readable readable, and the next repair finishes. What is lost is named, and is stored
 * again by the next backup of a folder that still has it.
 */
export async function repairBackups(
  access: RepositoryAccess,
  options: RepairBackupsOptions,
): Promise<RepairBackupsResult> {
  const started = Date.now();
  const { what } = options;
  if (what !== "index" && what !== "packs")
    throw new CairnError("usage", `repair knows index and packs, not ${JSON.stringify(what)}`);
  const repair: RepairOptions = {
    ...lockCall(options),
    work: () => access.workDirectory(),
    ...(what === "packs" ? { damagedPacks: await damagedPacks(access, options) } : {}),
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

/** Those that were named, or all that reading every byte finds. */
async function damagedPacks(access: RepositoryAccess, options: RepairBackupsOptions): Promise<Set<string>> {
  const { packs } = options;
  if (packs !== undefined) {
    const names = (await access.storage.list("data")).map(({ name }) => name);
    return new Set(packs.map((word) => oneOf("pack", word, names)));
  }
  const { problems } = await verifyBackup(access, callOf(options));
  const damaged = new Set(problems.filter(({ kind }) => kind === "pack_damaged").map(({ object }) => object));
  // Those in no index are not read by a verification; listed again as they are, their damage would pass for content.
  const unindexed = new Set(problems.filter(({ kind }) => kind === "pack_unindexed").map(({ object }) => object));
  if (unindexed.size === 0) return damaged;
  const near = access.near();
  const verifier = new PackVerifier(access.repository.keys);
  for (const pack of await access.storage.list("data"))
    if (unindexed.has(pack.name) && !(await isWhole(pack, { near, verifier, signal: options.signal })))
      damaged.add(pack.name);
  return damaged;
}

/** Whether a pack's SHA-256 is its name. */
async function isWhole(
  { name, size }: StoredFile,
  { near, verifier, signal }: { near: NearPacks; verifier: PackVerifier; signal: AbortSignal | undefined },
): Promise<boolean> {
  const verify = (descriptor: number): boolean =>
    verifier
      .verify({ descriptor, size, id: Buffer.from(name, "hex") })
      .every(({ kind }) => kind !== "name" && kind !== "size");
  return (await near.reading({ pack: name, offset: 0, length: size }, verify, signal)) === true;
}
