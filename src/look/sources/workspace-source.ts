import fs from "node:fs";
import { presentSource } from "../../archive/scan/present-source.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { advice, CairnError, call, throwIfAborted, toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { ELOOP, ENOTDIR } from "../../fs/linux/errno.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { inDirectory, syscallError, syscalls } from "../../fs/linux/syscalls.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { requireAnswer } from "../../fs/silent-mounts.ts";
import { newArena } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { type FileAt, NO_FACTS, NOTHING, type Source } from "./source.ts";

const PIECE = 1024 * 1024;

/** Bytes of a file: from `start` up to `end`, which may be Infinity. */
export interface Range {
  start: number;
  end: number;
}

export const WHOLE: Range = { start: 0, end: Infinity };

/** Opens a sealed point; takes no lock. Throws `damaged` if the point is not sealed: callers seal points first. */
export async function pointSource(workspace: Workspace, point: Point): Promise<Source> {
  const source = await workspace.source(point);
  return {
    ...source,
    ...(await storeOf(workspace)),
    facts: async () => (await workspace.manifest(point)) ?? NO_FACTS,
    nodes: async (directory) => unlessMoved(workspace, () => source.list(directory)),
    async *contents(files, signal) {
      throwIfAborted(signal);
      const pace = newPacer(signal);
      for (const { node } of files)
        yield (async function* () {
          const ids = node.content ?? NOTHING;
          for (let at = 0; at < ids.length; at += 32) {
            await pace();
            const content = ids.subarray(at, at + 32);
            yield await unlessMoved(workspace, () => Buffer.concat([...source.content({ ...node, content })]));
          }
        })();
    },
  };
}

/** Returns the names in the folder of a workspace, in latin1: of its newest point if that is sealed, else the present ones. */
export async function namesInFolder(workspace: Workspace): Promise<ReadonlySet<string>> {
  const latest = workspace.points.latest();
  if (latest?.sealed !== true) {
    requireAnswer(workspace.root);
    return new Set(fs.readdirSync(workspace.root, "latin1"));
  }
  const { root, nodes } = await pointSource(workspace, latest);
  return new Set(Array.from(await nodes(root), ({ name }) => latin1(name)));
}

/** Returns a scanned folder as a source. */
export async function scannedSource(workspace: Workspace, scan: ScanResult): Promise<Source> {
  const source = presentSource(scan);
  return {
    ...source,
    ...(await storeOf(workspace)),
    facts: async () => {
      const { lossless, hashes: fileHashes } = scan.summarise();
      return { lossless, fileHashes, omitted: scan.notes.omitted };
    },
    nodes: async (directory) => source.list(directory),
    async *contents(files: readonly FileAt[], signal) {
      for (const { path } of files) yield piecesOf(openPresent(workspace.root, path), WHOLE, signal);
    },
  };
}

async function storeOf(
  workspace: Workspace,
): Promise<Pick<Source, "store" | "cutBy" | "linksFrom" | "isFar" | "bring">> {
  const { repository } = await workspace.engine.store();
  return {
    store: repository.id,
    cutBy: repository.chunkerPolynomial,
    linksFrom: NOTHING,
    isFar: false,
    bring: async () => undefined,
  };
}

/** Calls `get` without a lock, and again under a lock if a cleanup moved a pack: consumers may read slowly. */
async function unlessMoved<T>(workspace: Workspace, get: () => T): Promise<T> {
  try {
    return get();
  } catch (error) {
    if (toCairnError(error).details?.["missing_pack"] === undefined) throw error;
    return workspace.engine.reading(async () => get());
  }
}

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/** Opens a file of a folder. Follows no link: root may read for a user who owns the folder. */
export function openPresent(root: Buffer, path: Uint8Array): number {
  const fd = inDirectory(root, (held) => openBelow(syscalls(), held, path, READ, newArena(4096)));
  if (fd === ELOOP || fd === ENOTDIR) throw notAFile(path);
  if (fd < 0) throw syscallError(fd, `read ${displayPath(path).path}`);
  if (fs.fstatSync(fd).isFile()) return fd;
  fs.closeSync(fd);
  throw notAFile(path);
}

export function notAFile(path: Uint8Array): CairnError {
  return new CairnError("conflict", `${displayPath(path).path} is not a file`, {
    hint: advice`${call("show")} lists directories`,
  });
}

/** Reads a range of an open file and closes the file. */
export async function* piecesOf(
  fd: number,
  { start, end }: Range,
  signal: AbortSignal | undefined,
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

/**
 * Reads a range of a file in pieces of at most 1 MiB. Blobs before the range are not read if the source knows their
 * sizes.
 */
export async function* rangeOf(
  source: Source,
  { path, node }: FileAt,
  { start, end, signal }: Range & { signal: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  const ids = node.content ?? NOTHING;
  let next = 0;
  let from = 0;
  for (; from < ids.length && next < start; from += 32) {
    const size = source.sizeOf?.(ids.subarray(from, from + 32));
    if (size === undefined || next + size > start) break;
    next += size;
  }
  const files = [{ path, node: { ...node, content: ids.subarray(from) } }];
  for await (const content of source.contents(files, signal))
    for await (const blob of content) {
      const piece = blob.subarray(Math.max(0, start - next), Math.max(0, end - next));
      next += blob.length;
      for (let at = 0; at < piece.length; at += PIECE) yield piece.subarray(at, at + PIECE);
      if (next >= end) return;
    }
}
