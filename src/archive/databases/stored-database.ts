import { sha256 } from "../../crypto/hash.ts";
import { adviceOf, CairnError } from "../../errors.ts";
import { compareBytes, hex, latin1 } from "../../formats/bytes.ts";
import {
  BLOBS_NAME,
  DATABASE_BLOB_BYTES,
  decodeMap,
  decodePagesManifest,
  HASHES_NAME,
  MANIFEST_NAME,
  MAP_NAME,
  MOST_PAGES,
  NO_FILE,
  PAGE_HASH_BYTES,
  type PageRun,
  PAGES_BLOB_BYTES,
  PAGES_NAME,
  type PagesManifest,
  pagesName,
} from "../../formats/payloads/sqlite-pages.ts";
import { LOCK_BYTE_OFFSET } from "../../formats/sqlite-header.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { objectIdOf } from "../../ids.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import type { DerivedDatabase } from "../../repository/read/derived-blobs.ts";
import { DATA_BLOB } from "../../repository/index/blob-table.ts";
import { addWanted, type NearPacks, type WantedRange } from "../../repository/read/near-packs.ts";
import { nameOf, nodeAt, readBlob, readFile, readNodes } from "./nodes.ts";

/** Bytes of a database that are read before they are handed on. */
const PIECE = 1024 * 1024;
/** Packs of this many pieces are fetched from far away at once. */
const PIECES_AHEAD = 32;
const PAGES_AHEAD = 8192;

/** A database as a snapshot holds it. */
export interface StoredDatabase {
  manifest: PagesManifest;
  /** Files of the database's folder and of its subfolders, by name: `base/pages`. */
  files: ReadonlyMap<string, TreeNode>;
  /** Subfolders of the database's folder, by name. */
  folders: ReadonlyMap<string, TreeNode>;
  /** In a save point: ids of the plain file's blobs. */
  content?: Uint8Array;
  /** Reason why the database cannot be read; then its manifest has only path, size and digest. */
  error?: CairnError;
}

/** The name of a database's folder: derived from the path alone, and valid on any file system. */
export function folderName(path: Uint8Array): string {
  const base = latin1(path)
    .split("/")
    .at(-1)!
    .replaceAll(/[^A-Za-z0-9._-]/g, "_");
  return `${base.slice(0, 80)}-${hex(sha256(path)).slice(0, 16)}`;
}

/** The stored hash of a page. */
export function pageHash(page: Uint8Array): Uint8Array {
  return sha256(page).subarray(0, PAGE_HASH_BYTES);
}

/** The folders of databases in a snapshot; none if `/.cairn` has none. Throws `damaged`. */
export async function databaseFolders(reader: BlobSource, top: Uint8Array): Promise<TreeNode[]> {
  const folder = await nodeAt(reader, top, [".cairn", "databases"]);
  if (folder?.subtree === undefined) return [];
  return [...(await readNodes(reader, folder.subtree))].filter(({ subtree }) => subtree !== undefined);
}

/** Reads the manifest in a folder below `/.cairn/databases`. Throws `damaged`, `newer_version`. */
export async function readPagesManifest(reader: BlobSource, folder: Uint8Array): Promise<PagesManifest> {
  const file = await nodeAt(reader, folder, [MANIFEST_NAME]);
  return decodePagesManifest(await wholeFile(reader, file, MANIFEST_NAME), sha256);
}

/** Reads a folder below `/.cairn/databases`. Throws `damaged`, `newer_version`. */
export async function readDatabase(reader: BlobSource, folder: Uint8Array): Promise<StoredDatabase> {
  const files = new Map<string, TreeNode>();
  const folders = new Map<string, TreeNode>();
  for (const node of await readNodes(reader, folder)) (node.type === "dir" ? folders : files).set(nameOf(node), node);
  const manifest = decodePagesManifest(await wholeFile(reader, files.get(MANIFEST_NAME), MANIFEST_NAME), sha256);
  for (const { name } of manifest.files) {
    const { subtree } = folders.get(name) ?? {};
    if (subtree === undefined) throw new CairnError("damaged", `its folder ${name} is missing`);
    for (const node of await readNodes(reader, subtree)) files.set(`${name}/${nameOf(node)}`, node);
  }
  const blobs = files.get(BLOBS_NAME);
  if (blobs === undefined) return { manifest, files, folders };
  return { manifest, files, folders, content: await wholeFile(reader, blobs, BLOBS_NAME) };
}

