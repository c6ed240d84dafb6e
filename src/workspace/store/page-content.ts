import { closeSync, readSync } from "node:fs";
import {
  type BeforeDatabase,
  largeDatabases,
  type PagedDatabase,
  storePages,
} from "../../archive/databases/page-store.ts";
import { nodeIn, readNodes } from "../../archive/databases/nodes.ts";
import { PagedTrees } from "../../archive/databases/paged-trees.ts";
import { plainDatabase } from "../../archive/databases/stored-database.ts";
import { RecordFinder } from "../../archive/scan/find-record.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { isUnreadable } from "../../archive/databases/placed-databases.ts";
import { requireWithin } from "../../archive/scan/store-sink.ts";
import { append } from "../../append.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { hex, latin1 } from "../../formats/bytes.ts";
import { mayBePaged, PAGED } from "../../formats/payloads/sqlite-pages.ts";
import type { FileHash } from "../../formats/records/manifest.ts";
import { decodeTree, type TreeNode } from "../../formats/restic/tree.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { arenaOver } from "../../native.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/index/blob-index.ts";
import { type FinishedPack, PackWriter } from "../../repository/packs/pack-writer.ts";
import { BlobSource } from "../../repository/read/blob-source.ts";
import { derivedIds } from "../../repository/read/derived-blobs.ts";
import { NearPacks } from "../../repository/read/near-packs.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import type { HeadContent, PointContent } from "./engine.ts";
import { type PointView, viewOf } from "./point-view.ts";
import { splitPath } from "./snapshot-tree.ts";

