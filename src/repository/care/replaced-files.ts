import { CairnError, type Hint, tellsOfDamage, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { decodePackHeader } from "../../formats/restic/pack-header.ts";
import type { ObjectId } from "../../ids.ts";
import type { IndexFileWriter } from "../index/index-set.ts";
import type { RepositoryLock } from "../locks.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import type { Repository } from "../repository.ts";
import { concurrently } from "../storage/concurrently.ts";
import type { Storage } from "../storage/storage.ts";

/**
 * A sweep, a compaction and a repair share this order: new packs, new index files, then removal of old index files and
 * old packs.
 */

/** Packs that are asked for at the same time. */
const ASKED_AT_ONCE = 16;

/** The prefix of the failpoint names. */
export type Replacing = "sweep" | "compact" | "repair";

/**
 * Flushes the new packs, then writes an index of these packs and of the entries in `writer`. Returns the index files'
 * names.
 */
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

/** Removes index files durably; stops if the lock ends. Returns how many existed. */
export async function removeIndexes(
  repository: Repository,
  names: Iterable<string>,
  { doing, lock }: { doing: Replacing; lock: RepositoryLock },
): Promise<number> {
  let removed = 0;
  for (const name of names) {
    // After a long sleep the lock may have ended and others may be at work. The next run removes the rest.
    lock.requireHeld();
    if (await removeFile(repository, "index", name)) removed++;
    failpoint(`${doing}.index-removed`);
  }
  await repository.storage.sync(["index"]);
  failpoint(`${doing}.indexes-durable`);
  return removed;
}

/** Removes a pack that no index file lists any more. Returns false if the pack was already gone. */
export async function removePack(
  repository: Repository,
  name: string,
  { doing, lock }: { doing: Replacing; lock: RepositoryLock },
): Promise<boolean> {
  // After the lock has ended, others may need the pack again.
  lock.requireHeld();
  const wasThere = await removeFile(repository, "data", name);
  failpoint(`${doing}.pack-removed`);
  return wasThere;
}

/**
 * Asks for each pack by its name and size, because a list may name a pack that is gone. Throws `damaged` before another
 * copy of its blobs is removed. `sizes`: bytes by pack.
 */
export async function requireStored(
  storage: Storage,
  sizes: ReadonlyMap<string, number>,
  hint: Hint = "nothing was freed; repair the repository first",
): Promise<void> {
  const packs = [...sizes];
  await concurrently(packs.length, ASKED_AT_ONCE, async (at) => {
    const [name, size] = packs[at]!;
    try {
      await storage.load("data", name, { offset: size - 1, length: 1 });
    } catch (error) {
      if (!tellsOfDamage(toCairnError(error))) throw error;
      throw new CairnError(
        "damaged",
        `pack ${name.slice(0, 8)} is listed, but not there with its size, and content that is still needed has its other copy in a pack that would go`,
        { hint, cause: error },
      );
    }
  });
}

/** Removes a file of the repository. Returns false if the file was already gone. */
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