/** Describes the plain file of a database as a database whose only file of pages it is. */
export function plainDatabase(path: Uint8Array, node: TreeNode, pageSize: number): StoredDatabase {
  const pages = node.size / pageSize;
  const name = pagesName(1);
  const files = [{ name, pages, hashes: "" }];
  return {
    manifest: { path, pageSize, pages, sha256: "", map: "", files, node },
    files: new Map([[`${name}/${PAGES_NAME}`, node]]),
    folders: new Map(),
    ...(node.content === undefined ? {} : { content: node.content }),
  };
}

/** Returns how the blobs of a point's plain file are made from pages. Throws `damaged`, naming the database. */
export async function derivedOf(reader: BlobSource, database: StoredDatabase): Promise<DerivedDatabase> {
  const { manifest, files, content, error: why } = database;
  try {
    if (why !== undefined) throw why;
    if (content === undefined) throw new CairnError("damaged", `its file ${BLOBS_NAME} is missing`);
    const map = await wholeFile(reader, files.get(MAP_NAME), MAP_NAME, manifest.map);
    return {
      content,
      size: manifest.node.size,
      blobBytes: DATABASE_BLOB_BYTES,
      pageSize: manifest.pageSize,
      runs: decodeMap(map, manifest),
      files: manifest.files.map(({ name }, n) => {
        const ids = files.get(`${name}/${PAGES_NAME}`)?.content;
        if (ids === undefined) throw new CairnError("damaged", `its file ${name}/${PAGES_NAME} is missing`);
        return { content: ids, blobBytes: n === 0 ? DATABASE_BLOB_BYTES : PAGES_BLOB_BYTES };
      }),
    };
  } catch (error) {
    throw ofDatabase(manifest, error);
  }
}

/** The runs of a database all of whose pages lie in its first file, in order. */
export function wholeRuns(pages: number, lockPage: number): PageRun[] {
  if (lockPage < 0 || lockPage >= pages) return [{ count: pages, file: 1, at: 0 }];
  const after = pages - lockPage - 1;
  return [
    { count: lockPage, file: 1, at: 0 },
    { count: 1, file: NO_FILE, at: 0 },
    ...(after > 0 ? [{ count: after, file: 1, at: lockPage + 1 }] : []),
  ];
}

/** The content of a small file. Throws `damaged` if it is missing or its digest is not `digest`. */
async function wholeFile(
  reader: BlobSource,
  node: TreeNode | undefined,
  name: string,
  digest?: string,
): Promise<Uint8Array> {
  if (node?.content === undefined) throw new CairnError("damaged", `its file ${name} is missing`);
  const bytes = await readFile(reader, node, { title: `its file ${name}`, most: MOST_PAGES * PAGE_HASH_BYTES });
  if (digest !== undefined && hex(sha256(bytes)) !== digest)
    throw new CairnError("damaged", `the digest of its file ${name} differs from the one in its manifest`);
  return bytes;
}

interface PlaceOfPages {
  page: number;
  count: number;
  file: OpenPages | null;
  at: number;
}

/** Map and hashes of a database, compared with the digests of its manifest; reads the pages. */
export class DatabasePages {
  readonly manifest: PagesManifest;
  readonly runs: readonly PageRun[];
  readonly #reader: BlobSource;
  readonly #files: readonly OpenPages[];

  private constructor(reader: BlobSource, manifest: PagesManifest, runs: PageRun[], files: OpenPages[]) {
    this.#reader = reader;
    this.manifest = manifest;
    this.runs = runs;
    this.#files = files;
  }

