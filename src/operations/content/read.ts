import fs from "node:fs";
import type { PathInput, ReadOptions, WorkspaceCallOptions } from "../../contract/index.ts";
import { advice, CairnError, call, throwIfAborted } from "../../errors.ts";
import { ELOOP, ENOTDIR } from "../../fs/linux/errno.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { inDirectory, syscallError, syscalls } from "../../fs/linux/syscalls.ts";
import { displayPath, normalizeTyped } from "../../fs/paths/safe-path.ts";
import { newArena } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { openHeldFile } from "../../workspace/points/held-file.ts";
import { withSealed } from "../../workspace/save/seal.ts";
import { contentOf, mustFind, PIECE, type Range } from "./stored-content.ts";

/**
 * A file's content in order, or a range of it; target null is the folder as it is now. With `archive` the entries at the path,
 * or at `paths`, as one archive.
 */
export async function* read(
  workspace: Workspace,
  target: string | null,
  path: PathInput,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const where = normalizeTyped(path);
  const range = rangeOf(options);
  if (options.archive !== undefined) {
    yield* await archiveOf(workspace, target, where, options);
    return;
  }
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

function rangeOf({ offset = 0, length, archive }: ReadOptions): Range {
  for (const [name, value] of Object.entries({ offset, length: length ?? 0 })) {
    if (!Number.isSafeInteger(value) || value < 0)
      throw new CairnError("usage", `${name} must be a whole number of bytes; found ${value}`);
    if (value > 0 && archive !== undefined) throw new CairnError("usage", `an archive has no ${name}`);
  }
  return { start: offset, end: length === undefined ? Infinity : offset + length };
}

async function archiveOf(
  workspace: Workspace,
  target: string | null,
  where: Uint8Array,
  options: ReadOptions,
): Promise<AsyncGenerator<Uint8Array>> {
  if (target === null) throw new CairnError("usage", "only a save point can be read as an archive: name one");
  if (options.paths !== undefined && where.length > 0)
    throw new CairnError("usage", "with paths, which begin at the workspace's root, the path must be empty");
  const { archiveOfPoint } = await import("./archive.ts");
  return archiveOfPoint(workspace, { target, paths: options.paths?.map(normalizeTyped) ?? [where] }, options);
}

function notAFile(path: Uint8Array): CairnError {
  return new CairnError("conflict", `${displayPath(path).path} is not a file`, {
    hint: advice`${call("show")} lists directories`,
  });
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

/** A range of an open file, which is closed at the end. */
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
