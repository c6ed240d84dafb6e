import { closeSync } from "node:fs";
import { append } from "../../append.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { folderOf, latin1 } from "../../formats/bytes.ts";
import { mayBePaged, PAGED } from "../../formats/payloads/sqlite-pages.ts";
import type { FileHash } from "../../formats/records/manifest.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/index/blob-index.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { RecordFinder } from "../scan/find-record.ts";
import type { ScanResult } from "../scan/scan.ts";
import { requireWithin } from "../scan/store-sink.ts";
import { nodeAt } from "../databases/nodes.ts";
import { PagePacks, type StoreToFill } from "./page-packs.ts";
import { largeDatabases, type PagedDatabase, storePages } from "../databases/page-store.ts";
import { PagedTrees } from "../databases/paged-trees.ts";
import { isUnreadable } from "../databases/placed-databases.ts";
import { type OpenStore, type PointContent, viewOf } from "../databases/point-view.ts";
import { type BasePoint, databaseBefore, scannedBlobs } from "./scanned-blobs.ts";

/** Opens head's content to compare databases with; null: there is none that can be read. */
export async function baseOf(store: OpenStore, head: { content: PointContent } | null): Promise<BasePoint | null> {
  if (head === null || head.content.tree === "") return null;
  try {
    const { content } = head;
    return { ...(await viewOf(store, content)), content };
  } catch (error) {
    if (toCairnError(error).code !== "damaged") throw error;
    return null;
  }
}

export function closeSpill({ spilled: { file } }: Pick<ScanResult, "spilled">): void {
  if (file !== null) closeSync(file);
}

export interface PageRequest {
  scan: ScanResult;
  files: readonly FileHash[];
  /** of the snapshot as if no database were stored by pages */
  top: Uint8Array;
  /** the workspace's path, raw bytes */
  folder: Uint8Array;
  /** null: databases are plain files */
  base: BasePoint | null;
  mostBytes?: number | null | undefined;
  signal?: AbortSignal | undefined;
}

/** The trees of a snapshot with databases by pages: the topmost, and that of the folder. */
export interface PagedSnapshot {
  top: Uint8Array;
  stored: Uint8Array;
}

/** A database's content is neither in the store nor in the scan: the folder has to be read again. */
export class ContentNotRead extends CairnError {
  constructor(path: Uint8Array) {
    super("internal", `the content of database ${latin1(path)} was not read`);
  }
}

/**
 * Stores the databases of a finished scan: by pages if head has them and little changed, else as plain files. Adds
 * packs to those of the scan. Returns null if no database is stored by pages. An error, for example
 * {@link ContentNotRead}, is thrown after all packs of the scan are removed.
 */
export async function pageScan(store: StoreToFill, request: PageRequest): Promise<PagedSnapshot | null> {
  const { scan, mostBytes } = request;
  try {
    const trees = await pageDatabases(store, request);
    if (typeof mostBytes === "number")
      requireWithin(
        scan.packs.reduce((sum, { size }) => sum + size, 0),
        mostBytes,
      );
    return trees;
  } catch (error) {
    for (const { path } of scan.packs) clearAway(path);
    throw isUnreadable(error) ? new ContentNotRead(request.folder) : error;
  } finally {
    closeSpill(scan);
  }
}

async function pageDatabases(store: StoreToFill, request: PageRequest): Promise<PagedSnapshot | null> {
  const { scan, base, top, signal } = request;
  if (isStoredAsItIs(store, request)) return null;
  const writer = new PagePacks(store);
  try {
    const blobs = scannedBlobs(store, request);
    const paged: PagedDatabase[] = [];
    for (const database of base === null ? [] : await largeDatabases(blobs, scan.tree, request.files)) {
      const before = await databaseBefore(base!, database);
      const stored =
        before === null
          ? null
          : await storePages(blobs, database, {
              before: { ...before, reader: blobs },
              store: writer.add,
              signal,
              isForPoint: true,
            });
      if (stored !== null) paged.push(stored);
    }
    await storePlain(blobs, { request, paged: new Set(paged.map(({ path }) => latin1(path))), writer });
    if (paged.length === 0) {
      append(scan.packs, writer.finish());
      return null;
    }
    const lead = latin1(request.folder)
      .split("/")
      .filter((name) => name !== "");
    const { tree } = await PagedTrees.make(blobs, { top, lead, databases: paged, record: null }, writer.add);
    for (const [id, bytes] of writer.trees) blobs.lend(id, bytes);
    const { subtree } = (await nodeAt(blobs, tree, lead))!;
    append(scan.packs, writer.finish());
    return { top: tree, stored: subtree! };
  } catch (error) {
    writer.abort();
    throw error;
  }
}

/** True if the store has all databases as plain files, and the trees of their folders. */
function isStoredAsItIs({ index }: StoreToFill, { scan, files }: PageRequest): boolean {
  if (scan.spilled.blobs.length + scan.spilled.trees.length > 0) return false;
  return plainFiles(scan, files, new Set()).every(({ content, tree }) => {
    for (let at = 0; at < content.length; at += 32) if (index.lookup(content, at, DATA_BLOB) < 0) return false;
    return tree !== null && index.lookup(tree, 0, TREE_BLOB) >= 0;
  });
}

/** Stores the content of databases that are plain files, and the trees of their folders. */
async function storePlain(
  blobs: BlobSource,
  { request: { scan, files }, paged, writer }: { request: PageRequest; paged: ReadonlySet<string>; writer: PagePacks },
): Promise<void> {
  const foldersOfPaged = new Set(Iterator.from(paged).map(folderOf));
  const add = async (type: "data" | "tree", id: Uint8Array, path: Uint8Array): Promise<void> => {
    const entry = blobs.index.lookup(id, 0, type === "data" ? DATA_BLOB : TREE_BLOB);
    if (entry < 0) throw new ContentNotRead(path);
    if (blobs.isDerived(entry)) await writer.add(type, id, blobs.view(entry));
  };
  for (const { path, content, tree } of plainFiles(scan, files, paged)) {
    for (let at = 0; at < content.length; at += 32) await add("data", content.subarray(at, at + 32), path);
    // The folder's tree may be one that head has with this database by pages, for example if the folder was renamed.
    if (foldersOfPaged.has(folderOf(latin1(path)))) continue;
    if (tree === null) throw new ContentNotRead(path);
    await add("tree", tree, path);
  }
}

/** The files that may be databases by pages, except those in `paged`; `tree`: id of the tree of their folder. */
function* plainFiles(
  scan: ScanResult,
  files: readonly FileHash[],
  paged: ReadonlySet<string>,
): Generator<{ path: Uint8Array; content: Uint8Array; tree: Uint8Array | null }> {
  const finder = new RecordFinder(scan);
  for (const { path, size } of files) {
    if (size < PAGED.from || paged.has(latin1(path))) continue;
    const { content = new Uint8Array(0) } = finder.nodeOf(path) ?? {};
    if (mayBePaged(size, content.length / 32)) yield { path, content, tree: finder.treeAbove(path) };
  }
}
