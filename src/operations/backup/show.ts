import { CairnError } from "../../errors.ts";
import { joinPath } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/tree.ts";
import { displayPath, quotedPath } from "../../fs/safe-path.ts";
import { objectIdOf } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import { DATA_BLOB } from "../../repository/blob-index.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { WantedRange } from "../../repository/near-packs.ts";
import { NearReader } from "../../repository/near-reader.ts";
import type { ListedEntry, PathInput, ShowBackupOptions, ShowBackupResult } from "../contract.ts";
import { kindOf } from "../diff.ts";
import { listedEntry, walkTrees } from "../show.ts";
import { entryAt, pathBelow } from "./chosen-paths.ts";
import { warnOfUnreadable } from "./find-snapshot.ts";
import { chosenSnapshot } from "./list.ts";
import { bringBelow, type Look, lookingAtSnapshots } from "./look.ts";
import { publicSnapshot } from "./public-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { readBlob, readNodes, savedNodes, snapshotContent, type SnapshotContent } from "./snapshot-content.ts";

/** Where to look. */
interface Place {
  snapshot: string;
  path: PathInput;
}

/** What a snapshot holds at a path: a directory's entries, or the one entry itself. */
export async function showBackup(
  access: RepositoryAccess,
  place: Place,
  options: ShowBackupOptions,
): Promise<ShowBackupResult> {
  return lookingAtPlace(access, { place, options }, async (look, { snapshot, saved, path, node }) => {
    const listed = node === null ? await savedNodes(look, saved) : await below(look, node);
    const entries = listed.map((each) => listedEntry(each, each === node ? path : joinPath(path, each.name)));
    const kind = node === null ? "directory" : kindOf(node);
    return { ...access.info, snapshot: publicSnapshot(snapshot), ...displayPath(path), kind, entries };
  });
}

async function below(look: Look, node: TreeNode): Promise<TreeNode[]> {
  return node.type === "dir" ? readNodes(look, node.subtree!) : [node];
}

/** Everything below a path, each folder before what lies in it; of what is no folder the one entry itself. */
export async function walkBackup(
  access: RepositoryAccess,
  { hand, ...place }: Place & { hand: (entry: ListedEntry) => Promise<void> },
  options: ShowBackupOptions,
): Promise<void> {
  const { signal } = options;
  return lookingAtPlace(access, { place, options }, async (look, { saved, path, node }) => {
    if (node !== null && node.type !== "dir") return hand(listedEntry(node, path));
    await bringBelow(look, [node?.subtree ?? saved.root], signal);
    const nodes = node === null ? await savedNodes(look, saved) : await below(look, node);
    for await (const entry of walkTrees({ nodes, path, signal }, async (tree) => readNodes(look, tree)))
      await hand(entry);
  });
}

/** The content of a file of a snapshot, in order, each piece proven to be what was saved before it is handed over. */
export async function readFromBackup(
  access: RepositoryAccess,
  { hand, ...place }: Place & { hand: (piece: Uint8Array) => Promise<void> },
  options: ShowBackupOptions,
): Promise<void> {
  return lookingAtPlace(access, { place, options }, async (look, { path, node }) => {
    const name = quotedPath(path);
    if (node?.type !== "file")
      throw new CairnError("conflict", `${name} is not a file`, { hint: "`cairn backup show` lists directories" });
    let size = 0;
    const content = node.content ?? new Uint8Array(0);
    for await (const piece of pieces(access, { look, content, signal: options.signal })) {
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
  { repository }: RepositoryAccess,
  { look, content, signal }: { look: Look; content: Uint8Array; signal: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  const { near, index, copies } = look;
  const pace = newPacer(signal);
  for (let at = 0; at < content.length;) {
    const window = windowFrom(look, content, at);
    // It holds packs open, and those of a window go with it.
    const reader = new NearReader({ repository, near, ends: new Map(), copies, signal });
    try {
      // What is not there is met when it is read.
      await near.fetch(window.ranges, { signal, lenient: true });
      for (; at < window.end; at += 32) {
        await pace();
        yield await readBlob({ reader, index }, content.subarray(at, at + 32), DATA_BLOB);
      }
    } finally {
      reader.close();
      for (const { pack } of window.ranges) near.drop(pack);
    }
  }
}

/** What of a content's blobs comes next, up to `end` among its ids; of one that the index lacks nothing is brought. */
function windowFrom({ index }: Look, ids: Uint8Array, from: number): { ranges: WantedRange[]; end: number } {
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

async function lookingAtPlace<T>(
  access: RepositoryAccess,
  { place, options }: { place: Place; options: ShowBackupOptions },
  work: (look: Look, found: FoundPlace) => Promise<T>,
): Promise<T> {
  return lookingAtSnapshots(access, options, async (look) => {
    const snapshot = chosenSnapshot(look, place.snapshot, { latestOf: options, onWarning: options.onWarning });
    warnOfUnreadable(access, look.damaged, options);
    const saved = await snapshotContent(look, snapshot.snapshot);
    const path = pathBelow(saved, snapshot.snapshot.paths, place.path);
    return work(look, { snapshot, saved, path, node: await entryAt(look, saved, path) });
  });
}
