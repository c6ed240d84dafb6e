import fs from "node:fs";
import type { TreeSource } from "../repository/trees/tree-source.ts";
import { advice, CairnError, call, throwIfAborted, toCairnError, word } from "../errors.ts";
import { joinPath } from "../formats/bytes.ts";
import { ReadNodes, type TreeNode, type TreeNodes } from "../formats/restic/tree.ts";
import { ELOOP, ENOTDIR } from "../fs/linux/errno.ts";
import { openBelow } from "../fs/linux/open-below.ts";
import { inDirectory, syscallError, syscalls } from "../fs/linux/syscalls.ts";
import { displayPath, normalizeTyped } from "../fs/paths/safe-path.ts";
import { newArena } from "../native.ts";
import { collectPaced, newPacer } from "../pacer.ts";
import { openHeldFile } from "../workspace/points/held-file.ts";
import { findNode } from "../workspace/restore/plan.ts";
import { withSealed } from "../workspace/save/seal.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type { ListedEntry, PathInput, ShowOptions, ShowResult, WorkspaceCallOptions } from "../contract/index.ts";
import { kindOf, listedEntry, nodesBelow } from "../workspace/points/listed-entry.ts";
import { publicPoint } from "./public-point.ts";

const PIECE = 1024 * 1024;

/** Lists what a point holds at a path: a directory's entries, or the one entry itself. */
export async function show(
  workspace: Workspace,
  target: string,
  path: PathInput,
  options: ShowOptions,
): Promise<ShowResult> {
  throwIfAborted(options.signal);
  return workspace.engine.reading(async () => showReading(workspace, target, { path, ...options }), options);
}

async function showReading(
  workspace: Workspace,
  target: string,
  { path, ...options }: { path: PathInput } & ShowOptions,
): Promise<ShowResult> {
  const point = workspace.resolve(target);
  const source = await workspace.source(point);
  const where = normalizeTyped(path);
  const node = where.length === 0 ? null : mustFind(source, where, target);
  const listed = node === null ? source.list(source.root) : node.type === "dir" ? source.list(node.subtree!) : [node];
  const entries: ListedEntry[] = [];
  const pace = newPacer(options.signal);
  for (const each of await pageOf(listed, options)) {
    await pace();
    entries.push(listedEntry(each, each === node ? where : joinPath(where, each.name)));
  }
  return {
    save_point: publicPoint(point),
    ...displayPath(where),
    kind: node === null ? "directory" : kindOf(node),
    entries,
    total: listed.length,
  };
}

const ORDERS: Readonly<Record<string, (a: TreeNode, b: TreeNode) => number>> = {
  size: (a, b) => a.size - b.size,
  time: (a, b) => a.mtimeSec - b.mtimeSec || a.mtimeNs - b.mtimeNs,
  kind: (a, b) => rankOf(a) - rankOf(b),
};

/** Sorts directories before files, and files before everything else. */
function rankOf({ type }: TreeNode): number {
  return type === "dir" ? 0 : type === "file" ? 1 : 2;
}

/** Returns the entries of a page in the order that was asked for. In the order of names no other entry is decoded. */
async function pageOf(nodes: TreeNodes, options: ShowOptions): Promise<Iterable<TreeNode>> {
  const { limit = 0, skip = 0, sort = "name", reverse = false, signal } = options;
  for (const [name, value] of Object.entries({ limit, skip }))
    if (!Number.isInteger(value) || value < 0)
      throw new CairnError("usage", `${name} must be a whole number of entries; found ${value}`);
  const end = limit === 0 ? nodes.length : Math.min(nodes.length, skip + limit);
  const order = ORDERS[sort];
  if (order === undefined)
    return new ReadNodes(Math.max(0, end - skip), (at) =>
      nodes.at(reverse ? nodes.length - 1 - skip - at : skip + at)!,
    );
  const all = await collectPaced(nodes, newPacer(signal));
  return all.toSorted((a, b) => (reverse ? order(b, a) : order(a, b))).slice(skip, end);
}

