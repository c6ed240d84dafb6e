import { closeSync, openSync } from "node:fs";
import { type CairnError, damaged } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { decodeExtras, type Manifest, MOST_DELTAS, type SnapshotFile } from "../../formats/msgvault/manifest.ts";
import {
  decodeAttachments,
  decodeHashes,
  decodePageMap,
  MOST_PAGE_BLOB,
  PAGE_HASH,
  type PageHashes,
  type PageMap,
  type PageRun,
  runsOf,
} from "../../formats/msgvault/objects.ts";
import { checkMemberPath } from "../../formats/ovpack/member-path.ts";
import { SIDECARS } from "../../formats/sqlite-header.ts";
import { writeAll } from "../../fs/durable.ts";
import type { FolderOutput } from "../../output/folder.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import { type MsgvaultRepository, sha256 } from "./repository.ts";

/** Names that msgvault gives to the parts of an archive. */
export const DATABASE = "msgvault.db";
export const ATTACHMENTS = "attachments";
/** Names that Cairn gives to a stream that it makes no database of, and to the folder of auxiliary parts. */
const METADATA = "metadata";
const AUXILIARY = "auxiliary";

const MOST_OBJECT = 1 << 30;

const privateFile = (path: string, blob: string, size: number): SnapshotFile => ({ path, blob, size, mode: 0o600 });

export interface SnapshotCall {
  signal?: AbortSignal | undefined;
  onBlob?: ((done: number, total: number) => void) | undefined;
}

/** A snapshot whose lists and maps were read and compared with its manifest. */
export interface Snapshot {
  /** Null if the snapshot has a stream instead of pages. */
  pages: { runs: PageRun[]; hashes: PageHashes } | null;
  /** Sizes of the attachments by their blobs. Their places are in the database. */
  attachments: Map<string, number>;
  files: SnapshotFile[];
}

/** Throws `damaged` if a value differs from that in the manifest. */
export function requireEqual(field: string, actual: unknown, expected: unknown): void {
  if (String(actual) === String(expected)) return;
  throw damaged(`${field} is ${String(actual)}, but ${String(expected)} in the manifest`, { field, actual, expected });
}

/** The databases of the manifests from that with a whole map to a snapshot, which changes it, oldest first. */
function chainOf(repository: MsgvaultRepository, manifest: Manifest): NonNullable<Manifest["database"]>[] {
  const chain: NonNullable<Manifest["database"]>[] = [];
  for (let at = manifest; ;) {
    const { id, database, parentId } = at;
    const wrong = (why: string): CairnError =>
      damaged(`the snapshot ${id} ${why}`, { field: "parent_id", snapshot: id });
    if (database === null) throw wrong("has no pages, but a later snapshot is based on its pages");
    if (chain.unshift(database) > MOST_DELTAS + 1)
      throw wrong(`is the end of more than ${MOST_DELTAS} deltas without a whole map`);
    if (database.deltas === 0) return chain;
    const parent = repository.list().find((each) => each.id === parentId);
    if (parent === undefined) throw wrong(`is a delta, and its parent ${parentId ?? ""} is missing`);
    if ("problem" in parent) throw parent.problem;
    at = parent.manifest;
  }
}

async function pagesOf(repository: MsgvaultRepository, manifest: Manifest): Promise<Snapshot["pages"]> {
  const { database } = manifest;
  if (database === null) return null;
  let [map, hashes]: [PageMap | null, PageHashes | null] = [null, null];
  for (const { pageMap, pageHashes } of chainOf(repository, manifest)) {
    map = decodePageMap(await repository.whole(pageMap, "page map", MOST_OBJECT), sha256, map);
    hashes = decodeHashes(await repository.whole(pageHashes, "page hashes", MOST_OBJECT), sha256, hashes);
  }
  requireEqual("page map: page_count", map!.places.length, database.pages);
  requireEqual("page map: page_size", map!.pageSize, database.pageSize);
  requireEqual("page hashes: page_count", hashes!.hashes.length / PAGE_HASH, database.pages);
  requireEqual("page hashes: page_size", hashes!.pageSize, database.pageSize);
  return { runs: runsOf(map!), hashes: hashes! };
}

