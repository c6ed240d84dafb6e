import { CairnError } from "../../errors.ts";
import { ByteReader, ByteWriter, hex } from "../bytes.ts";
import { Fields } from "../fields.ts";
import {
  checkPath,
  checkVersion,
  decodeRecord,
  encodeRecord,
  rawPath,
  type RecordedPath,
  recordPath,
} from "../records/record.ts";
import { LOCK_BYTE_OFFSET } from "../sqlite-header.ts";
import { decodeTree, encodeTree, type TreeNode } from "../restic/tree.ts";

/** Layout of a large SQLite database in a snapshot: docs/formats/sqlite-pages.md. */

const FORMAT = "cairn.sqlite-pages";
/** Version of manifests in save points: a file of pages may have no hashes. In snapshots of backups it is 1. */
const VERSION = 2;
/** Databases of at least this size are stored page by page. A test changes it. */
export const PAGED = { from: 1024 * 1024 };
/** Bytes of the blobs into which a store cuts a database: a multiple of every page size. */
export const DATABASE_BLOB_BYTES = 64 * 1024;
/** Bytes of the blobs into which new files of pages are cut. */
export const PAGES_BLOB_BYTES = 1024 * 1024;
/** Bytes of SHA-256 that are kept for a page. */
export const PAGE_HASH_BYTES = 16;
/** Databases with more pages are plain files, because the hashes of all pages are in memory at once. */
export const MOST_PAGES = 2 ** 27;
/** Names of the files in a database's folders. */
export const PAGES_NAME = "pages";
export const HASHES_NAME = "hashes";
export const MANIFEST_NAME = "manifest.json";
export const MAP_NAME = "map";
/** The file of a database in a save point with the ids of the plain file's blobs. */
export const BLOBS_NAME = "blobs";
/** The file number of a run of zeros, which no file contains. */
export const NO_FILE = 0;

/** Tells whether a file with `blobs` blobs in a store may be a database that backups store page by page. */
export function mayBePaged(size: number, blobs: number): boolean {
  return size >= PAGED.from && blobs === Math.ceil(size / DATABASE_BLOB_BYTES);
}

/** A file of pages, and the digest of the file of their hashes. */
export interface PageFile {
  /** name of the folder of the pages and their hashes */
  name: string;
  pages: number;
  /** SHA-256 of the file of its pages' hashes, hex; "": there is none, as in the base of a save point's database. */
  hashes: string;
}

/** Pages that follow each other in the database and in a file of pages. */
export interface PageRun {
  count: number;
  /** {@link NO_FILE}, or the position in the manifest's list of files, from 1. */
  file: number;
  /** First page in the file, from 0. */
  at: number;
}

/** The manifest of a database in a snapshot. */
export interface PagesManifest {
  /** Raw path, from the saved folder on. */
  path: Uint8Array;
  pageSize: number;
  pages: number;
  /** SHA-256 of the whole database, and of the map; hex. */
  sha256: string;
  map: string;
  files: PageFile[];
  /** The entry as in its folder's tree, without content. */
  node: TreeNode;
}

/** Returns the name of the folder of a database's n-th file of pages, from 1. */
export function pagesName(n: number): string {
  return n === 1 ? "base" : `delta-${String(n - 1).padStart(4, "0")}`;
}

/**
 * Returns the manifest's bytes: a line of JSON, and a line with the SHA-256 of the first. `sha256` computes the hash.
 */
export function encodePagesManifest(manifest: PagesManifest, sha256: (bytes: Uint8Array) => Uint8Array): Uint8Array {
  const { path, pageSize, pages, files, node } = manifest;
  const version = files.some(({ hashes }) => hashes === "") ? VERSION : 1;
  const value = {
    minimum_reader: version,
    ...recordPath(path),
    page_size: pageSize,
    pages,
    sha256: manifest.sha256,
    map: manifest.map,
    files: files.map((file) => ({ name: file.name, pages: file.pages, hashes: file.hashes })),
    node_b64: Buffer.from(encodeTree([{ ...node, content: new Uint8Array(0) }])).toString("base64"),
  };
  const line = encodeRecord(value, FORMAT, version);
  return Buffer.concat([line, Buffer.from(`${hex(sha256(line))}\n`)]);
}

