import { join } from "node:path";
import { moveByThreads } from "../../engines/transfer/move-by-threads.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";
import { lostPacks } from "../../repository/near-packs.ts";
import { NearReader, treePackEnds } from "../../repository/near-reader.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { runTransfer } from "../../repository/transfer.ts";
import { planTransfer } from "../../repository/transfer-plan.ts";
import type { CopyBackupsOptions, CopyBackupsResult } from "../contract.ts";
import { keepKnownTrees, readKnownTrees } from "./known-trees.ts";
import { chosenSnapshots } from "./list.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/**
 * Brings snapshots of one repository into another, whatever keys they have: blobs are opened, compared with their ids and
 * sealed anew. Steps: shared locks on both → packs → their index (at the latest every 64 packs or 30 s) → each snapshot's
 * file ●, oldest first. What was copied before is told by its origin and not copied again; a kill anywhere leaves whole
 * snapshots, and the next call goes on. A copy that is there is passed over, but what it lacks by the target's index is stored.
 */
export async function copyBackups(
  from: RepositoryAccess,
  to: RepositoryAccess,
  options: CopyBackupsOptions,
): Promise<CopyBackupsResult> {
  const started = Date.now();
  if (from.repository.id === to.repository.id)
    throw new CairnError("usage", `${from.location} and ${to.location} are the same repository`);
  return from.reading(options, async () =>
    to.locked(false, options, async (lock) => {
      const wanted = chosenSnapshots((await from.repository.listSnapshots(options.signal)).snapshots, options);
      const there = await to.repository.listSnapshots(options.signal);
      const known = new Set(there.snapshots.flatMap(identities));
      const missing = wanted.filter((listed) => !identities(listed).some((key) => known.has(key)));
      const [source, target] = [await from.index(), await to.index()];
      await warnOfLostPacks(to, target, options);
      // A copy that is there may have lost content since, and a repair have taken that out of the index.
      const whole = readKnownTrees(to.cache, target.epoch);
      const unproven = wanted.filter(({ snapshot }) => !whole.has(snapshot.tree));
      const near = from.near();
      const ends = treePackEnds(near, source);
      const reader = new NearReader({ repository: from.repository, near, ends, signal: options.signal });
      try {
        const plan = await planTransfer(source, target, {
          roots: unproven.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex")),
          readTree: reader.readTree,
          signal: options.signal,
          onTree: (done) => options.onProgress?.({ phase: "planning", done }),
        });
        const copied: CopyBackupsResult["copied"] = [];
        const sizes = { data_blobs: plan.dataBlobs, tree_blobs: plan.treeBlobs, bytes: plan.plainBytes };
        if (options.dryRun === true) {
          for (const { id } of missing) copied.push({ snapshot_id: id, new_id: null });
          const added = { ...sizes, stored_bytes: plan.storedBytes, packs: 0 };
          return {
            ...to.info,
            dry_run: true,
            copied,
            present: wanted.length - missing.length,
            added,
            ...since(started),
          };
        }
        const transfer = await runTransfer(
          { repository: from.repository, index: source },
          { repository: to.repository, index: target },
          plan,
          {
            directory: join(to.workDirectory(), "packs"),
            near,
            move: moveByThreads,
            uploads: { stillHeld: async () => lock.recheck() },
            signal: options.signal,
            onProgress: ({ done, total, bytes, totalBytes }) =>
              options.onProgress?.({ phase: "uploading", done, total, bytes, total_bytes: totalBytes }),
          },
        );
        await lock.recheck();
        for (const { id, snapshot } of missing) {
          // Its parent is another one there, if it is there at all.
          const { parent: _parent, ...rest } = snapshot;
          const newId = await to.repository.saveSnapshot({ ...rest, original: snapshot.original ?? id });
          copied.push({ snapshot_id: id, new_id: newId });
          failpoint("copy.snapshot-written");
        }
        for (const { snapshot } of wanted) whole.delete(snapshot.tree);
        keepKnownTrees(to.cache, target, [...wanted.map(({ snapshot }) => snapshot.tree).toReversed(), ...whole]);
        const added = { ...sizes, stored_bytes: transfer.packBytes, packs: transfer.packs };
        return {
          ...to.info,
          dry_run: false,
          copied,
          present: wanted.length - missing.length,
          added,
          ...since(started),
        };
      } finally {
        reader.close();
      }
    }),
  );
}

/** What the target's index lists and its storage has not: only a repair there makes it be stored again. */
async function warnOfLostPacks(to: RepositoryAccess, target: BlobIndex, options: CopyBackupsOptions): Promise<void> {
  const lost = lostPacks(target, await to.storage.list("data")).length;
  if (lost === 0) return;
  options.onWarning?.(
    `${to.location} has lost or cut ${lost} of its packs: \`cairn backup repair packs\` there, then a copy stores what they held again`,
  );
}

/** What two copies of one snapshot have in common: where they came from, with the content they had then. */
function identities({ id, snapshot }: ListedSnapshot): string[] {
  const origins = snapshot.original === undefined ? [id] : [id, snapshot.original];
  return origins.map((origin) => `${objectIdOf(Buffer.from(origin, "hex"))} ${snapshot.tree}`);
}

function since(started: number): { duration_ms: number } {
  return { duration_ms: Date.now() - started };
}