/** Reads the lists of attachments and compares their union with the manifest. */
async function attachmentsOf(repository: MsgvaultRepository, { attachments }: Manifest): Promise<Map<string, number>> {
  const all = new Map<string, number>();
  let [count, bytes] = [0, 0];
  for (const list of attachments.lists)
    for (const { blob, size } of decodeAttachments(
      await repository.whole(list, "list of attachments", MOST_OBJECT),
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
  const others =
    extras === null ? [] : decodeExtras(await repository.whole(extras, "list of other files", MOST_OBJECT));
  for (const { path } of others) {
    checkMemberPath(path);
    if (RESERVED.has(path.split("/")[0]!.toLowerCase()))
      throw damaged(`the path ${JSON.stringify(path)} of another file belongs to the database or its attachments`, {
        path,
      });
  }
  const own = auxiliary.map(({ name, blob, size }) => privateFile(`${AUXILIARY}/${name}`, blob, size));
  if (metadata !== null) own.push(privateFile(METADATA, metadata.blob, metadata.size));
  return [...own, ...others];
}

/** Reads all of a snapshot: content against ids, sizes and counts against lists, each page against its hash. Writes nothing. */
export async function verifiedSnapshot(
  repository: MsgvaultRepository,
  manifest: Manifest,
  call: SnapshotCall,
): Promise<Snapshot> {
  const pages = await pagesOf(repository, manifest);
  const attachments = await attachmentsOf(repository, manifest);
  const files = await filesOf(repository, manifest);
  const snapshot = { pages, attachments, files };
  const ofPages = pages === null ? [] : pageBlobs(pages);
  await eachOf(repository, [...ofPages, ...files, ...usualPlaces(snapshot)], call, async (each, pace) => {
    const { blob, path } = each;
    if ("runs" in each) checkPages(await repository.whole(blob, path, MOST_PAGE_BLOB), each.runs, pages!.hashes);
    else for await (const _piece of repository.read(blob, path, each)) await pace();
  });
  return snapshot;
}

/** Calls `visit` for blobs in the order of their packs. */
async function eachOf<T extends { blob: string; path: string }>(
  repository: MsgvaultRepository,
  all: readonly T[],
  { signal, onBlob }: SnapshotCall,
  visit: (each: T, pace: Pacer) => Promise<void>,
): Promise<void> {
  const pace = newPacer(signal);
  for (const [done, each] of repository.inOrder(all).entries()) {
    await visit(each, pace);
    onBlob?.(done + 1, all.length);
    await pace();
  }
}

/** The blobs with pages of the database, and the pages that each of them has. */
function pageBlobs({ runs }: NonNullable<Snapshot["pages"]>): { blob: string; path: string; runs: PageRun[] }[] {
  return [...Map.groupBy(runs, ({ blob }) => blob)].map(([blob, own]) => ({ blob, path: DATABASE, runs: own }));
}

function checkPages(bytes: Buffer, runs: readonly PageRun[], { pageSize, hashes }: PageHashes): void {
  for (const { start, count, offset } of runs)
    for (let [page, at] = [start, offset]; page < start + count; page++, at += pageSize) {
      if (at + pageSize > bytes.length)
        throw damaged(`the page map: the pages from ${page} on end after their blob`, { field: "blob_offset", page });
      const wanted = hashes.subarray(page * PAGE_HASH, (page + 1) * PAGE_HASH);
      if (
        !sha256(bytes.subarray(at, at + pageSize))
          .subarray(0, PAGE_HASH)
          .equals(wanted)
      )
        throw damaged(`page ${page} of the database does not match its hash`, { field: "hashes", page });
    }
}

/** Writes the database of a verified snapshot to a new file. */
export async function writeDatabase(
  repository: MsgvaultRepository,
  pages: NonNullable<Snapshot["pages"]>,
  file: string,
  call: SnapshotCall,
): Promise<void> {
  const { pageSize } = pages.hashes;
  const fd = openSync(file, "wx", 0o600);
  try {
    await eachOf(repository, pageBlobs(pages), call, async ({ blob, path, runs }) => {
      const bytes = await repository.whole(blob, path, MOST_PAGE_BLOB);
      for (const { start, count, offset } of runs)
        writeAll(fd, bytes.subarray(offset, offset + count * pageSize), start * pageSize);
    });
  } finally {
    closeSync(fd);
  }
}

/** Writes files of a verified snapshot. Throws `damaged` if two have one place. */
export async function writeFiles(
  repository: MsgvaultRepository,
  files: readonly SnapshotFile[],
  output: FolderOutput,
  call: SnapshotCall,
): Promise<void> {
  await eachOf(repository, files, call, async ({ path, raw, blob, size, mode }, pace) => {
    const paced = async function* (): AsyncGenerator<Buffer> {
      for await (const piece of repository.read(blob, path, { size })) {
        yield piece;
        await pace();
      }
    };
    await output.next(raw ?? Buffer.from(path), { type: "file", mode })!.write(paced());
    failpoint("msgvault.file-written");
  });
}

/** The places that rows of a database give to attachments, with raw paths; `isOwn`: it is a database of msgvault. */
export interface PlacesOfRows {
  isOwn: boolean;
  rows: readonly { hash: string; path: Buffer }[];
}

/**
 * Returns the places of attachments. Throws `damaged` for an unsafe path, and if rows of msgvault and lists differ. In
 * another database an attachment without a row lies at its usual place, and rows may name other things.
 */
export function placedAttachments(snapshot: Snapshot, { isOwn, rows }: PlacesOfRows): SnapshotFile[] {
  const missing = new Map(snapshot.attachments);
  const files: SnapshotFile[] = [];
  for (const { hash: blob, path: raw } of rows) {
    const path = raw.toString();
    const size = snapshot.attachments.get(blob);
    if (size === undefined && !isOwn) continue;
    checkMemberPath(path);
    if (size === undefined)
      throw damaged(`the attachment ${blob.slice(0, 16)} of the database is in no list of the snapshot`, {
        field: "lists",
        path,
      });
    missing.delete(blob);
    files.push({
      ...privateFile(`${ATTACHMENTS}/${path}`, blob, size),
      raw: Buffer.concat([Buffer.from(`${ATTACHMENTS}/`), raw]),
    });
  }
  const [lost] = missing.keys();
  if (lost !== undefined && isOwn)
    throw damaged(`the database names no place for the attachment ${lost.slice(0, 16)}`, {
      field: "attachments",
    });
  return [...files, ...usualPlaces({ attachments: missing })];
}

/** Places attachments as msgvault places new ones: by their hash, below its first two digits. */
export function usualPlaces({ attachments }: Pick<Snapshot, "attachments">): SnapshotFile[] {
  return [...attachments].map(([blob, size]) => privateFile(`${ATTACHMENTS}/${blob.slice(0, 2)}/${blob}`, blob, size));
}
