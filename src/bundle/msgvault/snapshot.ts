import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { hash } from "node:crypto";
import { dirname, join } from "node:path";
import { type CairnError, damaged } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { hex } from "../../formats/bytes.ts";
import { decodeExtras, type Manifest, MOST_DELTAS } from "../../formats/msgvault/manifest.ts";
import {
  decodeAttachments,
  decodeHashes,
  decodePageMap,
  PAGE_HASH,
  type PageHashes,
  type PageMap,
  type PageRun,
  requireCoverage,
} from "../../formats/msgvault/objects.ts";
import { checkMemberPath } from "../../formats/ovpack/member-path.ts";
import { SIDECARS } from "../../formats/sqlite-header.ts";
import { writeAll } from "../../fs/durable.ts";
import { newPacer } from "../../pacer.ts";
import { type MsgvaultRepository, sha256 } from "./repository.ts";

/** Names that msgvault gives to the parts of an archive. */
export const DATABASE = "msgvault.db";
export const ATTACHMENTS = "attachments";
/** Names that Cairn gives to a stream that it makes no database of, and to the folder of auxiliary parts. */
export const METADATA = "metadata";
const AUXILIARY = "auxiliary";

const MOST_OBJECT = 1 << 30;
const MOST_PAGE_BLOB = 256 << 20;

/** A file of a snapshot, at its path in the restored folder. */
export interface SnapshotFile {
  path: string;
  blob: string;
  size: number;
  mode: number;
}

export interface SnapshotCall {
  signal?: AbortSignal | undefined;
  onBlob?: ((done: number, total: number) => void) | undefined;
}

/** A snapshot whose lists and maps were read and compared with its manifest. */
export interface Snapshot {
  manifest: Manifest;
  /** Null if the snapshot has a stream instead of pages. */
  pages: { runs: Map<string, PageRun[]>; hashes: PageHashes } | null;
  /** Sizes of the attachments by their blobs. Their places are in the database. */
  attachments: Map<string, number>;
  files: SnapshotFile[];
}

/** Throws `damaged` if a value differs from that in the manifest. */
export function requireEqual(field: string, actual: unknown, expected: unknown): void {
  if (String(actual) === String(expected)) return;
  throw damaged(`${field} is ${String(actual)}, but ${String(expected)} in the manifest`, { field, actual, expected });
}

const blobOf = (digits: string): string => Buffer.from(digits, "hex").toString("latin1");

/** The ids of the manifests from a snapshot back to that with a whole map, newest first. */
function chainOf(repository: MsgvaultRepository, manifest: Manifest): NonNullable<Manifest["database"]>[] {
  const chain: NonNullable<Manifest["database"]>[] = [];
  for (let at = manifest; ; at = repository.manifest(at.parentId)) {
    const wrong = (why: string): CairnError =>
      damaged(`the snapshot ${at.id} ${why}`, { field: "parent_id", snapshot: at.id });
    if (at.database === null) throw wrong("has no pages, but a later snapshot is based on its pages");
    if (chain.length > MOST_DELTAS) throw wrong(`is the end of more than ${MOST_DELTAS} deltas without a whole map`);
    chain.push(at.database);
    if (at.database.deltas === 0) return chain;
    if (at.parentId === null) throw wrong("is a delta without a parent");
  }
}

/** Reads the objects of a chain from a delta back to a whole one, and applies the deltas. */
async function replayed<T>(
  repository: MsgvaultRepository,
  ids: readonly string[],
  what: string,
  decode: (bytes: Uint8Array, base: T | null) => T | null,
): Promise<T> {
  const deltas: Buffer[] = [];
  for (const id of ids) {
    const bytes = await repository.whole(blobOf(id), what, MOST_OBJECT);
    let state = decode(bytes, null);
    if (state === null) {
      deltas.push(bytes);
      continue;
    }
    for (const delta of deltas.toReversed()) state = decode(delta, state)!;
    return state;
  }
  throw damaged(`the ${what}: ${ids.length} deltas without a whole one`, { field: "map_chain_depth" });
}

