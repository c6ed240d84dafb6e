import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryName } from "../../fs/durable.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";

/**
 * Trees that are known to be in a repository with all that they need, remembered on this machine: below them nothing has to
 * be looked up again as long as every index file that was read when they were found whole is there. Disposable.
 */

const NAME = "known-trees.json";
const MOST = 1000;
/** The cache of so many blobs is written in a moment; of more it is written now and then. */
const FEW_BLOBS = 300_000;
/** With more index files than these the list would take longer than the walk that it spares. */
const MOST_INDEXES = 20_000;
const HEX = /^[0-9a-f]{64}$/;

/**
 * Those that are whole by an index. Another process may have written the list, with index files that this index was read too
 * early for; what those list may be gone, and nobody would miss it.
 */
export function readKnownTrees(cache: string, index: Pick<BlobIndex, "covered" | "isPartial">): Set<string> {
  const { covered, isPartial } = index;
  if (isPartial) return new Set();
  try {
    const { index_files: basis, trees } = JSON.parse(readFileSync(join(cache, NAME), "utf8")) as Record<
      string,
      unknown
    >;
    if (!Array.isArray(basis) || !basis.every((name) => covered.has(name)) || !Array.isArray(trees)) return new Set();
    return new Set(trees.slice(0, MOST).filter((tree): tree is string => typeof tree === "string" && HEX.test(tree)));
  } catch {
    return new Set();
  }
}

/** Writes the cache of an index, and these trees, newest first, all of which are whole by it. That neither can be written costs the next backup a walk. */
export function keepKnownTrees(cache: string, index: BlobIndex, trees: Iterable<string>): void {
  if (index.isPartial) return;
  index.saveCache(index.count < FEW_BLOBS);
  const temporary = join(cache, temporaryName());
  try {
    if (index.covered.size > MOST_INDEXES) return;
    const known = { index_files: [...index.covered], trees: [...trees].slice(0, MOST) };
    writeFileSync(temporary, JSON.stringify(known), { mode: 0o600 });
    renameSync(temporary, join(cache, NAME));
  } catch {
    return;
  }
}