  /** Throws `damaged`, naming the database, or `newer_version`. */
  static async open(reader: BlobSource, { manifest, files, error: why }: StoredDatabase): Promise<DatabasePages> {
    try {
      if (why !== undefined) throw why;
      const map = manifest.map === "" ? null : await wholeFile(reader, files.get(MAP_NAME), MAP_NAME, manifest.map);
      const open: OpenPages[] = [];
      for (const { name, pages, hashes } of manifest.files) {
        const [ofPages, ofHashes] = [`${name}/${PAGES_NAME}`, `${name}/${HASHES_NAME}`];
        const known = hashes === "" ? null : await wholeFile(reader, files.get(ofHashes), ofHashes, hashes);
        if (known !== null && known.length !== pages * PAGE_HASH_BYTES)
          throw new CairnError("damaged", `its file ${ofHashes} does not hold the hashes of ${pages} pages`);
        const node = files.get(ofPages);
        open.push(new OpenPages(reader, manifest.pageSize, { name: ofPages, node, pages, hashes: known }));
      }
      const { pageSize, pages } = manifest;
      const runs = map === null ? wholeRuns(pages, LOCK_BYTE_OFFSET / pageSize) : decodeMap(map, manifest);
      return new DatabasePages(reader, manifest, runs, open);
    } catch (error) {
      throw ofDatabase(manifest, error);
    }
  }

  /** False if the repository's index lacks pages of the database. */
  get isWhole(): boolean {
    return this.#files.every((file) => file.isWhole);
  }

  /** The hashes of all pages in order; zeros for pages that lie in no file, or in one without hashes. */
  hashes(): Uint8Array {
    const all = new Uint8Array(this.manifest.pages * PAGE_HASH_BYTES);
    let page = 0;
    for (const { count, file, at } of this.runs) {
      const hashes = this.#files[file - 1]?.hashes ?? null;
      if (hashes !== null) {
        all.set(hashes.subarray(at * PAGE_HASH_BYTES, (at + count) * PAGE_HASH_BYTES), page * PAGE_HASH_BYTES);
      }
      page += count;
    }
    return all;
  }