async function pagesOf(repository: MsgvaultRepository, manifest: Manifest): Promise<Snapshot["pages"]> {
  const { database } = manifest;
  if (database === null) return null;
  const chain = chainOf(repository, manifest);
  const ids = (key: "pageMap" | "pageHashes"): string[] => chain.map((each) => each[key]);
  const map = await replayed<PageMap>(repository, ids("pageMap"), "page map", (bytes, base) =>
    decodePageMap(bytes, sha256, base),
  );
  requireCoverage(map);
  const hashes = await replayed<PageHashes>(repository, ids("pageHashes"), "page hashes", (bytes, base) =>
    decodeHashes(bytes, sha256, base),
  );
  for (const [what, { pages, pageSize }] of Object.entries({ "page map": map, "page hashes": hashes })) {
    requireEqual(`${what}: page_count`, pages, database.pages);
    requireEqual(`${what}: page_size`, pageSize, database.pageSize);
  }
  return { runs: Map.groupBy(map.runs, ({ blob }) => blob) as Map<string, PageRun[]>, hashes };
}

/** Reads the lists of attachments and compares their union with the manifest. */
async function attachmentsOf(repository: MsgvaultRepository, { attachments }: Manifest): Promise<Map<string, number>> {
  const all = new Map<string, number>();
  let [count, bytes] = [0, 0];
  for (const list of attachments.lists)
    for (const { blob, size } of decodeAttachments(
      await repository.whole(blobOf(list), "list of attachments", MOST_OBJECT),
      sha256,
    )) {
      all.set(blob, size);
      count++;
      bytes += size;
    }
  requireEqual("lists of attachments: blobs", count, attachments.blobs);
  requireEqual("lists of attachments: blob_bytes", bytes, attachments.bytes);
  return all;
}

const RESERVED = new Set([DATABASE, ...SIDECARS.map((end) => DATABASE + end), ATTACHMENTS]);

/** The files of a snapshot besides its database and its attachments. */
async function filesOf(repository: MsgvaultRepository, manifest: Manifest): Promise<SnapshotFile[]> {
  const { metadata, auxiliary, extras } = manifest;
  const files: SnapshotFile[] = auxiliary.map(({ name, blob, size }) => ({
    path: `${AUXILIARY}/${name}`,
    blob: blobOf(blob),
    size,
    mode: 0o600,
  }));
  if (metadata !== null) files.push({ path: METADATA, blob: blobOf(metadata.blob), size: metadata.size, mode: 0o600 });
  const listed =
    extras === null ? [] : decodeExtras(await repository.whole(blobOf(extras), "list of other files", MOST_OBJECT));
  for (const { name, blob, size, mode } of listed) {
    checkMemberPath(name);
    if (RESERVED.has(name.split("/")[0]!.toLowerCase()))
      throw damaged(`the path ${JSON.stringify(name)} of another file belongs to the database or its attachments`, {
        path: name,
      });
    files.push({ path: name, blob: blobOf(blob), size, mode });
  }
  return files;
}

/** Reads the lists and maps of a snapshot. Throws `damaged` with the field, path or blob. */
export async function readSnapshot(repository: MsgvaultRepository, manifest: Manifest): Promise<Snapshot> {
  const pages = await pagesOf(repository, manifest);
  const attachments = await attachmentsOf(repository, manifest);
  const files = await filesOf(repository, manifest);
  requireDistinct(files);
  return { manifest, pages, attachments, files };
}

/** Throws `damaged` if two files have one place, or one lies below another. */
export function requireDistinct(files: readonly SnapshotFile[]): void {
  const all = new Set<string>();
  for (const { path } of files) {
    const isTwice = all.has(path);
    all.add(path);
    if (isTwice) throw taken(path);
  }
  for (const { path } of files)
    for (let folder = dirname(path); folder !== "."; folder = dirname(folder)) if (all.has(folder)) throw taken(folder);
}

function taken(path: string): CairnError {
  return damaged(`the path ${JSON.stringify(path)} belongs to two files of the snapshot`, { path });
}

/** Reads all blobs of a snapshot: content against ids, sizes against lists, each page against its hash. Writes nothing. */
export async function verifySnapshot(
  repository: MsgvaultRepository,
  { pages, attachments, files }: Snapshot,
  { signal, onBlob }: SnapshotCall,
): Promise<void> {
  const pace = newPacer(signal);
  const sizes = [...attachments].map(([blob, size]) => ({ blob, size, what: "attachment" }));
  for (const { path, blob, size } of files) sizes.push({ blob, size, what: path });
  const pageBlobs = [...(pages?.runs.keys() ?? [])].map((blob) => ({ blob }));
  const total = sizes.length + pageBlobs.length;
  let done = 0;
  for (const { blob } of repository.inOrder(pageBlobs, "pages")) {
    checkPages(await repository.whole(blob, "pages", MOST_PAGE_BLOB), pages!.runs.get(blob)!, pages!.hashes);
    onBlob?.(++done, total);
    await pace();
  }
  for (const { blob, size, what } of repository.inOrder(sizes, "content")) {
    for await (const _piece of repository.read(blob, what, size)) await pace();
    onBlob?.(++done, total);
    await pace();
  }
}