/** Reads a manifest. Throws `damaged`, or `newer_version`. */
export function decodePagesManifest(bytes: Uint8Array, sha256: (bytes: Uint8Array) => Uint8Array): PagesManifest {
  const end = bytes.indexOf(0x0a) + 1;
  const line = bytes.subarray(0, end);
  if (Buffer.from(bytes.subarray(end)).toString("latin1") !== `${hex(sha256(line))}\n`)
    throw new CairnError("damaged", `${FORMAT}: the manifest's digest does not match its content`);
  const { fields, value } = decodeRecord(line, FORMAT, Number.MAX_SAFE_INTEGER);
  checkVersion(fields, "minimum_reader", VERSION);
  checkPath(fields);
  const node = decodeTree(fields.base64("node_b64")).at(0);
  if (node?.type !== "file") throw fields.wrong("node_b64", "a tree of one file");
  const manifest = {
    path: rawPath(value as unknown as RecordedPath),
    pageSize: fields.integer("page_size", 65_536, 512),
    pages: fields.integer("pages", 0xffff_fffe, 1),
    sha256: fields.hex("sha256", 64),
    map: fields.hex("map", 64),
    files: fields.list("files", readFile, 10_000),
    node,
  };
  if (node.size !== manifest.pageSize * manifest.pages) throw fields.wrong("node_b64", "of that many pages");
  return manifest;
}

function readFile(element: unknown, label: string): PageFile {
  const fields = new Fields(element, label);
  const name = fields.text("name", 20);
  if (!/^(?:base|delta-\d{4,})$/.test(name)) throw fields.wrong("name", "base or delta-NNNN");
  const hashes = fields.text("hashes") === "" ? "" : fields.hex("hashes", 64);
  return { name, pages: fields.integer("pages", 0xffff_fffe), hashes };
}

/** Encodes a map. Each run has its length, its file, and its distance from the end of the file's previous run. */
export function encodeMap(runs: Iterable<PageRun>): Uint8Array {
  const w = new ByteWriter(4096);
  const ends: number[] = [];
  for (const { count, file, at } of runs) {
    appendVarint(w, count);
    appendVarint(w, file);
    if (file === NO_FILE) continue;
    const far = at - (ends[file] ?? 0);
    appendVarint(w, far < 0 ? -2 * far - 1 : 2 * far);
    ends[file] = at + count;
  }
  return w.copy();
}

/** Reads a map of `pages` pages in these files. Throws `damaged`. */
export function decodeMap(
  bytes: Uint8Array,
  { pages, pageSize, files }: Pick<PagesManifest, "pages" | "pageSize" | "files">,
): PageRun[] {
  const reader = new ByteReader(bytes, "map of a database");
  const runs: PageRun[] = [];
  const ends: number[] = [];
  let left = pages;
  while (reader.remaining > 0) {
    const count = readVarint(reader);
    const file = readVarint(reader);
    const far = file === NO_FILE ? 0 : readVarint(reader);
    const at = file === NO_FILE ? 0 : (ends[file] ?? 0) + (far % 2 === 1 ? -(far + 1) / 2 : far / 2);
    const isLocked = pages - left === LOCK_BYTE_OFFSET / pageSize;
    const room = file === NO_FILE ? Number(isLocked) : (files[file - 1]?.pages ?? 0) - at;
    if (count === 0 || count > left || at < 0 || count > room)
      throw new CairnError("damaged", `map of a database: run ${runs.length} is outside its file`);
    ends[file] = at + count;
    left -= count;
    runs.push({ count, file, at });
  }
  if (left > 0) throw new CairnError("damaged", `map of a database: it ends ${left} pages too soon`);
  return runs;
}

function appendVarint(w: ByteWriter, value: number): void {
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) w.u8((rest % 128) + 128);
  w.u8(rest);
}

function readVarint(reader: ByteReader): number {
  let value = 0;
  for (let scale = 1; scale < 2 ** 49; scale *= 128) {
    const byte = reader.u8();
    value += (byte % 128) * scale;
    if (byte < 128) return value;
  }
  throw new CairnError("damaged", "map of a database: a number is too long");
}
