import fs from "node:fs";
import type { PathInput, ReadOptions, WorkspaceCallOptions } from "../../contract/index.ts";
import { advice, CairnError, call, throwIfAborted, toCairnError, word } from "../../errors.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { ELOOP, ENOTDIR } from "../../fs/linux/errno.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { inDirectory, syscallError, syscalls } from "../../fs/linux/syscalls.ts";
import { displayPath, normalizeTyped } from "../../fs/paths/safe-path.ts";
import { newArena } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { openHeldFile } from "../../workspace/points/held-file.ts";
import { findNode } from "../../workspace/points/tree-diff.ts";
import { withSealed } from "../../workspace/save/seal.ts";

const PIECE = 1024 * 1024;

/** Bytes of a file: from `start` up to `end`, which may be Infinity. */
interface Range {
  start: number;
  end: number;
}

/** Reads a file's content in order, or a range of it. Target null means the present folder. */
export async function* read(
  workspace: Workspace,
  target: string | null,
  path: PathInput,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const where = normalizeTyped(path);
  const range = rangeOf(options);
  if (options.paths !== undefined)
    throw new CairnError("usage", "paths are only for an archive", { hint: "give archive, too: tar or zip" });
  if (target === null) {
    yield* piecesOf(openPresent(workspace.root, where), range, options);
    return;
  }
  const point = workspace.resolve(target);
  const held = point.sealed ? null : openHeldFile(workspace.points, point, where);
  if (held !== null) {
    yield* piecesOf(held, range, options);
    return;
  }
  const source = await withSealed(workspace, options, async () => workspace.source(workspace.resolve(target)));
  const node = await workspace.engine.reading(async () => mustFind(source, where, target), options);
  if (node.type !== "file") throw notAFile(where);
  yield* contentOf(workspace, source, node, { ...range, signal: options.signal });
}

function rangeOf({ offset = 0, length }: ReadOptions): Range {
  for (const [name, value] of Object.entries({ offset, length: length ?? 0 }))
    if (!Number.isSafeInteger(value) || value < 0)
      throw new CairnError("usage", `${name} must be a whole number of bytes; found ${value}`);
  return { start: offset, end: length === undefined ? Infinity : offset + length };
}

/** Reads a file's content, or a range of it, in pieces of at most 1 MiB. Blobs outside the range are not read. */
export async function* contentOf(
  workspace: Workspace,
  source: TreeSource,
  node: TreeNode,
  { start, end, signal }: Range & Pick<WorkspaceCallOptions, "signal">,
): AsyncGenerator<Uint8Array> {
  const ids = node.content ?? new Uint8Array(0);
  throwIfAborted(signal);
  const pace = newPacer(signal);
  // Offset of the next blob in the file.
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

function notAFile(path: Uint8Array): CairnError {
  return new CairnError("conflict", `${displayPath(path).path} is not a file`, {
    hint: advice`${call("show")} lists directories`,
  });
}

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/** Opens a file of the folder. Follows no link: root may read for a user who owns the folder. */
function openPresent(root: Buffer, path: Uint8Array): number {
  const fd = inDirectory(root, (held) => openBelow(syscalls(), held, path, READ, newArena(4096)));
  if (fd === ELOOP || fd === ENOTDIR) throw notAFile(path);
  if (fd < 0) throw syscallError(fd, `read ${displayPath(path).path}`);
  if (fs.fstatSync(fd).isFile()) return fd;
  fs.closeSync(fd);
  throw notAFile(path);
}

/** Reads a range of an open file and closes the file. */
async function* piecesOf(
  fd: number,
  { start, end }: Range,
  { signal }: WorkspaceCallOptions,
): AsyncGenerator<Uint8Array> {
  try {
    throwIfAborted(signal);
    const pace = newPacer(signal);
    for (let at = start; at < end;) {
      await pace();
      const buffer = Buffer.allocUnsafe(Math.min(PIECE, end - at));
      const n = fs.readSync(fd, buffer, 0, buffer.length, at);
      if (n === 0) return;
      at += n;
      yield buffer.subarray(0, n);
    }
  } finally {
    fs.closeSync(fd);
  }
}

/** Returns the node at a path of a point. Throws `not_found`. */
export function mustFind(source: TreeSource, path: Uint8Array, target: string): TreeNode {
  const node = findNode(source, path);
  if (node === null)
    throw new CairnError("not_found", `${displayPath(path).path} is not in save point ${target}`, {
      hint: advice`${call("show POINT", "show", word("point"))} lists its content`,
    });
  return node;
}

/** Calls `get` without a lock, and again under a lock if a cleanup moved a pack: consumers may read slowly. */
export async function unlessMoved<T>(workspace: Workspace, get: () => T): Promise<T> {
  try {
    return get();
  } catch (error) {
    if (toCairnError(error).details?.["missing_pack"] === undefined) throw error;
    return workspace.engine.reading(async () => get());
  }
}
