import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { decodePackHeader } from "../../formats/restic/pack-header.ts";
import type { ObjectId } from "../../ids.ts";
import type { IndexFileWriter } from "../index/index-set.ts";
import type { RepositoryLock } from "../locks.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import type { Repository } from "../repository.ts";

/** The order in which a sweep and a compaction put new packs and index files in the place of old ones. */

/** The begin of the names of its failpoints. */
export type Replacing = "sweep" | "compact";

/** Makes new packs durable, then the index of them and of what the writer has. Returns the names of its files. */
export async function writeIndexOf(
  repository: Repository,
  copied: readonly FinishedPack[],
  { doing, writer }: { doing: Replacing; writer: IndexFileWriter },
): Promise<ObjectId[]> {
  await repository.storage.sync(["data"]);
  failpoint(`${doing}.packs-written`);
  for (const pack of copied) await writer.add(pack.id, decodePackHeader(pack.header));
  const names = await writer.finish();
  await repository.storage.sync(["index"]);
  failpoint(`${doing}.index-written`);
  return names;
}

/** Removes index files, durably, under a lock that may end meanwhile. Returns how many were there. */
export async function removeIndexes(
  repository: Repository,
  names: Iterable<string>,
  { doing, lock }: { doing: Replacing; lock: RepositoryLock },
): Promise<number> {
  let removed = 0;
  for (const name of names) {
    // Who was asleep for long may find others at work: what is left over goes next time.
    lock.requireHeld();
    if (await removeFile(repository, "index", name)) removed++;
    failpoint(`${doing}.index-removed`);
  }
  await repository.storage.sync(["index"]);
  failpoint(`${doing}.indexes-durable`);
  return removed;
}

/** Removes a pack that no index file lists any more. False when it was not there any more. */
export async function removePack(
  repository: Repository,
  name: string,
  { doing, lock }: { doing: Replacing; lock: RepositoryLock },
): Promise<boolean> {
  // What the lock guarded may be needed again once it has ended.
  lock.requireHeld();
  const wasThere = await removeFile(repository, "data", name);
  failpoint(`${doing}.pack-removed`);
  return wasThere;
}

/** False when it was not there any more. */
export async function removeFile(
  repository: Repository,
  kind: "snapshots" | "index" | "data",
  name: string,
): Promise<boolean> {
  try {
    await repository.storage.remove(kind, name);
    return true;
  } catch (error) {
    if (error instanceof CairnError && error.code === "not_found") return false;
    throw error;
  }
}