/** Everything below a path, each folder before what lies in it; of what is no folder the one entry itself. */
export async function* walk(
  workspace: Workspace,
  target: string,
  path: PathInput,
  options: WorkspaceCallOptions,
): AsyncGenerator<ListedEntry> {
  const { signal } = options;
  const where = normalizeTyped(path);
  const source = await withSealed(workspace, options, async () => workspace.source(workspace.resolve(target)));
  const list = async (tree: Uint8Array): Promise<TreeNodes> => unlessMoved(workspace, () => source.list(tree));
  const node = where.length === 0 ? null : await unlessMoved(workspace, () => mustFind(source, where, target));
  if (node !== null && node.type !== "dir") yield listedEntry(node, where);
  else
    for await (const each of nodesBelow({ nodes: await list(node?.subtree ?? source.root), path: where, signal }, list))
      yield listedEntry(each.node, each.path);
}

function mustFind(source: TreeSource, path: Uint8Array, target: string): TreeNode {
  const node = findNode(source, path);
  if (node === null)
    throw new CairnError("not_found", `${displayPath(path).path} is not in save point ${target}`, {
      hint: advice`${call("show POINT", "show", word("point"))} lists its content`,
    });
  return node;
}

/** A file's content in order; target null is the folder as it is now. */
export async function* read(
  workspace: Workspace,
  target: string | null,
  path: PathInput,
  options: WorkspaceCallOptions,
): AsyncGenerator<Uint8Array> {
  const where = normalizeTyped(path);
  if (target === null) {
    yield* readPresent(workspace, where, options);
    return;
  }
  const point = workspace.resolve(target);
  const held = point.sealed ? null : openHeldFile(workspace.points, point, where);
  if (held !== null) {
    yield* piecesOf(held, options);
    return;
  }
  const source = await withSealed(workspace, options, async () => workspace.source(workspace.resolve(target)));
  const node = await workspace.engine.reading(async () => mustFind(source, where, target), options);
  if (node.type !== "file") throw notAFile(where);
  const ids = node.content ?? new Uint8Array(0);
  throwIfAborted(options.signal);
  const pace = newPacer(options.signal);
  for (let at = 0; at < ids.length; at += 32) {
    await pace();
    const piece = await pieceOf(workspace, source, { ...node, content: ids.subarray(at, at + 32) });
    for (let start = 0; start < piece.length; start += PIECE) yield piece.subarray(start, start + PIECE);
  }
}

async function pieceOf(workspace: Workspace, source: TreeSource, node: TreeNode): Promise<Uint8Array> {
  return unlessMoved(workspace, () => Buffer.concat([...source.content(node)]));
}

/** No lock is held while whoever takes what is read thinks; what a cleanup moved meanwhile is looked for anew. */
async function unlessMoved<T>(workspace: Workspace, get: () => T): Promise<T> {
  try {
    return get();
  } catch (error) {
    if (toCairnError(error).details?.["missing_pack"] === undefined) throw error;
    return workspace.engine.reading(async () => get());
  }
}

function notAFile(path: Uint8Array): CairnError {
  return new CairnError("conflict", `${displayPath(path).path} is not a file`, {
    hint: advice`${call("show")} lists directories`,
  });
}

async function* readPresent(
  workspace: Workspace,
  path: Uint8Array,
  options: WorkspaceCallOptions,
): AsyncGenerator<Uint8Array> {
  const fd = openPresent(workspace.root, path);
  yield* piecesOf(fd, options);
}

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/** Opens a file of the folder; through no link, since root may read for somebody whose folder it is. */
function openPresent(root: Buffer, path: Uint8Array): number {
  const fd = inDirectory(root, (held) => openBelow(syscalls(), held, path, READ, newArena(4096)));
  if (fd === ELOOP || fd === ENOTDIR) throw notAFile(path);
  if (fd < 0) throw syscallError(fd, `read ${displayPath(path).path}`);
  if (fs.fstatSync(fd).isFile()) return fd;
  fs.closeSync(fd);
  throw notAFile(path);
}

/** The content of an open file, which is closed at the end. */
async function* piecesOf(fd: number, { signal }: WorkspaceCallOptions): AsyncGenerator<Uint8Array> {
  try {
    throwIfAborted(signal);
    const pace = newPacer(signal);
    for (;;) {
      await pace();
      const buffer = Buffer.allocUnsafe(PIECE);
      const n = fs.readSync(fd, buffer, 0, PIECE, null);
      if (n === 0) return;
      yield buffer.subarray(0, n);
    }
  } finally {
    fs.closeSync(fd);
  }
}
