import { append } from "../append.ts";
import { latin1 } from "../formats/bytes.ts";
import { linkedInode, type TreeNode } from "../formats/restic/tree.ts";
import { type BlobIndex, DATA_BLOB, TREE_BLOB } from "../repository/index/blob-index.ts";
import type { BlobSource } from "../repository/read/blob-source.ts";
import { EntrySet } from "../repository/index/entry-set.ts";
import type { ListedSnapshot } from "../repository/repository.ts";
import { packSizes } from "../repository/storage/storage.ts";
import { walkTrees } from "../repository/trees/walk-trees.ts";
import { findUnindexed } from "../repository/verify/unindexed-packs.ts";
import type { BackupSelection, BackupStats, BackupStatsOptions } from "../contract/index.ts";
import { chosenSnapshots, warnOfUnreadable } from "./open/snapshots.ts";
import { reading } from "./open/session.ts";
import type { OpenRepository } from "./open/open-repository.ts";
import { readNodes } from "../archive/databases/nodes.ts";

/**
 * Counts a repository's content by its index; reads no pack and takes no lock. With snapshots or a filter also counts
 * their content, for which it reads their trees under a shared lock.
 */
export async function backupStats(access: OpenRepository, options: BackupStatsOptions): Promise<BackupStats> {
  const { snapshots = [], hosts = [], paths = [], tags = [] } = options;
  if ([snapshots, hosts, paths, tags].every((words) => words.length === 0))
    return stats(access, await access.index(options.signal), null);
  return reading(access, options, async (session) => {
    const chosen = chosenSnapshots(session, options);
    warnOfUnreadable(access, session.damaged, options);
    await session.bring(chosen.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex")));
    const selected = await new SelectionWalk(session.reader, options.signal).of(chosen);
    return stats(access, session.index, selected);
  });
}

async function stats(access: OpenRepository, index: BlobIndex, selected: BackupSelection | null): Promise<BackupStats> {
  const { storage } = access;
  const packs = await packSizes(storage);
  const all = newCounts();
  for (let entry = 0; entry < index.count; entry++) count(all, index, entry);
  const unindexed = await findUnindexed(access.repository, packs, index);
  return {
    ...access.info,
    snapshots: (await storage.list("snapshots")).length,
    packs: packs.size,
    pack_bytes: [...packs.values()].reduce((sum, size) => sum + size, 0),
    unindexed_packs: unindexed.packs.size,
    index_files: (await storage.list("index")).length,
    ...all,
    selection: selected,
  };
}

type Counts = Pick<BackupStats, "data_blobs" | "tree_blobs" | "plain_bytes" | "stored_bytes">;

function newCounts(): Counts {
  return { data_blobs: 0, tree_blobs: 0, plain_bytes: 0, stored_bytes: 0 };
}

function count(counts: Counts, { table }: BlobIndex, entry: number): void {
  counts[table.typeOf(entry) === TREE_BLOB ? "tree_blobs" : "data_blobs"]++;
  counts.stored_bytes += table.lengthOf[entry]!;
  counts.plain_bytes += table.plainLengthOf(entry);
}

interface Sizes {
  files: number;
  /** Bytes of the files that have only one name. */
  bytes: number;
  linked: LinkedFiles | null;
}

/** Files of a tree that have several names, in this tree or elsewhere in the snapshot. */
interface LinkedFiles {
  /** For each file: a key that all its names share, and its size. */
  own: [string, number][];
  below: LinkedFiles[];
}

/**
 * Reads each tree once. Entries shared by several snapshots or folders count in each of them, but their blobs once, and
 * a file with several names once in each snapshot.
 */
class SelectionWalk {
  readonly #reader: BlobSource;
  readonly #signal: AbortSignal | undefined;
  readonly #counts = newCounts();
  readonly #counted: EntrySet;
  readonly #known = new Map<string, Sizes>();

  constructor(reader: BlobSource, signal: AbortSignal | undefined) {
    this.#reader = reader;
    this.#signal = signal;
    this.#counted = new EntrySet(reader.index.count);
  }

  async of(snapshots: readonly ListedSnapshot[]): Promise<BackupSelection> {
    let [files, bytes] = [0, 0];
    for (const { snapshot } of snapshots) {
      const sizes = await walkTrees<Sizes>(
        Buffer.from(snapshot.tree, "hex"),
        async (id) => readNodes(this.#reader, id),
        {
          known: ({ id }) => this.#known.get(latin1(id)),
          done: ({ id }, nodes) => this.#sizesOf(id, nodes),
        },
        this.#signal,
      );
      files += sizes.files;
      bytes += sizes.bytes + linkedBytes(sizes.linked);
    }
    return { snapshots: snapshots.length, files, bytes, ...this.#counts };
  }

  #sizesOf(id: Uint8Array, nodes: Iterable<readonly [TreeNode, Sizes | undefined]>): Sizes {
    const sizes: Sizes = { files: 0, bytes: 0, linked: null };
    const linked: LinkedFiles = { own: [], below: [] };
    for (const [node, below] of nodes) {
      const { type, size, content } = node;
      const inode = linkedInode(node);
      if (type === "file") sizes.files++;
      if (type === "file" && inode === null) sizes.bytes += size;
      else if (type === "file") linked.own.push([inode!, size]);
      for (let at = 0; content !== undefined && at < content.length; at += 32) this.#blob(content, at, DATA_BLOB);
      if (below === undefined) continue;
      sizes.files += below.files;
      sizes.bytes += below.bytes;
      if (below.linked !== null) linked.below.push(below.linked);
    }
    if (linked.own.length > 0 || linked.below.length > 0) sizes.linked = linked;
    this.#blob(id, 0, TREE_BLOB);
    this.#known.set(latin1(id), sizes);
    return sizes;
  }

  #blob(bytes: Uint8Array, at: number, type: typeof DATA_BLOB | typeof TREE_BLOB): void {
    const { index } = this.#reader;
    const entry = index.lookup(bytes, at, type);
    if (entry >= 0 && this.#counted.add(entry)) count(this.#counts, index, entry);
  }
}

/** Sums the bytes of everything below, each file once. */
function linkedBytes(top: LinkedFiles | null): number {
  const files = new Map<string, number>();
  const [open, seen] = [top === null ? [] : [top], new Set<LinkedFiles>()];
  for (let tree = open.pop(); tree !== undefined; tree = open.pop()) {
    if (seen.has(tree)) continue;
    seen.add(tree);
    for (const [inode, size] of tree.own) files.set(inode, size);
    append(open, tree.below);
  }
  return [...files.values()].reduce((sum, size) => sum + size, 0);
}
