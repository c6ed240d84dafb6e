import { CairnError } from "../errors.ts";
import { joinPath } from "../formats/bytes.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { displayPath, quotedPath } from "../fs/safe-path.ts";
import { objectIdOf } from "../ids.ts";
import { newPacer } from "../pacer.ts";
import { type BlobIndex, DATA_BLOB } from "../repository/index/blob-index.ts";
import type { ListedSnapshot } from "../repository/repository.ts";
import type { WantedRange } from "../repository/transfer/near-packs.ts";
import { BlobSource } from "../repository/blob-source.ts";
import type { ListedEntry, PathInput, ShowBackupOptions, ShowBackupResult } from "../contract/index.ts";
import { kindOf, listedEntry, entriesBelow } from "../workspace/points/listed-entry.ts";
import { entryAt, pathBelow } from "./paths.ts";
import { chosenSnapshot, publicSnapshot, warnOfUnreadable } from "./snapshots.ts";
import { reading, type Session } from "./session.ts";
import type { OpenRepository } from "./open-repository.ts";
import { readBlob, readNodes, savedNodes, snapshotContent, type SnapshotContent } from "./content.ts";

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
    const entries = listed.map((each) => listedEntry(each, each === node ? path : joinPath(path, each.name)));
    const kind = node === null ? "directory" : kindOf(node);
    return { ...access.info, snapshot: publicSnapshot(snapshot), ...displayPath(path), kind, entries };
  });
}

/** A directory's entries, or the one entry itself; those of what was saved where that is null. */
async function nodesAt({ reader }: Session, saved: SnapshotContent, node: TreeNode | null): Promise<TreeNode[]> {
  if (node === null) return savedNodes(reader, saved);
  return node.type === "dir" ? readNodes(reader, node.subtree!) : [node];
}

/** Everything below a path, each folder before what lies in it; of what is no folder the one entry itself. */
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
    for await (const entry of entriesBelow({ nodes, path, signal }, async (tree) => readNodes(session.reader, tree)))
      await hand(entry);
  });
}

/** The content of a file of a snapshot, in order, each piece proven to be what was saved before it is handed over. */
export async function readFromBackup(
  access: OpenRepository,
  { hand, ...place }: Place & { hand: (piece: Uint8Array) => Promise<void> },
  options: ShowBackupOptions,
): Promise<void> {
  return readingAt(access, { place, options }, async (session, { path, node }) => {
    const name = quotedPath(path);
    if (node?.type !== "file")
      throw new CairnError("conflict", `${name} is not a file`, { hint: "`cairn backup show` lists directories" });
    let size = 0;
    const content = node.content ?? new Uint8Array(0);
    for await (const piece of pieces(session, content, options.signal)) {
      size += piece.length;
      await hand(piece);
    }
    if (size !== node.size)
      throw new CairnError("damaged", `${name} had ${node.size} bytes, and the snapshot has ${size} of them`);
  });
}

/** So much of a file far away is brought at once, and lies here. */
const WINDOW_BYTES = 32 * 1024 * 1024;

/** `content`: ids, 32 bytes each. */
async function* pieces(
  { access, near, index, onElsewhere }: Session,
  content: Uint8Array,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const { keys } = access.repository;
  const pace = newPacer(signal);
  for (let at = 0; at < content.length;) {
    const window = windowFrom(index, content, at);
    // It holds packs open, and those of a window go with it.
    const reader = new BlobSource({ keys, index, packs: near, signal, onElsewhere });
    try {
      // What is not there is met when it is read.
      await near.fetch(window.ranges, { signal, lenient: true });
      for (; at < window.end; at += 32) {
        await pace();
        yield await readBlob(reader, content.subarray(at, at + 32), DATA_BLOB);
      }
    } finally {
      reader.close();
      for (const { pack } of window.ranges) near.drop(pack);
    }
  }
}

/** The blobs of a content that come next, up to `end` among its ids; of one that the index lacks nothing is brought. */
function windowFrom(index: BlobIndex, ids: Uint8Array, from: number): { ranges: WantedRange[]; end: number } {
  const ranges: WantedRange[] = [];
  let bytes = 0;
  let end = from;
  for (; end < ids.length && bytes < WINDOW_BYTES; end += 32) {
    const entry = index.lookup(ids, end, DATA_BLOB);
    if (entry < 0) continue;
    const { pack, offset, length } = index.place(entry);
    ranges.push({ pack: objectIdOf(pack), offset, length });
    bytes += length;
  }
  return { ranges, end };
}

interface FoundPlace {
  snapshot: ListedSnapshot;
  saved: SnapshotContent;
  /** below what was saved */
  path: Uint8Array;
  /** Null for all that was saved. */
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
    const path = pathBelow(saved, snapshot.snapshot.paths, place.path);
    return work(session, { snapshot, saved, path, node: await entryAt(session.reader, saved, path) });
  });
}
