import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryName } from "../../fs/durable.ts";

/**
 * Trees that are known to be in a repository with all that they need, remembered on this machine: below them nothing
 * has to be looked up again as long as no id has left the repository's index, which its epoch tells. Disposable.
 */

const NAME = "known-trees.json";
const MOST = 64;
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

/** Newest first. That it cannot be written costs the next backup a walk. */
export function writeKnownTrees(cache: string, epoch: string, trees: Iterable<string>): void {
  const temporary = join(cache, temporaryName());
  try {
    writeFileSync(temporary, JSON.stringify({ epoch, trees: [...trees].slice(0, MOST) }), { mode: 0o600 });
    renameSync(temporary, join(cache, NAME));
  } catch {
    return;
  }
}
