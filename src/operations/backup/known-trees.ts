import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryName } from "../../fs/durable.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";

/**
 * Trees that are known to be in a repository with all that they need, remembered on this machine: below them nothing
 * has to be looked up again as long as no id has left the repository's index, which its epoch tells. Disposable.
 */

const NAME = "known-trees.json";
const MOST = 1000;
/** The cache of so many blobs is written in a moment; of more it is written now and then. */
const FEW_BLOBS = 300_000;
const HEX = /^[0-9a-f]{64}$/;

export function readKnownTrees(cache: string, epoch: string): Set<string> {
  try {
    const { epoch: of, trees } = JSON.parse(readFileSync(join(cache, NAME), "utf8")) as Record<string, unknown>;
    if (of !== epoch || !Array.isArray(trees)) return new Set();
    return new Set(trees.slice(0, MOST).filter((tree): tree is string => typeof tree === "string" && HEX.test(tree)));
  } catch {
    return new Set();
  }
}

/**
 * Writes the caches of an index and of these trees, newest first, all of which are whole by it. Trees are only known with
 * the cache of an index that has all their ids: one that was never cached would not be missed. That neither can be written
 * costs the next backup a walk.
 */
export function keepKnownTrees(cache: string, index: BlobIndex, trees: Iterable<string>): void {
  index.saveCache(index.count < FEW_BLOBS);
  if (!index.isCached) return;
  const temporary = join(cache, temporaryName());
  try {
    const known = { epoch: index.epoch, trees: [...trees].slice(0, MOST) };
    writeFileSync(temporary, JSON.stringify(known), { mode: 0o600 });
    renameSync(temporary, join(cache, NAME));
  } catch {
    return;
  }
}
