import fs from "node:fs";
import type { PathInput, ReadOptions, WorkspaceCallOptions } from "../contract/index.ts";
import { advice, CairnError, call, throwIfAborted, toCairnError, word } from "../errors.ts";
import { beside, isLog, LOGS, parseHeader } from "../formats/sqlite-header.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { ELOOP, ENOTDIR } from "../fs/linux/errno.ts";
import { openBelow } from "../fs/linux/open-below.ts";
import { inDirectory, syscallError, syscalls } from "../fs/linux/syscalls.ts";
import { displayPath, hintOfTwin, normalizeTyped, twinOf } from "../fs/paths/safe-path.ts";
import { requireAnswer } from "../fs/silent-mounts.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";
import { newArena } from "../native.ts";
import { newPacer } from "../pacer.ts";
import type { TreeSource } from "../repository/trees/tree-source.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { heldNode, openHeldFile } from "../workspace/points/held-file.ts";
import { findNode } from "../workspace/points/tree-diff.ts";
import { withSealed } from "../workspace/save/seal.ts";

const PIECE = 1024 * 1024;

/** Bytes of a file: from `start` up to `end`, which may be Infinity. */
interface Range {
  start: number;
  end: number;
}

/**
 * Reads a file's content in order, or a range of it. Target null means the present folder. A database of a point comes
 * with its log applied.
 */
export async function* read(
  workspace: Workspace,
  target: string | null,
  path: PathInput,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const image = target === null ? null : await imageOf(workspace, target, normalizeTyped(path), options);
  if (image === null) return yield* readRaw(workspace, target, path, options);
  const { start, end } = rangeOf(options);
  let next = 0;
  for await (const piece of image) {
    const wanted = piece.subarray(Math.max(0, start - next), Math.max(0, end - next));
    next += piece.length;
    if (wanted.length > 0) yield wanted;
  }
}

/** Null for a file that is no database, or has no log or journal in the point. */
async function imageOf(
  workspace: Workspace,
  target: string,
  path: Uint8Array,
  { signal, onWarning, paths }: ReadOptions,
): Promise<AsyncGenerator<Uint8Array> | null> {
  if (paths !== undefined) return null;
  const contentOf = (ending: string): AsyncGenerator<Uint8Array> =>
    readRaw(workspace, target, beside(path, ending), { ...(signal && { signal }), ...(onWarning && { onWarning }) });
  const { points } = workspace;
  const point = workspace.resolve(target);
  const logs: (typeof LOGS)[number][] = [];
  for (const ending of LOGS) {
    // A log that a held tree surely lacks needs no seal.
    if (!point.sealed && heldNode(points, point, beside(path, ending)) === null) continue;
    if ((await firstOf(contentOf(ending), isLog)) === true) logs.push(ending);
  }
  if (logs.length === 0 || (await firstOf(contentOf(""), (bytes) => parseHeader(bytes) !== null)) !== true) return null;
  const { recoveredContent } = await import("../capture/sqlite/shown-database.ts");
  const folder = newWorkDirectory(workspace.found.control.temporary);
  return recoveredContent(contentOf, { logs, folder, signal });
}

/** Looks at the first piece of a file; null if there is no file. */
async function firstOf<T>(content: AsyncGenerator<Uint8Array>, look: (bytes: Buffer) => T): Promise<T | null> {
  try {
    for await (const piece of content) return look(Buffer.from(piece));
    return null;
  } catch (error) {
    const { code } = toCairnError(error);
    if (code === "not_found" || code === "conflict") return null;
    throw error;
  }
}

/** Reads a file's content as it is recorded. */
export async function* readRaw(
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
    requireAnswer(workspace.root);
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
  if (node !== null) return node;
  const twin = twinOf(path, (each) => findNode(source, each) !== null);
  throw new CairnError("not_found", `${displayPath(path).path} is not in save point ${target}`, {
    hint:
      twin === undefined ? advice`${call("show POINT", "show", word("point"))} lists its content` : hintOfTwin(twin),
  });
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
