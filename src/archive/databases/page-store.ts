import { sha256 } from "../../crypto/hash.ts";
import { CairnError } from "../../errors.ts";
import { compareBytes, hex, latin1 } from "../../formats/bytes.ts";
import type { FileHash } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { LOCK_BYTE_OFFSET, LOGS, parseHeader } from "../../formats/sqlite-header.ts";
import {
  BLOBS_NAME,
  DATABASE_BLOB_BYTES,
  encodeMap,
  encodePagesManifest,
  HASHES_NAME,
  MANIFEST_NAME,
  MAP_NAME,
  mayBePaged,
  MOST_PAGES,
  NO_FILE,
  PAGE_HASH_BYTES,
  PAGED,
  PAGES_BLOB_BYTES,
  type PageFile,
  type PageRun,
  PAGES_NAME,
  pagesName,
} from "../../formats/payloads/sqlite-pages.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { DATA_BLOB } from "../../repository/index/blob-index.ts";
import { nameOf, readBlob, readNodes } from "./nodes.ts";
import { blobStarts, DatabasePages, folderName, pageHash, type StoredDatabase, wholeRuns } from "./stored-database.ts";

const MOST_DELTAS = 30;
const FULL = `the database had ${MOST_DELTAS} files of changed pages`;

/** A database in a repository, and how it was stored. */
export interface PagedDatabase {
  path: Uint8Array;
  pages: number;
  pageSize: number;
  /** Number of pages that the previous snapshot lacks. */
  changed: number;
  /** `base`: the whole database was stored; `delta`: changed pages; `same`: nothing. */
  stored: "base" | "delta" | "same";
  /** Reason for a new base if an earlier snapshot has the database; else null. */
  reason: string | null;
  name: string;
  /** Files of the database's folder, by name. */
  files: ReadonlyMap<string, FileContent>;
  folders: readonly PagesFolder[];
}

/** A file of pages and a file of their hashes, in a folder that no later snapshot changes, so that no later snapshot stores its tree again. */
interface PagesFolder {
  name: string;
  pages: FileContent;
  /** Null for the base of a point's database. */
  hashes: FileContent | null;
  /** The folder's node in the previous snapshot; null for a new folder. */
  kept: TreeNode | null;
}

export interface FileContent {
  size: number;
  /** Ids of its blobs. */
  content: Uint8Array;
}

export interface PointDatabase extends FileHash {
  node: TreeNode;
  pageSize: number;
}

/** A database as an older snapshot holds it. */
export interface BeforeDatabase {
  stored: StoredDatabase;
  reader: BlobSource;
  /** Ids of the database's blobs in the store if the point of that snapshot exists; else null. */
  content: Uint8Array | null;
}

export type StoreBlob = (type: "data" | "tree", id: Uint8Array, bytes: Uint8Array) => Promise<void>;

/** Finds the databases of a point to be stored page by page, among the manifest's files of several blobs. */
export async function largeDatabases(
  blobs: BlobSource,
  root: Uint8Array,
  files: readonly FileHash[],
): Promise<PointDatabase[]> {
  const found: PointDatabase[] = [];
  const folders = new FoldersOnTheWay(blobs, root);
  for (const file of files) {
    if (file.size < PAGED.from) continue;
    const parts = latin1(file.path).split("/");
    const name = parts.pop()!;
    const nodes = await folders.at(parts);
    const node = nodes.get(name);
    if (node?.content === undefined || node.links > 1 || node.size !== file.size) continue;
    if (!mayBePaged(node.size, node.content.length / 32)) continue;
    // Databases are cut every 64 KiB; an older Cairn cut them elsewhere.
    const starts = blobStarts(blobs, node.content);
    if (starts.some((start, at) => start !== Math.min(at * DATABASE_BLOB_BYTES, node.size))) continue;
    // The log belongs to the database; without its log the plain file would be incomplete.
    if (LOGS.some((ending) => (nodes.get(`${name}${ending}`)?.size ?? 0) > 0)) continue;
    const first = Buffer.from(await readBlob(blobs, node.content.subarray(0, 32), DATA_BLOB));
    const pageSize = parseHeader(first)?.page_size;
    if (pageSize === undefined || node.size / pageSize > MOST_PAGES) continue;
    if (node.size % pageSize === 0) found.push({ ...file, node, pageSize });
  }
  return found;
}