function checkPages(bytes: Buffer, runs: readonly PageRun[], { pageSize, hashes }: PageHashes): void {
  for (const { start, count, offset } of runs) {
    if (offset + count * pageSize > bytes.length)
      throw damaged(`the page map: the pages from ${start} on end after their blob`, {
        field: "blob_offset",
        page: start,
      });
    for (let i = 0; i < count; i++) {
      const at = offset + i * pageSize;
      const wanted = hashes.subarray((start + i) * PAGE_HASH, (start + i + 1) * PAGE_HASH);
      if (hash("sha256", bytes.subarray(at, at + pageSize)).slice(0, PAGE_HASH * 2) !== hex(wanted))
        throw damaged(`page ${start + i} of the database does not match its hash`, {
          field: "hashes",
          page: start + i,
        });
    }
  }
}

/** Writes the database of a verified snapshot to a new file. */
export async function writeDatabase(
  repository: MsgvaultRepository,
  { runs, hashes: { pageSize } }: NonNullable<Snapshot["pages"]>,
  file: string,
  { signal }: SnapshotCall,
): Promise<void> {
  const pace = newPacer(signal);
  const fd = openSync(file, "wx", 0o600);
  try {
    for (const { blob } of repository.inOrder(
      [...runs.keys()].map((each) => ({ blob: each })),
      "pages",
    )) {
      const bytes = await repository.whole(blob, "pages", MOST_PAGE_BLOB);
      for (const { start, count, offset } of runs.get(blob)!)
        for (let done = 0; done < count * pageSize;)
          done += writeSync(fd, bytes, offset + done, count * pageSize - done, start * pageSize + done);
      await pace();
    }
  } finally {
    closeSync(fd);
  }
}

/** Writes files of a verified snapshot below a folder of this process's own. */
export async function writeFiles(
  repository: MsgvaultRepository,
  files: readonly SnapshotFile[],
  folder: string,
  { signal, onBlob }: SnapshotCall,
): Promise<void> {
  const pace = newPacer(signal);
  const made = new Set<string>();
  let done = 0;
  for (const { path, blob, size, mode } of repository.inOrder(files, "content")) {
    const place = join(folder, path);
    if (!made.has(dirname(place))) mkdirSync(dirname(place), { recursive: true, mode: 0o700 });
    made.add(dirname(place));
    const fd = openSync(place, "wx", mode);
    try {
      for await (const piece of repository.read(blob, path, size)) writeAll(fd, piece);
    } finally {
      closeSync(fd);
    }
    onBlob?.(++done, files.length);
    failpoint("msgvault.file-written");
    await pace();
  }
}

/** Returns the places of attachments that a database's rows name. Throws `damaged` for an unsafe path, and if rows and lists differ. */
export function placedAttachments(
  { attachments }: Snapshot,
  rows: readonly { hash: string; path: string }[],
): SnapshotFile[] {
  const missing = new Set(attachments.keys());
  const files = new Map<string, SnapshotFile>();
  for (const { hash: digits, path } of rows) {
    checkMemberPath(path);
    const blob = blobOf(digits);
    const size = attachments.get(blob);
    if (size === undefined)
      throw damaged(`the attachment ${digits.slice(0, 16)} of the database is in no list of the snapshot`, {
        field: "lists",
        path,
      });
    missing.delete(blob);
    files.set(`${path}\0${blob}`, { path: `${ATTACHMENTS}/${path}`, blob, size, mode: 0o600 });
  }
  const [lost] = missing;
  if (lost !== undefined)
    throw damaged(`the database names no place for the attachment ${hex(Buffer.from(lost, "latin1")).slice(0, 16)}`, {
      field: "attachments",
    });
  return [...files.values()];
}

/** Places attachments as msgvault places new ones: by their hash, below its first two digits. */
export function usualPlaces({ attachments }: Snapshot): SnapshotFile[] {
  return [...attachments].map(([blob, size]) => {
    const digits = hex(Buffer.from(blob, "latin1"));
    return { path: `${ATTACHMENTS}/${digits.slice(0, 2)}/${digits}`, blob, size, mode: 0o600 };
  });
}
