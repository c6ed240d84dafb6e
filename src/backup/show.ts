import fs from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { advice, CairnError, call, option } from "../errors.ts";
import { joinPath } from "../formats/bytes.ts";
import { beside, isLog, LOGS, parseHeader } from "../formats/sqlite-header.ts";
import type { TreeNode, TreeNodes } from "../formats/restic/tree.ts";
import { displayPath, quotedPath } from "../fs/paths/safe-path.ts";
import type { ListedSnapshot } from "../repository/repository.ts";
import type {
  ListedEntry,
  PathInput,
  ReadBackupOptions,
  ShowBackupOptions,
  ShowBackupResult,
} from "../contract/index.ts";
import { kindOf, listedEntry, nodesBelow } from "../workspace/points/listed-entry.ts";
import { entryAt, namedEntry, pathBelow } from "./open/paths.ts";
import { piecesOf } from "./pieces.ts";
import { chosenSnapshot, publicSnapshot, warnOfUnreadable } from "./open/snapshots.ts";
import { reading, type Session } from "./open/session.ts";
import { handTar } from "./tar.ts";
import type { OpenRepository } from "./open/open-repository.ts";
import { savedNodes, snapshotContent, type SnapshotContent } from "./open/content.ts";
import { readNodes } from "../archive/databases/nodes.ts";

/** A place in a snapshot. */
interface Place {
  snapshot: string;
  path: PathInput;
}

/** Lists a directory's entries in a snapshot, or the one entry at the path itself. */
export async function showBackup(
  access: OpenRepository,
  place: Place,
  options: ShowBackupOptions,
): Promise<ShowBackupResult> {
  return readingAt(access, { place, options }, async (session, { snapshot, saved, path, node }) => {
    const listed = await nodesAt(session, saved, node);
    const entries = Array.from(listed, (each) => listedEntry(each, each === node ? path : joinPath(path, each.name)));
    const kind = node === null ? "directory" : kindOf(node);
    return { ...access.info, snapshot: publicSnapshot(snapshot), ...displayPath(path), kind, entries };
  });
}

/** A directory's entries, or the one entry itself; those of the saved folder if `node` is null. */
async function nodesAt({ reader }: Session, saved: SnapshotContent, node: TreeNode | null): Promise<TreeNodes> {
  if (node === null) return savedNodes(reader, saved);
  return node.type === "dir" ? readNodes(reader, node.subtree!) : [node];
}

/** Lists everything below a path, each folder before its entries; for a path that is not a folder the one entry. */
export async function walkBackup(
  access: OpenRepository,
  { hand, ...place }: Place & { hand: (entry: ListedEntry) => Promise<void> },
  options: ShowBackupOptions,
): Promise<void> {
  const { signal } = options;
  return readingAt(access, { place, options }, async (session, { saved, path, node }) => {
    if (node !== null && node.type !== "dir") return hand(listedEntry(node, path));
    await session.bring([node?.subtree ?? saved.root]);
    const nodes = await nodesAt(session, saved, node);
    for await (const each of nodesBelow({ nodes, path, signal }, async (tree) => readNodes(session.reader, tree)))
      await hand(listedEntry(each.node, each.path));
  });
}

/**
 * Hands over the content of a file of a snapshot, or an archive of the entries at a path, in order. Each piece is
 * proven equal to the saved bytes before it is handed over.
 */
export async function readFromBackup(
  access: OpenRepository,
  { hand, ...place }: Place & { hand: (piece: Uint8Array) => Promise<void> },
  { archive, ...options }: ReadBackupOptions,
): Promise<void> {
  return readingAt(access, { place, options }, async (session, found) => {
    if (archive !== undefined) return handTar(session, found, { ...options, hand });
    const { path, node, saved } = found;
    const image = await imageOf(session, found, options.signal);
    if (image !== null) {
      for await (const piece of image) await hand(piece);
      return;
    }
    const name = quotedPath(path);
    if (node?.type !== "file")
      throw new CairnError("conflict", `${name} is not a file`, {
        hint: advice`${call("backup show", "show")} lists directories, and writes them with ${option({ archive: "tar" })}`,
      });
    let size = 0;
    const content = node.content ?? new Uint8Array(0);
    for await (const piece of piecesOf(session, { content, placed: saved.placed }, options.signal)) {
      size += piece.length;
      await hand(piece);
    }
    if (size !== node.size)
      throw new CairnError(
        "damaged",
        `${name} had ${node.size} bytes when it was saved, but the snapshot holds ${size}`,
      );
  });
}

/** A database with its log applied; null for a file that is no database, or has no log or journal in the snapshot. */
async function imageOf(
  session: Session,
  { saved, path, node }: FoundPlace,
  signal: AbortSignal | undefined,
): Promise<AsyncGenerator<Uint8Array> | null> {
  if (node?.type !== "file") return null;
  const contents = new Map<string, Uint8Array>([["", node.content ?? new Uint8Array(0)]]);
  for (const ending of LOGS) {
    const log = await entryAt(session.reader, saved, beside(path, ending)).catch(() => null);
    if (log?.type === "file" && log.size > 0) contents.set(ending, log.content ?? new Uint8Array(0));
  }
  const contentOf = (ending: string): AsyncGenerator<Uint8Array> =>
    piecesOf(session, { content: contents.get(ending)!, placed: saved.placed }, signal);
  const logs: (typeof LOGS)[number][] = [];
  for (const ending of LOGS) if (contents.has(ending) && (await begins(contentOf(ending), isLog))) logs.push(ending);
  if (logs.length === 0 || !(await begins(contentOf(""), (bytes) => parseHeader(bytes) !== null))) return null;
  const { recoveredContent } = await import("../capture/sqlite/shown-database.ts");
  const folder = fs.mkdtempSync(join(os.tmpdir(), "cairn-show-"));
  return recoveredContent(contentOf, { logs, folder, signal });
}

async function begins(content: AsyncGenerator<Uint8Array>, is: (bytes: Buffer) => boolean): Promise<boolean> {
  for await (const piece of content) return is(Buffer.from(piece));
  return false;
}

interface FoundPlace {
  snapshot: ListedSnapshot;
  saved: SnapshotContent;
  /** relative to the saved folder */
  path: Uint8Array;
  /** Null for the whole saved folder. */
  node: TreeNode | null;
}

async function readingAt<T>(
  access: OpenRepository,
  { place, options }: { place: Place; options: ShowBackupOptions },
  work: (session: Session, found: FoundPlace) => Promise<T>,
): Promise<T> {
  return reading(access, options, async (session) => {
    const snapshot = chosenSnapshot(session, place.snapshot, { latestOf: options, onWarning: options.onWarning });
    warnOfUnreadable(access, session.damaged, options);
    const saved = await snapshotContent(session.reader, snapshot.snapshot);
    const savedPaths = snapshot.snapshot.paths;
    const path = pathBelow(saved, savedPaths, place.path);
    const node = await namedEntry(session.reader, saved, { path, savedPaths });
    return work(session, { snapshot, saved, path, node });
  });
}
