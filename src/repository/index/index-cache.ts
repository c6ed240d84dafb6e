import { closeSync, constants, fstatSync, readSync, unlinkSync } from "node:fs";
import { crc32 } from "node:zlib";
import { failpoint } from "../../failpoint.ts";
import { putDisposable } from "../../fs/disposable-file.ts";
import { writeAll } from "../../fs/durable.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { capacityOf, BlobTable } from "./blob-table.ts";
import { OtherPlaces } from "./other-places.ts";

/**
 * The file of the index cache, `docs/formats/index-cache.md`: an image of a blob table, read straight into shared
 * memory. A damaged or foreign file counts as absent, never as an error.
 */

export const INDEX_CACHE_MAGIC = "CAIRNIX";
export const INDEX_CACHE_VERSION = 2;
const MAGIC = Buffer.from(`${INDEX_CACHE_MAGIC}${INDEX_CACHE_VERSION}`, "latin1");
const HEADER_BYTES = 128;
const SLICE = 512 * 1024;
const MAX_COVERED = 1_000_000;

export interface IndexCacheContent {
  table: BlobTable;
  /** Further places of blobs, in addition to the places in the table. */
  others: OtherPlaces;
  /** 16 random bytes that change whenever an id may have left the index. */
  epoch: Uint8Array;
  /** Names of the index files whose entries the table holds. */
  covered: Set<string>;
}

let counter = 0;

/** Writes the image to a temporary file and renames it. Not flushed: the checksum shows a torn file. */
export function writeIndexCache(path: string, repositoryId: string, content: IndexCacheContent): void {
  const { table, others, covered } = content;
  const names = Buffer.alloc(covered.size * 32);
  let at = 0;
  for (const name of covered) at += names.write(name, at, 32, "hex");
  const header = encodeHeader(repositoryId, content);
  const temporary = `${path}.${process.pid}-${counter++}`;
  const fd = openRegular(temporary, { flags: constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC });
  try {
    let checksum = 0;
    for (const section of [header, names, ...sectionsOf(table, table.count, table.packCount), others.rows]) {
      for (let start = 0; start < section.length; start += SLICE) {
        const slice = section.subarray(start, Math.min(section.length, start + SLICE));
        checksum = crc32(slice, checksum);
        writeAll(fd, slice);
      }
    }
    const tail = Buffer.alloc(4);
    tail.writeUInt32LE(checksum);
    writeAll(fd, tail);
    closeSync(fd);
    failpoint("index-cache-staged");
    putDisposable(temporary, path);
  } catch (error) {
    try {
      unlinkSync(temporary);
    } catch {
      // The first error tells more.
    }
    throw error;
  }
}

/** Returns the image at `path`, or null if it is damaged or of another repository. */
export function readIndexCache(path: string, repositoryId: string): IndexCacheContent | null {
  let fd: number;
  try {
    fd = openRegular(path);
  } catch {
    return null;
  }
  try {
    return readImage(fd, repositoryId);
  } catch {
    return null;
  } finally {
    closeSync(fd);
  }
}

function readImage(fd: number, repositoryId: string): IndexCacheContent | null {
  const header = Buffer.alloc(HEADER_BYTES);
  if (!readFull(fd, header, 0)) return null;
  if (!header.subarray(0, 8).equals(MAGIC) || header.toString("latin1", 48, 112) !== repositoryId.padEnd(64, "\0"))
    return null;
  const slots = header.readUInt32LE(8);
  const count = header.readUInt32LE(12);
  const packs = header.readUInt32LE(16);
  const otherCount = header.readUInt32LE(20);
  const coveredCount = header.readUInt32LE(24);
  if (slots < 4096 || slots > 2 ** 27 || (slots & (slots - 1)) !== 0 || coveredCount > MAX_COVERED) return null;
  if (count > capacityOf(slots) || packs > capacityOf(slots)) return null;
  const size = HEADER_BYTES + coveredCount * 32 + slots * 4 + count * 49 + packs * 36 + otherCount * 20 + 4;
  if (fstatSync(fd).size !== size) return null;
  const table = BlobTable.make(slots);
  const others = new OtherPlaces();
  others.reserve(otherCount);
  const names = Buffer.alloc(coveredCount * 32);
  let checksum = crc32(header);
  let at = HEADER_BYTES;
  for (const section of [names, ...sectionsOf(table, count, packs), others.rows]) {
    for (let start = 0; start < section.length; start += SLICE) {
      const slice = section.subarray(start, Math.min(section.length, start + SLICE));
      if (!readFull(fd, slice, at)) return null;
      checksum = crc32(slice, checksum);
      at += slice.length;
    }
  }
  const tail = Buffer.alloc(4);
  if (!readFull(fd, tail, at) || tail.readUInt32LE(0) !== checksum) return null;
  table.setCounts(count, packs);
  const covered = new Set<string>();
  for (let i = 0; i < coveredCount; i++) covered.add(names.toString("hex", i * 32, i * 32 + 32));
  return { table, others, epoch: Uint8Array.from(header.subarray(32, 48)), covered };
}

function encodeHeader(repositoryId: string, content: IndexCacheContent): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeUInt32LE(content.table.slotCount, 8);
  header.writeUInt32LE(content.table.count, 12);
  header.writeUInt32LE(content.table.packCount, 16);
  header.writeUInt32LE(content.others.count, 20);
  header.writeUInt32LE(content.covered.size, 24);
  header.set(content.epoch.subarray(0, 16), 32);
  header.write(repositoryId.slice(0, 64), 48, "latin1");
  return header;
}

function sectionsOf(table: BlobTable, count: number, packs: number): Uint8Array[] {
  const column = (view: Int32Array | Uint32Array, length: number): Uint8Array =>
    new Uint8Array(table.buffer, view.byteOffset, length * 4);
  return [
    column(table.slots, table.slotCount),
    column(table.packOf, count),
    column(table.offsetOf, count),
    column(table.lengthOf, count),
    column(table.plainOf, count),
    column(table.packRefs, packs),
    table.ids.subarray(0, count * 32),
    table.packIds.subarray(0, packs * 32),
    table.flags.subarray(0, count),
  ];
}

function readFull(fd: number, into: Uint8Array, position: number): boolean {
  let done = 0;
  while (done < into.length) {
    const count = readSync(fd, into, done, into.length - done, position + done);
    if (count === 0) return false;
    done += count;
  }
  return true;
}