/** Content of the head point, to whose databases those of a scan are compared. */
export interface BasePoint extends PointView {
  content: PointContent;
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

/** Opens head's content to compare databases with; null: there is none that can be read. */
export async function baseOf(store: EmbeddedStore, head: HeadContent | null): Promise<BasePoint | null> {
  if (head === null || head.content.tree === "") return null;
  try {
    const content = head.content as unknown as PointContent;
    return { ...(await viewOf(store, content)), content };
  } catch (error) {
    if (toCairnError(error).code !== "damaged") throw error;
    return null;
  }
}

/** A database's content is neither in the store nor in the scan: the folder has to be read again. */
export class ContentNotRead extends CairnError {
  constructor(path: Uint8Array) {
    super("internal", `the content of database ${latin1(path)} was not read`);
  }
}

/**
 * Stores the databases of a finished scan: by pages if head has them and little changed, else as plain files. Adds
 * packs to those of the scan. Returns null if none is stored by pages. Throws {@link ContentNotRead}, or another error,
 * after all packs are removed.
 */
export async function pageScan(store: EmbeddedStore, request: PageRequest): Promise<PagedSnapshot | null> {
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

export function closeSpill({ spilled: { file } }: Pick<ScanResult, "spilled">): void {
  if (file !== null) closeSync(file);
}

async function pageDatabases(store: EmbeddedStore, request: PageRequest): Promise<PagedSnapshot | null> {
  const { scan, base, top, signal } = request;
  if (isStoredAsItIs(store, request)) return null;
  const writer = new Writer(store);
  try {
    const { blobs, keptTrees } = scannedBlobs(store, request);
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
    await storePlain(blobs, { request, paged, keptTrees, writer });
    if (paged.length === 0) {
      append(scan.packs, writer.finish());
      return null;
    }
    const lead = splitPath(request.folder).map(latin1);
    const { tree } = await PagedTrees.make(blobs, { top, lead, databases: paged, record: null }, writer.add);
    let stored = tree;
    for (const name of lead) {
      const made = writer.trees.get(hex(stored));
      const nodes = made === undefined ? await readNodes(blobs, stored) : decodeTree(made);
      stored = nodes.find((node) => latin1(node.name) === name)!.subtree!;
    }
    append(scan.packs, writer.finish());
    return { top: tree, stored };
  } catch (error) {
    writer.abort();
    throw error;
  }
}

/** True if no database is new or changed, and the store has all of them as plain files. */
function isStoredAsItIs({ index }: EmbeddedStore, { scan, files }: PageRequest): boolean {
  if (scan.spilled.blobs.length + scan.spilled.trees.length > 0) return false;
  const finder = new RecordFinder(scan);
  return files.every(({ path, size }) => {
    const { content = new Uint8Array(0) } = size < PAGED.from ? {} : (finder.nodeOf(path) ?? {});
    if (!mayBePaged(size, content.length / 32)) return true;
    for (let at = 0; at < content.length; at += 32) if (index.lookup(content, at, DATA_BLOB) < 0) return false;
    return true;
  });
}

/** Blobs of the store, of a scan's packs, of its spilled databases and of head's databases. */
function scannedBlobs(
  store: EmbeddedStore,
  { scan, base }: PageRequest,
): { blobs: BlobSource; keptTrees: ReadonlyMap<string, Uint8Array> } {
  const keptTrees = new Map<string, Uint8Array>();
  const spilled = new Map<string, () => Uint8Array>();
  const ids = [];
  for (const { id, bytes } of scan.spilled.trees) {
    keptTrees.set(hex(id), bytes);
    ids.push({ id, type: TREE_BLOB, length: bytes.length } as const);
  }
  for (const { id, offset, length } of scan.spilled.blobs) {
    ids.push({ id: Buffer.from(id, "hex"), type: DATA_BLOB, length } as const);
    spilled.set(id, () => {
      const bytes = Buffer.alloc(length);
      readSync(scan.spilled.file!, bytes, 0, length, offset);
      return bytes;
    });
  }
  const trees = new Map([...(base?.derived?.trees ?? []), ...keptTrees]);
  const derived = { trees, databases: base?.derived?.databases ?? [], spilled };
  const index = store.index.withDerived([...ids, ...derivedIds(derived)]);
  const own = new Map(scan.packs.map((pack) => [hex(pack.id), pack.path]));
  for (const { id, header } of scan.packs) index.addPackHeader(id, header);
  const near = new NearPacks(store.storage, "");
  const packs = { open: (pack: string) => (own.has(pack) ? openRegular(own.get(pack)!) : near.open(pack)) };
  return { blobs: new BlobSource({ keys: store.repository.keys, index, packs, derived }), keptTrees };
}

/** A database as head has it; null if it does not, or as a file of other blobs. */
async function databaseBefore(
  { content, placed, blobs }: BasePoint,
  { path, pageSize }: { path: Uint8Array; pageSize: number },
): Promise<Omit<BeforeDatabase, "reader"> | null> {
  const known = placed?.below(placed.root).find((each) => latin1(each.path) === latin1(path));
  if (known !== undefined) return { stored: known.database, content: known.database.content ?? null };
  let tree: Uint8Array = Buffer.from(content.tree, "hex");
  let node: TreeNode | undefined;
  for (const name of latin1(path).split("/")) {
    node = await nodeIn(blobs, tree, Buffer.from(name, "latin1"));
    if (node === undefined) return null;
    tree = node.subtree ?? tree;
  }
  if (node?.content === undefined || !mayBePaged(node.size, node.content.length / 32)) return null;
  if (node.size % pageSize !== 0) return null;
  return { stored: plainDatabase(path, node, pageSize), content: node.content };
}

/** Stores the content of databases that are plain files, and the trees that have them. */
async function storePlain(
  blobs: BlobSource,
  {
    request: { scan, files },
    paged,
    keptTrees,
    writer,
  }: {
    request: PageRequest;
    paged: readonly PagedDatabase[];
    keptTrees: ReadonlyMap<string, Uint8Array>;
    writer: Writer;
  },
): Promise<void> {
  const finder = new RecordFinder(scan);
  const isPaged = new Set(paged.map(({ path }) => latin1(path)));
  const plain = new Set<string>();
  for (const { path, size } of files) {
    if (size < PAGED.from || isPaged.has(latin1(path))) continue;
    const { content = new Uint8Array(0) } = finder.nodeOf(path) ?? {};
    if (!mayBePaged(size, content.length / 32)) continue;
    plain.add(hex(content));
    for (let at = 0; at < content.length; at += 32) {
      const entry = blobs.index.lookup(content, at, DATA_BLOB);
      if (entry < 0) throw new ContentNotRead(path);
      if (blobs.isDerived(entry)) await writer.add("data", content.subarray(at, at + 32), blobs.view(entry));
    }
  }
  for (const [id, bytes] of keptTrees) {
    const isNeeded = [...decodeTree(bytes)].some(({ content }) => content !== undefined && plain.has(hex(content)));
    if (isNeeded) await writer.add("tree", Buffer.from(id, "hex"), bytes);
  }
}

/** Packs new blobs that neither the store nor this writer has. */
class Writer {
  readonly trees = new Map<string, Uint8Array>();
  readonly #store: EmbeddedStore;
  readonly #packs: FinishedPack[] = [];
  readonly #writers: Record<"data" | "tree", PackWriter>;
  readonly #added = new Set<string>();

  constructor(store: EmbeddedStore) {
    this.#store = store;
    const { keys } = store.repository;
    const directory = store.workDirectory;
    const writer = (type: "data" | "tree"): PackWriter =>
      new PackWriter({ type, keys, directory, level: 1, onPack: (pack) => void this.#packs.push(pack) });
    this.#writers = { data: writer("data"), tree: writer("tree") };
  }

  readonly add = async (type: "data" | "tree", id: Uint8Array, bytes: Uint8Array): Promise<void> => {
    if (type === "tree") this.trees.set(hex(id), bytes);
    const key = `${type} ${hex(id)}`;
    if (this.#added.has(key) || this.#store.index.entryOf({ id, type }) >= 0) return;
    this.#added.add(key);
    this.#writers[type].add(id, arenaOver(Uint8Array.from(bytes)), 0, bytes.length);
  };

  finish(): FinishedPack[] {
    for (const writer of Object.values(this.#writers)) writer.finish();
    return this.#packs;
  }

  abort(): void {
    for (const writer of Object.values(this.#writers)) writer.abort();
  }
}
