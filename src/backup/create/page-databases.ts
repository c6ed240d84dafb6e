import type { DatabaseInBackup, TransferredSize } from "../../contract/snapshots.ts";
import { CairnError } from "../../errors.ts";
import { hex, latin1 } from "../../formats/bytes.ts";
import { PROGRAM } from "../../formats/program.ts";
import { formatBytes } from "../../formats/sizes.ts";
import { displayPath, printablePath } from "../../fs/paths/safe-path.ts";
import type { ObjectId } from "../../ids.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import type { PointContent, StoredContent } from "../../workspace/store/engine.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { manifestFile } from "../../workspace/store/snapshot-tree.ts";
import { snapshotContent } from "../open/content.ts";
import { leadTo } from "../../archive/databases/nodes.ts";
import type { Session } from "../open/session.ts";
import { pointOf } from "../open/snapshots.ts";
import {
  type FileContent,
  type BeforeDatabase,
  largeDatabases,
  type PagedDatabase,
  type StoreBlob,
  storePages,
} from "../../archive/databases/page-store.ts";
import { PagedTrees } from "../../archive/databases/paged-trees.ts";
import type { PlacedDatabase } from "../../archive/databases/placed-databases.ts";

interface PagingParts {
  session: Session;
  workspace: Workspace;
  stored: StoredContent;
  /** Paths of the snapshot that is being made. */
  paths: readonly string[];
  parent: ListedSnapshot | null;
  /** The file of the questions to a restored copy; null: none. */
  checks: Uint8Array | null;
  signal: AbortSignal | undefined;
  /** Told of a database whose pages are all stored again, before they are. */
  onWarning: ((message: string) => void) | undefined;
}

/**
 * Stores large databases of a point in a repository page by page, and makes the snapshot's trees without them and with
 * the snapshot's checks.
 */
export class PagedContent {
  readonly trees: PagedTrees;
  readonly databases: readonly PagedDatabase[];
  /** Size of all newly stored content; `finish` completes it. */
  readonly added: TransferredSize = { data_blobs: 0, tree_blobs: 0, bytes: 0, stored_bytes: 0, packs: 0 };
  readonly #blobs: PackedBlobs | null;

  private constructor(
    trees: PagedTrees,
    { databases, added, blobs }: { databases: PagedDatabase[]; added: TransferredSize; blobs: PackedBlobs | null },
  ) {
    this.trees = trees;
    this.databases = databases;
    this.added = added;
    this.#blobs = blobs;
  }

  /** Null if the point has no large database and no checks. If a backup fails, no snapshot has the pages stored before. */
  static async make(parts: PagingParts): Promise<PagedContent | null> {
    const { session, stored, paths, checks, signal, onWarning } = parts;
    const { root, manifest, placed } = await pointContent(stored, paths);
    const inPages = new Set(placed?.below(placed.root).map(({ path }) => latin1(path)));
    const found = await largeDatabases(stored.blobs, root, manifest?.fileHashes ?? []);
    if (found.length === 0 && checks === null) return null;
    const blobs = session.packedBlobs();
    const added: TransferredSize = { data_blobs: 0, tree_blobs: 0, bytes: 0, stored_bytes: 0, packs: 0 };
    const seen = new Set<string>();
    const store: StoreBlob = async (type, id, bytes) => {
      const key = `${type} ${hex(id)}`;
      if (seen.has(key) || session.index.entryOf({ id: id as never, type }) >= 0) return;
      seen.add(key);
      added[type === "tree" ? "tree_blobs" : "data_blobs"]++;
      added.bytes += bytes.length;
      if (blobs === null) added.stored_bytes += bytes.length;
      blobs?.addNew(type, id, bytes);
      await blobs?.settle();
    };
    try {
      const before = found.length === 0 ? new Map<string, BeforeDatabase>() : await beforeOf(parts);
      const databases: PagedDatabase[] = [];
      for (const database of found) {
        const known = before.get(latin1(database.path)) ?? null;
        const isPaged = inPages.has(latin1(database.path));
        const paged = await storePages(stored.blobs, database, { before: known, store, signal, isPaged });
        if (paged === null) continue;
        databases.push(paged);
        if (paged.reason !== null)
          onWarning?.(
            `${printablePath(paged.path)} is stored as a whole again, up to ${formatBytes(database.size)}: ${paged.reason}`,
          );
      }
      const top = stored.snapshotTree;
      const lead = await leadTo(stored.blobs, top, paths);
      let record: FileContent | null = null;
      if (checks !== null) {
        const { pieces, file } = manifestFile(checks);
        for (const { id, bytes } of pieces) await store("data", id, bytes);
        record = file;
      }
      const trees = await PagedTrees.make(stored.blobs, { top, lead, databases, record }, store);
      return new PagedContent(trees, { databases, added, blobs });
    } catch (error) {
      await blobs?.abort();
      throw error;
    }
  }

