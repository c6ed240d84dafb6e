import fs from "node:fs";
import { sourcesOf } from "../archive/cache/origins.ts";
import { bornAt } from "../archive/scan/stat-words.ts";
import { STAGING_NAME } from "../archive/scan/task.ts";
import { toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { latin1 } from "../formats/bytes.ts";
import { plural } from "../formats/sizes.ts";
import type { Degradation } from "../contract/index.ts";
import { flushFileSystem } from "../fs/linux/flush.ts";
import { STAT, wide } from "../fs/linux/syscalls.ts";
import { joinRaw, printablePath } from "../fs/paths/safe-path.ts";
import type { CloneTreeResult } from "./clone-entry.ts";
import { cloneTree } from "./clone-tree.ts";
import type { Captured, HolderCall } from "./holder.ts";
import { removeTree } from "./remove-held.ts";
import { walkEntries } from "./walk-entries.ts";

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

/**
 * Names an entry that moved between two directories while they were cloned, so that the clone may have it twice or not at
 * all; null if no entry did. `began`: when the clone was begun (ms since 1970); entries that were born later do not count.
 */
export async function whyMoved(
  from: Uint8Array,
  to: Uint8Array,
  { result, began, signal }: { result: CloneTreeResult; began: number; signal?: AbortSignal | undefined },
): Promise<string | null> {
  if (!result.mayLackMoved || result.entries === 0) return null;
  const sources = sourcesOf(result.origins);
  const moved = (name: string): string => `${name} was moved to another folder while the folder was cloned`;
  if (sources === null || sources.size === 0) return moved("an entry");
  let lacks: string | null = null;
  await walkEntries(
    from,
    ({ path, stat }) => {
      if (lacks !== null || STAGING_NAME.test(latin1(path()))) return false;
      if (bornAt(stat, STAT) > began || sources.has(wide(stat, STAT.INO))) return true;
      const there = fs.lstatSync(joinRaw(to, path()), { throwIfNoEntry: false });
      if (there === undefined) lacks = printablePath(path());
      return true;
    },
    signal,
  );
  return lacks === null ? null : moved(lacks);
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
