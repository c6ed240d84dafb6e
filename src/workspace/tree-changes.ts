import type { TreeSource } from "../engines/engine.ts";
import type { ChangeCounts } from "../engines/scan/summary.ts";
import { collectPaced, newPacer } from "../pacer.ts";
import { diffTrees, type Difference } from "./tree-diff.ts";

/**
 * Leaves out directories whose only difference is their times when something directly inside came or went:
 * that is what moved them.
 */
export function withoutMovedTimes<T extends Difference>(all: readonly T[]): T[] {
  const moved = new Set<string>();
  for (const { path, before, after } of all) if (before === null || after === null) moved.add(parentKey(path));
  return all.filter(
    (difference) => !isTimesOnly(difference) || !moved.has(Buffer.from(difference.path).toString("latin1")),
  );
}

function isTimesOnly({ after, aspects }: Difference): boolean {
  return after?.type === "dir" && aspects.length === 1 && aspects[0] === "times";
}

function parentKey(path: Uint8Array): string {
  const text = Buffer.from(path).toString("latin1");
  return text.slice(0, Math.max(text.lastIndexOf("/"), 0));
}

export async function countDifferences(
  before: TreeSource,
  after: TreeSource,
  signal: AbortSignal | undefined,
): Promise<ChangeCounts> {
  const counts: ChangeCounts = { added: 0, modified: 0, removed: 0 };
  for (const difference of withoutMovedTimes(await collectPaced(diffTrees(before, after), newPacer(signal)))) {
    if (difference.before === null) counts.added++;
    else if (difference.after === null) counts.removed++;
    else counts.modified++;
  }
  return counts;
}
