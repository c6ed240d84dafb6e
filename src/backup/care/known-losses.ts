import type { CallOptions } from "../../contract/index.ts";
import { advice, CairnError, call, option } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import { loadPackHeader } from "../../repository/packs/pack-read.ts";
import { packSizes } from "../../repository/storage/storage.ts";
import { lostPacks } from "../../repository/read/near-packs.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { type Session, within } from "../open/session.ts";

/**
 * Runs `work` with an index that lists no lost pack. Throws `refused` if the losses are not known for certain: an
 * unreadable index file may list the content, and a cut pack may still hold most of its blobs.
 */
export async function mending<T>(
  access: OpenRepository,
  { options, lock }: { options: CallOptions; lock: "exclusive" | "shared" | null },
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const run = async (held: RepositoryLock | null): Promise<T> => {
    const index = await BlobIndex.load(access.repository, null, options.signal);
    if (index.damaged.length > 0) throw firstRepair(`${index.damaged.length} index files cannot be read`);
    const lost = lostPacks(index, await packSizes(access.storage));
    if (lost.length > 0) throw firstRepair(`${lost.length} packs are missing or truncated`);
    const listing = await access.repository.listSnapshots(options.signal);
    return within({ access, options, index, listing, lock: held }, work);
  };
  return lock === null
    ? access.reading(options, async () => run(null))
    : access.locked(lock === "exclusive", options, run);
}

/** Throws `refused` if a pack that no index lists holds some of the `missing` blobs. */
export async function requireLost({ access, index }: Session, missing: ReadonlySet<string>): Promise<void> {
  if (missing.size === 0) return;
  const listed = new Set<string>();
  for (let pack = 0; pack < index.table.packCount; pack++) listed.add(objectIdOf(index.table.packId(pack)));
  for (const [name, size] of await packSizes(access.storage)) {
    if (listed.has(name)) continue;
    // A file that is not a pack is a leftover; `repair index` ignores it too.
    const blobs = await loadPackHeader(access.repository, name, size).catch((error: unknown) => {
      if (error instanceof CairnError && error.code === "damaged") return [];
      throw error;
    });
    if (blobs.some(({ id }) => missing.has(objectIdOf(id))))
      throw firstRepair(`pack ${name.slice(0, 12)}is in no index, and holds content that seems lost`);
  }
}

function firstRepair(found: string): CairnError {
  return new CairnError("refused", `cannot tell yet which content is lost: ${found}; nothing was changed`, {
    hint: advice`run ${call("backup repair index", "repair", { what: "index" })} first (with ${option("plan")} it shows what it would do)`,
  });
}
