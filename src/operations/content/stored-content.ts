import type { WorkspaceCallOptions } from "../../contract/index.ts";
import { advice, CairnError, call, throwIfAborted, toCairnError, word } from "../../errors.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { newPacer } from "../../pacer.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { findNode } from "../../workspace/restore/plan.ts";

/** Most bytes of a piece that is handed over. */
export const PIECE = 1024 * 1024;

/** Bytes of a file: from `start` up to `end`, which may be Infinity. */
export interface Range {
  start: number;
  end: number;
}

/** A file's content in pieces of at most 1 MiB, or a range of it: blobs outside of the range are not read. */
export async function* contentOf(
  workspace: Workspace,
  source: TreeSource,
  node: TreeNode,
  { start, end, signal }: Range & Pick<WorkspaceCallOptions, "signal">,
): AsyncGenerator<Uint8Array> {
  const ids = node.content ?? new Uint8Array(0);
  throwIfAborted(signal);
  const pace = newPacer(signal);
  // Place in the file of the next blob.
  let next = 0;
  for (let at = 0; at < ids.length && next < end; at += 32) {
    await pace();
    const id = ids.subarray(at, at + 32);
    const size = next < start ? source.sizeOf?.(id) : undefined;
    if (size !== undefined && next + size <= start) {
      next += size;
      continue;
    }
    const blob = await unlessMoved(workspace, () => Buffer.concat([...source.content({ ...node, content: id })]));
    const piece = blob.subarray(Math.max(0, start - next), end - next);
    next += blob.length;
    for (let from = 0; from < piece.length; from += PIECE) yield piece.subarray(from, from + PIECE);
  }
}

/** The node at a path of a point. Throws `not_found`. */
export function mustFind(source: TreeSource, path: Uint8Array, target: string): TreeNode {
  const node = findNode(source, path);
  if (node === null)
    throw new CairnError("not_found", `${displayPath(path).path} is not in save point ${target}`, {
      hint: advice`${call("show POINT", "show", word("point"))} lists its content`,
    });
  return node;
}

/** No lock is held while whoever takes what is read thinks; what a cleanup moved meanwhile is looked for anew. */
export async function unlessMoved<T>(workspace: Workspace, get: () => T): Promise<T> {
  try {
    return get();
  } catch (error) {
    if (toCairnError(error).details?.["missing_pack"] === undefined) throw error;
    return workspace.engine.reading(async () => get());
  }
}
