import { toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { plural } from "../formats/sizes.ts";
import type { Degradation } from "../contract/index.ts";
import { flushFileSystem } from "../fs/linux/flush.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import type { CloneTreeResult } from "./clone-entry.ts";
import { cloneTree } from "./clone-tree.ts";
import type { Captured, HolderCall } from "./holder.ts";
import { removeTree } from "./remove-held.ts";

/** A capture or copy with all findings. */
export interface ClonedTree extends Captured {
  result: CloneTreeResult;
}

/**
 * Clones a folder to a place that does not exist or is an empty directory (absolute, raw bytes). Flushes pending writes
 * before and after. On failure removes the clone, and also the place unless it existed before.
 */
export async function cloneSettled(
  from: Uint8Array,
  to: Uint8Array,
  call: HolderCall & { origins?: boolean },
): Promise<ClonedTree> {
  try {
    // Otherwise cloning would flush pending content file by file, which is slower.
    await flushFileSystem(Buffer.from(from));
    const { signal, onProgress, origins } = call;
    const result = await cloneTree({ from, to, signal, onProgress, origins: origins ?? false });
    failpoint("clone.finished");
    await flushFileSystem(Buffer.from(to));
    return {
      degraded: degradationsOf(result),
      apart: result.mounts,
      torn: result.torn,
      logs: result.logs,
      origins: result.origins,
      result,
    };
  } catch (error) {
    const failure = toCairnError(error, "cloning the folder");
    if (failure.code !== "already_exists" && failure.code !== "refused") await removeTree(to).catch(() => undefined);
    throw failure;
  }
}

/** Says why a clone is incomplete, which no entry in it shows; null if it is complete. */
export function whyNotWhole({ omitted, notSet }: CloneTreeResult): string | null {
  const [unread] = omitted;
  if (unread !== undefined)
    return `${plural(omitted.length, "entry")} could not be cloned, ${printablePath(unread.path)}: ${unread.reason}`;
  const [unlike] = notSet;
  if (unlike === undefined) return null;
  return `${notSet.length} ${notSet.length === 1 ? "entry has" : "entries have"} metadata that a clone cannot get, ${printablePath(unlike.path)}: ${unlike.aspects.join(", ")}`;
}

/** Says in words how a clone falls short of the folder. */
export function degradationsOf(result: Pick<CloneTreeResult, "copied" | "fragmented" | "refusal">): Degradation[] {
  const degraded: Degradation[] = [];
  const add = (count: number, reason: string): void => {
    if (count > 0) degraded.push({ what: `${plural(count, "file")} copied`, reason });
  };
  const refused = result.copied - result.fragmented;
  add(refused, `the file system does not clone them: ${result.refusal ?? "refused"}`);
  add(result.fragmented, "they are in too many pieces to be cloned quickly");
  return degraded;
}