  /** Returns copies of some pages in files without hashes; null for any other page. Fast if asked for in rising order. */
  async unhashed(first: number, count: number): Promise<(Uint8Array | null)[]> {
    if (first < this.#page) [this.#run, this.#page] = [0, 0];
    const found = Array<Uint8Array | null>(count).fill(null);
    const end = Math.min(first + count, this.manifest.pages);
    for (; this.#run < this.runs.length; this.#run++) {
      const { count: length, file, at } = this.runs[this.#run]!;
      const pages = this.#files[file - 1];
      const until = Math.min(end, this.#page + length);
      for (let page = Math.max(first, this.#page); page < until && pages?.hashes === null; page++)
        found[page - first] = new Uint8Array(await pages.page(at + page - this.#page));
      if (this.#page + length > end) break;
      this.#page += length;
    }
    return found;
  }

  #run = 0;
  /** The first page of that run. */
  #page = 0;

  /**
   * Reads the database in pieces from start to end and compares each page with its recorded hash. Throws `damaged` with
   * database and page. `near`: the place for packs that are fetched from far away; they are removed again.
   */
  async *read(near: NearPacks, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    const pace = newPacer(signal);
    let batch: PlaceOfPages[][] = [];
    for (const piece of this.#pieces()) {
      batch.push(piece);
      if (batch.length < PIECES_AHEAD) continue;
      yield* this.#readBatch(batch, near, { signal, pace });
      batch = [];
    }
    yield* this.#readBatch(batch, near, { signal, pace });
  }

  /**
   * Reads all pages of its files, except files in `proven`, and adds to `proven` the pages that differ from their
   * hashes, by the file's content. Returns the database's damaged pages, counted from 1.
   */
  async prove(near: NearPacks, proven: Map<string, Set<number>>, signal: AbortSignal | undefined): Promise<number[]> {
    const pace = newPacer(signal);
    const found: Set<number>[] = [];
    for (const file of this.#files) {
      const { key } = file;
      const bad = proven.get(key) ?? new Set<number>();
      found.push(bad);
      if (proven.has(key)) continue;
      for (let at = 0; at < file.pages; at += PAGES_AHEAD) {
        const count = Math.min(PAGES_AHEAD, file.pages - at);
        const ranges = near.isLocal ? [] : this.#ranges([{ page: 0, count, file, at }]);
        await near.fetch(ranges, { lenient: true, signal });
        for (let page = at; page < at + count; page++) {
          await pace();
          if (!(await file.hasSound(page))) bad.add(page);
        }
        if (ranges.length === 0) continue;
        this.#reader.close();
        for (const { pack } of ranges) near.drop(pack);
      }
      proven.set(key, bad);
    }
    const damaged: number[] = [];
    let page = 1;
    for (const { count, file, at } of this.runs) {
      for (const each of found[file - 1] ?? []) if (each >= at && each < at + count) damaged.push(page + each - at);
      page += count;
    }
    return damaged.toSorted((a, b) => a - b);
  }

  async *#readBatch(
    batch: readonly PlaceOfPages[][],
    near: NearPacks,
    { signal, pace }: { signal: AbortSignal | undefined; pace: Pacer },
  ): AsyncGenerator<Uint8Array> {
    const ranges = near.isLocal ? [] : this.#ranges(batch.flat());
    await near.fetch(ranges, { lenient: true, signal });
    try {
      for (const places of batch) {
        await pace();
        const pages = places.reduce((sum, { count }) => sum + count, 0);
        const bytes = Buffer.alloc(pages * this.manifest.pageSize);
        let at = 0;
        for (const place of places) {
          await this.#fill(place, bytes, at);
          at += place.count * this.manifest.pageSize;
        }
        yield bytes;
      }
    } finally {
      if (ranges.length > 0) this.#reader.close();
      for (const { pack } of ranges) near.drop(pack);
    }
  }

  async #fill({ page, count, file, at }: PlaceOfPages, bytes: Buffer, from: number): Promise<void> {
    if (file === null) return;
    const { pageSize } = this.manifest;
    for (let i = 0; i < count; i++) {
      try {
        const content = await file.page(at + i);
        if (!file.isSound(at + i, content)) throw new CairnError("damaged", "its hash differs from the recorded hash");
        bytes.set(content, from + i * pageSize);
      } catch (error) {
        throw ofDatabase(this.manifest, error, `page ${page + i + 1} (page ${at + i + 1} of its file ${file.name}): `);
      }
    }
  }

  *#pieces(): Generator<PlaceOfPages[]> {
    const most = PIECE / this.manifest.pageSize;
    let piece: PlaceOfPages[] = [];
    let [page, filled] = [0, 0];
    for (const run of this.runs) {
      for (let done = 0; done < run.count;) {
        const count = Math.min(run.count - done, most - filled);
        const file = run.file === NO_FILE ? null : this.#files[run.file - 1]!;
        piece.push({ page, count, file, at: run.at + done });
        [done, page, filled] = [done + count, page + count, filled + count];
        if (filled < most) continue;
        yield piece;
        [piece, filled] = [[], 0];
      }
    }
    if (filled > 0) yield piece;
  }

  #ranges(places: readonly PlaceOfPages[]): WantedRange[] {
    const entries = new Set(places.flatMap(({ file, at, count }) => (file === null ? [] : file.entries(at, count))));
    const { index } = this.#reader;
    const all = [...entries].map((entry) => index.place(entry));
    const ranges: WantedRange[] = [];
    for (const { pack, offset, length } of all.toSorted(
      (a, b) => Buffer.compare(a.pack, b.pack) || a.offset - b.offset,
    ))
      addWanted(ranges, { pack: objectIdOf(pack), offset, length });
    return ranges;
  }
}

/** A file of pages. Keeps the last blob that it read, since pages are read in rising order. */
class OpenPages {
  readonly name: string;
  /** Null: the ids of the blobs alone prove the pages. */
  readonly hashes: Uint8Array | null;
  readonly pages: number;
  readonly #reader: BlobSource;
  readonly #pageSize: number;
  readonly #content: Uint8Array;
  /** Offsets of the blobs, then the end of the last one; a blob that the index lacks has length 0. */
  readonly #starts: Float64Array;
  #blob = -1;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(
    reader: BlobSource,
    pageSize: number,
    {
      name,
      node,
      pages,
      hashes,
    }: { name: string; node: TreeNode | undefined; pages: number; hashes: Uint8Array | null },
  ) {
    if (node?.content === undefined) throw new CairnError("damaged", `its file ${name} is missing`);
    this.name = name;
    this.pages = pages;
    this.hashes = hashes;
    this.#reader = reader;
    this.#pageSize = pageSize;
    this.#content = node.content;
    this.#starts = blobStarts(reader, node.content);
  }

  get isWhole(): boolean {
    return this.#starts.at(-1) === this.pages * this.#pageSize;
  }

  /** Distinguishes files with other pages or other hashes. */
  get key(): string {
    return hex(sha256(Buffer.concat([sha256(this.hashes ?? new Uint8Array(0)), this.#content])));
  }

  async hasSound(at: number): Promise<boolean> {
    try {
      return this.isSound(at, await this.page(at));
    } catch (error) {
      if (error instanceof CairnError && error.code === "damaged") return false;
      throw error;
    }
  }

  entries(at: number, count: number): number[] {
    const found: number[] = [];
    const end = (at + count) * this.#pageSize;
    for (let blob = this.#blobAt(at * this.#pageSize); blob >= 0 && this.#starts[blob]! < end; blob++) {
      const entry = this.#reader.index.lookup(this.#content, blob * 32, DATA_BLOB);
      if (entry >= 0) found.push(entry);
    }
    return found;
  }

  /** A page's bytes, good until the next call. */
  async page(at: number): Promise<Uint8Array> {
    const from = at * this.#pageSize;
    const blob = this.#blobAt(from);
    if (blob !== this.#blob) {
      if (blob < 0) throw new CairnError("damaged", "the file ends before this page");
      this.#bytes = await readBlob(this.#reader, this.#content.subarray(blob * 32, blob * 32 + 32), DATA_BLOB);
      this.#blob = blob;
    }
    const start = from - this.#starts[blob]!;
    if (start + this.#pageSize > this.#bytes.length) throw new CairnError("damaged", "the file ends within this page");
    return this.#bytes.subarray(start, start + this.#pageSize);
  }

  isSound(at: number, page: Uint8Array): boolean {
    if (this.hashes === null) return true;
    return compareBytes(pageHash(page), this.hashes.subarray(at * PAGE_HASH_BYTES, (at + 1) * PAGE_HASH_BYTES)) === 0;
  }

  /** The blob that has this byte; -1 if no blob has it. */
  #blobAt(byte: number): number {
    const starts = this.#starts;
    const count = starts.length - 1;
    if (this.#blob >= 0 && byte >= starts[this.#blob]! && byte < starts[this.#blob + 1]!) return this.#blob;
    let [low, high] = [0, count];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (starts[middle + 1]! <= byte) low = middle + 1;
      else high = middle;
    }
    return low < count ? low : -1;
  }
}

/** Returns the offsets of a content's blobs, then its length. */
export function blobStarts({ index }: BlobSource, content: Uint8Array): Float64Array {
  const starts = new Float64Array(content.length / 32 + 1);
  for (let i = 0; i < starts.length - 1; i++) {
    const entry = index.lookup(content, i * 32, DATA_BLOB);
    starts[i + 1] = starts[i]! + (entry < 0 ? 0 : index.table.plainLengthOf(entry));
  }
  return starts;
}

function ofDatabase({ path }: PagesManifest, error: unknown, where = ""): unknown {
  if (!(error instanceof CairnError) || error.code !== "damaged") return error;
  const message = `database ${displayPath(path).path}: ${where}${error.message}`;
  return new CairnError("damaged", message, { hint: adviceOf(error), details: error.details, cause: error });
}