/** Reads the folders of paths that are asked for in order. Keeps the folders on the way to the last one. */
class FoldersOnTheWay {
  readonly #blobs: BlobSource;
  readonly #root: Uint8Array;
  #way: { name: string; nodes: ReadonlyMap<string, TreeNode> }[] = [];

  constructor(blobs: BlobSource, root: Uint8Array) {
    this.#blobs = blobs;
    this.#root = root;
  }

  /** The nodes of a folder by their names, in latin1; none if it does not exist. */
  async at(parts: readonly string[]): Promise<ReadonlyMap<string, TreeNode>> {
    const names = ["", ...parts];
    const differs = this.#way.findIndex(({ name }, depth) => name !== names[depth]);
    if (differs >= 0) this.#way = this.#way.slice(0, differs);
    for (const name of names.slice(this.#way.length)) {
      const above = this.#way.at(-1)?.nodes;
      const tree = above === undefined ? this.#root : above.get(name)?.subtree;
      const nodes = tree === undefined ? [] : await readNodes(this.#blobs, tree);
      this.#way.push({ name, nodes: new Map(Array.from(nodes, (node) => [nameOf(node), node])) });
    }
    return this.#way.at(-1)!.nodes;
  }
}

interface StorePagesOptions {
  before: BeforeDatabase | null;
  store: StoreBlob;
  signal?: AbortSignal | undefined;
  isForPoint?: boolean;
  /** True: blobs of the plain file lie in no pack, so a base stores them too. */
  isPaged?: boolean;
}

/**
 * Stores the changed pages of a database. Null if it must stay a plain file: the page that SQLite never writes is not
 * empty; in a point also if all pages would be stored again (`isForPoint`).
 */
export async function storePages(
  blobs: BlobSource,
  database: PointDatabase,
  { before, store, signal, isForPoint = false, isPaged = false }: StorePagesOptions,
): Promise<PagedDatabase | null> {
  return new PageStore(blobs, database, { store, pace: newPacer(signal), isForPoint, isPaged }).run(before);
}

class PageStore {
  readonly #blobs: BlobSource;
  readonly #database: PointDatabase;
  readonly #store: StoreBlob;
  readonly #pace: Pacer;
  readonly #isForPoint: boolean;
  readonly #isPaged: boolean;
  readonly #pages: number;
  readonly #hashes: Uint8Array;
  /** The page that SQLite locks and never writes; -1 if the database has none. */
  readonly #lockPage: number;

  constructor(
    blobs: BlobSource,
    database: PointDatabase,
    { store, pace, ...how }: { store: StoreBlob; pace: Pacer; isForPoint: boolean; isPaged: boolean },
  ) {
    const { node, pageSize } = database;
    this.#blobs = blobs;
    this.#database = database;
    this.#store = store;
    this.#pace = pace;
    this.#isForPoint = how.isForPoint;
    this.#isPaged = how.isPaged;
    this.#pages = node.size / pageSize;
    this.#hashes = new Uint8Array(this.#pages * PAGE_HASH_BYTES);
    this.#lockPage = node.size > LOCK_BYTE_OFFSET ? LOCK_BYTE_OFFSET / pageSize : -1;
  }

  async run(before: BeforeDatabase | null): Promise<PagedDatabase | null> {
    const known = before === null ? null : await this.#known(before);
    const reason = typeof known === "string" ? known : null;
    if (known === null || typeof known === "string") return this.#base(reason);
    const { stored, content } = before!;
    if (known.manifest.sha256 === hex(this.#database.sha256))
      return known.manifest.map === "" ? null : this.#same(stored);
    const old = known.hashes();
    const unread = this.#unchanged(content);
    const { files } = known.manifest;
    const stale = files.reduce((sum, file) => sum + file.pages, 0) - this.#pages;
    const isFull = files.length > MOST_DELTAS;
    const isWorth = (changed: number): boolean => !isFull && Math.max(stale, 0) + changed <= this.#pages / 2;
    const most = unread.reduce((sum, isSame, blob) => (isSame ? sum : sum + this.#pagesOf(blob).count), 0);
    const delta = new DeltaPages(this.#store);
    // A delta that may turn out too large is counted first, and read again to be stored.
    const first = await this.#scan({ old, known, unread, delta: isWorth(most) ? delta : null });
    if (first === null) return null;
    if (!isWorth(first.length)) return this.#base(isFull ? FULL : rebaseReason(first.length, this.#pages), true);
    if (!isWorth(most)) await this.#scan({ old, known, unread, delta });
    return this.#delta(stored, known, { changed: first, delta });
  }

  /** Opens the database of the previous snapshot; returns the reason as text if that is not possible. */
  async #known({ stored, reader }: BeforeDatabase): Promise<DatabasePages | string> {
    if (stored.error !== undefined) return `the previous snapshot cannot be read: ${stored.error.message}`;
    if (stored.manifest.pageSize !== this.#database.pageSize)
      return `its page size is ${this.#database.pageSize} bytes now, and was ${stored.manifest.pageSize}`;
    try {
      const pages = await DatabasePages.open(reader, stored);
      return pages.isWhole ? pages : "the repository lacks pages of the previous snapshot";
    } catch (error) {
      if (error instanceof CairnError && error.code === "damaged")
        return `the previous snapshot is damaged: ${error.message}`;
      throw error;
    }
  }

  /** For each blob, 1 if it equals the blob of the earlier point. */
  #unchanged(before: Uint8Array | null): Uint8Array {
    const { content = new Uint8Array(0) } = this.#database.node;
    const same = new Uint8Array(content.length / 32);
    if (before === null) return same;
    const [now, then] = [blobStarts(this.#blobs, content), blobStarts(this.#blobs, before)];
    for (let blob = 0; blob < same.length && now[blob] === then[blob]; blob++)
      same[blob] =
        compareBytes(content.subarray(blob * 32, blob * 32 + 32), before.subarray(blob * 32, blob * 32 + 32)) === 0
          ? 1
          : 0;
    return same;
  }

  #starts: Float64Array | null = null;

  #pagesOf(blob: number): { first: number; count: number } {
    this.#starts ??= blobStarts(this.#blobs, this.#database.node.content!);
    const { pageSize } = this.#database;
    const first = this.#starts[blob]! / pageSize;
    return { first, count: this.#starts[blob + 1]! / pageSize - first };
  }

  /**
   * Hashes the pages of each blob that may have changed, and adds changed pages to `delta`. Returns their numbers; null
   * if SQLite's lock-byte page is not empty.
   */
  async #scan({
    old,
    known,
    unread,
    delta,
  }: {
    old: Uint8Array;
    /** has the pages for which `old` has no hash; null: there are none */
    known: DatabasePages | null;
    unread: Uint8Array;
    delta: DeltaPages | null;
  }): Promise<number[] | null> {
    const { node, pageSize } = this.#database;
    const changed: number[] = [];
    const content = node.content!;
    for (let blob = 0; blob * 32 < content.length; blob++) {
      const { first, count } = this.#pagesOf(blob);
      const at = first * PAGE_HASH_BYTES;
      if (unread[blob] === 1) {
        this.#hashes.set(old.subarray(at, at + count * PAGE_HASH_BYTES), at);
        continue;
      }
      await this.#pace();
      const before = await known?.unhashed(first, count);
      const bytes = await readBlob(this.#blobs, content.subarray(blob * 32, blob * 32 + 32), DATA_BLOB);
      for (let i = 0; i < count; i++) {
        const page = bytes.subarray(i * pageSize, (i + 1) * pageSize);
        if (first + i === this.#lockPage) {
          if (page.some((byte) => byte !== 0)) return null;
          continue;
        }
        const earlier = before?.[i] ?? null;
        const isSame = earlier !== null && Buffer.compare(page, earlier) === 0;
        // A point stores the hashes of changed pages only.
        if (isSame && this.#isForPoint) continue;
        const hash = pageHash(page);
        const hashAt = (first + i) * PAGE_HASH_BYTES;
        this.#hashes.set(hash, hashAt);
        if (isSame || compareBytes(hash, old.subarray(hashAt, hashAt + PAGE_HASH_BYTES)) === 0) continue;
        changed.push(first + i);
        await delta?.add(page, hash);
      }
    }
    return changed;
  }

  /** Stores the whole database, from the point's blobs; `isHashed`: all page hashes are known. */
  async #base(reason: string | null, isHashed = false): Promise<PagedDatabase | null> {
    if (this.#isForPoint) return null;
    const { node } = this.#database;
    const none = new Uint8Array(0);
    const old = { old: none, known: null, unread: none, delta: null };
    if (!isHashed && (await this.#scan(old)) === null) return null;
    const runs = wholeRuns(this.#pages, this.#lockPage);
    for (let at = 0; this.#isPaged && at < node.content!.length; at += 32) {
      await this.#pace();
      const id = node.content!.subarray(at, at + 32);
      await this.#store("data", id, await readBlob(this.#blobs, id, DATA_BLOB));
    }
    const name = pagesName(1);
    const pageFile = { name, pages: this.#pages, hashes: hex(sha256(this.#hashes)) };
    const pages = { size: node.size, content: node.content! };
    const folder = { name, pages, hashes: await this.#file(this.#hashes), kept: null };
    return this.#made([folder], [pageFile], { runs, changed: this.#pages, stored: "base", reason });
  }

  async #delta(
    before: StoredDatabase,
    { manifest, runs }: DatabasePages,
    { changed, delta }: { changed: readonly number[]; delta: DeltaPages },
  ): Promise<PagedDatabase> {
    const pageFiles = [...manifest.files];
    const folders = keptFolders(before);
    // A database that only became shorter has no new pages.
    if (changed.length > 0) {
      const name = pagesName(pageFiles.length + 1);
      const made = await delta.end();
      pageFiles.push({ name, pages: changed.length, hashes: hex(sha256(made.hashes)) });
      folders.push({ name, pages: made.pages, hashes: await this.#file(made.hashes), kept: null });
    }
    const merged = this.#merged(runs, changed, pageFiles.length);
    return this.#made(folders, pageFiles, { runs: merged, changed: changed.length, stored: "delta", reason: null });
  }

  #same(before: StoredDatabase): Promise<PagedDatabase> {
    const { manifest, files } = before;
    const map = { digest: manifest.map, file: contentOf(files.get(MAP_NAME)) };
    return this.#made(keptFolders(before), manifest.files, { map, changed: 0, stored: "same", reason: null });
  }

  /** The runs of the earlier map, overlaid with the changed pages. */
  #merged(before: readonly PageRun[], changed: readonly number[], file: number): PageRun[] {
    const runs: PageRun[] = [];
    const add = (run: PageRun): void => {
      const last = runs.at(-1);
      const follows = last?.file === run.file && (run.file === NO_FILE || last.at + last.count === run.at);
      if (follows) last.count += run.count;
      else if (run.count > 0) runs.push({ ...run });
    };
    let [page, next] = [0, 0];
    const addTo = (end: number, run: PageRun | null): void => {
      while (page < end) {
        const until = Math.min(end, changed[next] ?? Infinity);
        if (until > page && run !== null) add({ ...run, count: until - page, at: run.file === NO_FILE ? 0 : run.at });
        if (run !== null && run.file !== NO_FILE) run.at += until - page;
        if (run === null && until > page) add({ count: until - page, file: NO_FILE, at: 0 });
        page = until;
        if (page === end) return;
        add({ count: 1, file, at: next });
        if (run !== null && run.file !== NO_FILE) run.at++;
        [page, next] = [page + 1, next + 1];
      }
    };
    for (const run of before) addTo(Math.min(this.#pages, page + run.count), { ...run });
    // Pages beyond the old end have all changed, except the one that SQLite locks.
    addTo(this.#pages, null);
    return runs;
  }

  /** Stores the map and the manifest too. */
  async #made(
    folders: PagesFolder[],
    pageFiles: PageFile[],
    of: Pick<PagedDatabase, "changed" | "stored" | "reason"> &
      ({ runs: PageRun[] } | { map: { digest: string; file: FileContent } }),
  ): Promise<PagedDatabase> {
    const { path, pageSize, node } = this.#database;
    const map = "map" in of ? of.map : await this.#map(of.runs);
    const whole = {
      path,
      pageSize,
      pages: this.#pages,
      sha256: hex(this.#database.sha256),
      map: map.digest,
      files: pageFiles,
      node,
    };
    const files = new Map([
      [MANIFEST_NAME, await this.#file(encodePagesManifest(whole, sha256))],
      [MAP_NAME, map.file],
    ]);
    if (this.#isForPoint) files.set(BLOBS_NAME, await this.#file(node.content!));
    const { changed, stored, reason } = of;
    return { path, pages: this.#pages, pageSize, changed, stored, reason, name: folderName(path), files, folders };
  }

  async #map(runs: PageRun[]): Promise<{ digest: string; file: FileContent }> {
    const bytes = encodeMap(runs);
    return { digest: hex(sha256(bytes)), file: await this.#file(bytes) };
  }

  async #file(bytes: Uint8Array): Promise<FileContent> {
    const ids: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += PAGES_BLOB_BYTES) {
      const piece = bytes.subarray(at, at + PAGES_BLOB_BYTES);
      ids.push(sha256(piece));
      await this.#store("data", ids.at(-1)!, piece);
    }
    return { size: bytes.length, content: Buffer.concat(ids) };
  }
}

/** Collects changed pages into blobs. */
class DeltaPages {
  readonly #store: StoreBlob;
  readonly #piece = Buffer.alloc(PAGES_BLOB_BYTES);
  readonly #ids: Uint8Array[] = [];
  readonly #hashes: Uint8Array[] = [];
  #filled = 0;
  #size = 0;

  constructor(store: StoreBlob) {
    this.#store = store;
  }

  async add(page: Uint8Array, hash: Uint8Array): Promise<void> {
    this.#piece.set(page, this.#filled);
    this.#filled += page.length;
    this.#size += page.length;
    this.#hashes.push(Uint8Array.from(hash));
    if (this.#filled === PAGES_BLOB_BYTES) await this.#flush();
  }

  async end(): Promise<{ pages: FileContent; hashes: Uint8Array }> {
    if (this.#filled > 0) await this.#flush();
    return { pages: { size: this.#size, content: Buffer.concat(this.#ids) }, hashes: Buffer.concat(this.#hashes) };
  }

  async #flush(): Promise<void> {
    const piece = this.#piece.subarray(0, this.#filled);
    const id = sha256(piece);
    this.#ids.push(id);
    await this.#store("data", id, piece);
    this.#filled = 0;
  }
}

/** The database's folders of pages in the previous snapshot. */
function keptFolders({ manifest, files, folders }: StoredDatabase): PagesFolder[] {
  return manifest.files.map(({ name, hashes }) => ({
    name,
    pages: contentOf(files.get(`${name}/${PAGES_NAME}`)),
    hashes: hashes === "" ? null : contentOf(files.get(`${name}/${HASHES_NAME}`)),
    kept: folders.get(name) ?? null,
  }));
}

function contentOf(node: TreeNode | undefined): FileContent {
  if (node?.content === undefined) throw new CairnError("damaged", "a database of the previous snapshot lacks a file");
  return { size: node.size, content: node.content };
}

function rebaseReason(changed: number, pages: number): string {
  if (changed <= pages / 2) return "with these changes, more than half as many pages would be outdated as are in use";
  return `${changed} of ${pages} pages changed, as after VACUUM`;
}