  /** True if pages or trees have to be stored, also if only again. */
  get hasNew(): boolean {
    return this.added.data_blobs + this.added.tree_blobs > 0;
  }

  /** Id of the snapshot's topmost tree. */
  get tree(): ObjectId {
    return hex(this.trees.tree) as ObjectId;
  }

  /** Afterwards all newly stored content is durable and indexed. */
  async finish(): Promise<void> {
    if (this.#blobs === null) return;
    await this.#blobs.finish();
    this.added.stored_bytes = this.#blobs.bytes;
    this.added.packs = this.#blobs.packs;
  }

  async abort(): Promise<void> {
    await this.#blobs?.abort();
  }

  /** The databases as results show them. */
  get shown(): DatabaseInBackup[] {
    return this.databases.map(({ path, pages, pageSize, changed, stored, reason }) => ({
      ...displayPath(path),
      page_size: pageSize,
      pages,
      changed_pages: changed,
      stored,
      reason,
    }));
  }
}

async function pointContent(stored: StoredContent, paths: readonly string[]): ReturnType<typeof snapshotContent> {
  const tree = hex(stored.snapshotTree) as ObjectId;
  return snapshotContent(stored.blobs, { tree, paths: [...paths], program_version: PROGRAM });
}

/** The databases of the previous snapshot, by their paths. */
async function beforeOf({ session, workspace, parent }: PagingParts): Promise<Map<string, BeforeDatabase>> {
  const known = new Map<string, BeforeDatabase>();
  if (parent === null) return known;
  const { reader } = session;
  const placed = await orNull(async () => (await snapshotContent(reader, parent.snapshot)).placed);
  const all = placed?.below(placed.root) ?? [];
  const id = pointOf(parent.snapshot);
  const point = all.length === 0 || id === null ? null : workspace.byId(id);
  const content = point === null ? null : await contentsOf(workspace, point, { all, paths: parent.snapshot.paths });
  for (const { path, database } of all)
    known.set(latin1(path), { stored: database, reader, content: content?.get(latin1(path)) ?? null });
  return known;
}

/**
 * Returns the blob ids of an older point's databases, by path, if their SHA-256 equals the snapshot's. Null if the
 * point's content is gone or damaged.
 */
async function contentsOf(
  workspace: Workspace,
  { descriptor }: Point,
  { all, paths }: { all: readonly PlacedDatabase[]; paths: readonly string[] },
): Promise<Map<string, Uint8Array> | null> {
  return orNull(async () => {
    const stored = await workspace.engine.stored(descriptor.content as unknown as PointContent);
    const { root, manifest } = await pointContent(stored, paths);
    const wanted = new Map(all.map(({ path, database }) => [latin1(path), database.manifest.sha256]));
    const same = (manifest?.fileHashes ?? []).filter(({ path, sha256 }) => wanted.get(latin1(path)) === hex(sha256));
    const found = await largeDatabases(stored.blobs, root, same);
    return new Map(found.map(({ path, node }) => [latin1(path), node.content!]));
  });
}

/** Returns null if the content is gone or damaged: then the backup compares nothing and reads or stores more. */
async function orNull<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof CairnError && (error.code === "damaged" || error.code === "not_found")) return null;
    throw error;
  }
}
