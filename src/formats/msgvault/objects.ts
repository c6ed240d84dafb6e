import { CairnError } from "../../errors.ts";
import { ByteReader, compareBytes, hex, latin1 } from "../bytes.ts";
import { MOST_BLOB, MOST_PAGES } from "./manifest.ts";

/** Binary objects of a repository. Numbers are little-endian; each object but a pack ends with the SHA-256 of its bytes. */

const DIGEST = 32;
/** Bytes of a page's hash: the first half of its SHA-256. */
export const PAGE_HASH = 16;
const HEADER = 6;
const ENTRY = 61;
const TRAILER = 40;
/** A stored blob may be a little longer than its content. */
const MOST_STORED = MOST_BLOB + MOST_BLOB / 256 + 104;
/** The largest window of a zstd frame, except that any window may be as large as the frame's content. */
const MOST_WINDOW = 2 ** 25;

export type Sha256 = (bytes: Uint8Array) => Uint8Array;

function wrong(what: string, field: string, wanted: string): CairnError {
  return new CairnError("damaged", `${what}: field ${JSON.stringify(field)} is not ${wanted}`, { details: { field } });
}

/** Reads the numbers of one object; errors name the field. */
class Numbers extends ByteReader {
  /** An integer of 64 bits, at most `most`. */
  upTo(field: string, most: number): number {
    const value = this.u64();
    if (value > most) throw wrong(this.what, field, `at most ${most}`);
    return value;
  }

  /** A count whose elements take all of the remaining bytes. */
  count(field: string, bytesEach: number): number {
    const value = this.u32();
    if (value * bytesEach !== this.remaining) throw wrong(this.what, field, "the number of entries in the object");
    return value;
  }
}

/** Checks hash, magic and version of an object, and returns its magic and a reader after them. */
function open(bytes: Uint8Array, what: string, magics: readonly string[], sha256: Sha256): [string, Numbers] {
  const end = bytes.length - DIGEST;
  const magic = latin1(bytes.subarray(0, 4));
  if (end < HEADER || !magics.includes(magic)) throw wrong(what, "magic", magics.join(" or "));
  if (compareBytes(sha256(bytes.subarray(0, end)), bytes.subarray(end)) !== 0)
    throw wrong(what, "sha256", "the hash of the object");
  const numbers = new Numbers(bytes.subarray(4, end), what);
  const version = numbers.u16();
  if (version === 1) return [magic, numbers];
  throw new CairnError("newer_version", `${what} is of version ${version}; Cairn reads 1`, {
    details: { field: "version", actual: version, expected: 1 },
  });
}

/** Place of a blob in a pack. */
export interface Place {
  pack: string;
  offset: number;
  stored: number;
  flags: number;
}

/** Reads an index and passes each blob's id (32 characters, latin1) and place on. */
export function decodeIndex(bytes: Uint8Array, sha256: Sha256, add: (id: string, place: Place) => void): void {
  const [, numbers] = open(bytes, "index", ["MVIX"], sha256);
  const count = numbers.count("entry_count", 65);
  let before: Uint8Array | null = null;
  for (let i = 0; i < count; i++) {
    const id = numbers.take(DIGEST);
    if (before !== null && compareBytes(before, id) >= 0) throw wrong("index", "blob_id", "sorted");
    before = id;
    add(latin1(id), {
      pack: ulidOf(numbers.take(16)),
      offset: numbers.upTo("offset", Number.MAX_SAFE_INTEGER),
      stored: numbers.upTo("stored_len", MOST_STORED),
      flags: numbers.u8(),
    });
  }
}

const DIGITS = "0123456789abcdefghjkmnpqrstvwxyz";

function ulidOf(bytes: Uint8Array): string {
  let [rest, text] = [BigInt(`0x${hex(bytes)}`), ""];
  for (let i = 0; i < 26; i++, rest >>= 5n) text = DIGITS[Number(rest & 31n)]! + text;
  return text;
}

export interface PageHashes {
  pageSize: number;
  pages: number;
  /** `PAGE_HASH` bytes a page */
  hashes: Uint8Array;
}

/** Returns the hashes of all pages. Those of a delta replace hashes of `base`; null for a delta without a base. */
export function decodeHashes(bytes: Uint8Array, sha256: Sha256, base: PageHashes | null): PageHashes | null {
  const what = "page hashes";
  const [magic, numbers] = open(bytes, what, ["MVHK", "MVHD"], sha256);
  const [pageSize, pages] = [numbers.u32(), numbers.upTo("page_count", MOST_PAGES)];
  if (magic === "MVHK") {
    if (numbers.remaining !== pages * PAGE_HASH) throw wrong(what, "page_count", "the number of hashes in the object");
    return { pageSize, pages, hashes: numbers.take(pages * PAGE_HASH) };
  }
  const count = numbers.count("entry_count", 8 + PAGE_HASH);
  if (base === null) return null;
  if (base.pageSize !== pageSize) throw wrong(what, "page_size", `that of the hashes before, ${base.pageSize}`);
  const hashes = new Uint8Array(pages * PAGE_HASH);
  hashes.set(base.hashes.subarray(0, hashes.length));
  const changed = new Numbers(numbers.take(count * 8), what);
  for (let i = 0, before = -1; i < count; i++) {
    const page = changed.upTo("pages", pages - 1);
    if (page <= before) throw wrong(what, "pages", "sorted");
    before = page;
    hashes.set(numbers.take(PAGE_HASH), page * PAGE_HASH);
  }
  return { pageSize, pages, hashes };
}

/** A range of pages whose bytes follow each other in a blob. */
export interface PageRun {
  start: number;
  count: number;
  /** id, 32 characters in latin1 */
  blob: string;
  offset: number;
}

export interface PageMap {
  pageSize: number;
  pages: number;
  /** sorted by `start`, without overlaps */
  runs: PageRun[];
}

/** Returns a page map. A delta replaces runs of `base`; null for a delta without a base. */
export function decodePageMap(bytes: Uint8Array, sha256: Sha256, base: PageMap | null): PageMap | null {
  const what = "page map";
  const [magic, numbers] = open(bytes, what, ["MVMK", "MVMD"], sha256);
  const [pageSize, pages] = [numbers.u32(), numbers.upTo("page_count", MOST_PAGES)];
  const blobs: string[] = [];
  for (let left = numbers.u32(); left > 0; left--) blobs.push(latin1(numbers.take(DIGEST)));
  const count = numbers.count("run_count", 24);
  const runs: PageRun[] = [];
  for (let i = 0, end = 0; i < count; i++) {
    const [start, length, blob] = [numbers.upTo("start_page", MOST_PAGES), numbers.u32(), blobs[numbers.u32()]];
    const offset = numbers.upTo("blob_offset", MOST_BLOB);
    if (length === 0 || start + length > pages) throw wrong(what, "page_count", `a range of the ${pages} pages`);
    if (start < end) throw wrong(what, "start_page", "sorted: runs overlap");
    if (blob === undefined) throw wrong(what, "blob_index", `below ${blobs.length}`);
    end = start + length;
    runs.push({ start, count: length, blob, offset });
  }
  if (magic === "MVMK") return { pageSize, pages, runs };
  if (base === null) return null;
  if (base.pageSize !== pageSize) throw wrong(what, "page_size", `that of the map before, ${base.pageSize}`);
  return { pageSize, pages, runs: merged(base, runs, pages) };
}

/** The runs of a delta, and the parts of the base's runs that the delta does not replace. */
function merged(base: PageMap, delta: readonly PageRun[], pages: number): PageRun[] {
  const runs: PageRun[] = [...delta];
  let next = 0;
  for (const run of base.runs) {
    const end = Math.min(run.start + run.count, pages);
    let at = run.start;
    const keep = (to: number): void => {
      if (to > at)
        runs.push({ ...run, start: at, count: to - at, offset: run.offset + (at - run.start) * base.pageSize });
    };
    for (let over = delta[next]; over !== undefined && over.start < end; over = delta[next]) {
      keep(over.start);
      at = Math.max(at, over.start + over.count);
      // A run that ends later may replace a part of the next one, too.
      if (over.start + over.count > end) break;
      next++;
    }
    keep(end);
  }
  return runs.toSorted((a, b) => a.start - b.start);
}

/** Throws `damaged` unless the runs cover each page exactly once. */
export function requireCoverage({ runs, pages }: PageMap): void {
  let next = 0;
  for (const { start, count } of runs) {
    if (start !== next) throw wrong("page map", "start_page", `${next}: pages are missing`);
    next = start + count;
  }
  if (next !== pages) throw wrong("page map", "page_count", `${next}: pages are missing`);
}

/** Reads a list of attachments: ids of blobs (32 characters in latin1) and their sizes. */
export function decodeAttachments(bytes: Uint8Array, sha256: Sha256): { blob: string; size: number }[] {
  const [, numbers] = open(bytes, "list of attachments", ["MVAL"], sha256);
  const count = numbers.count("entry_count", 40);
  return Array.from({ length: count }, () => ({
    blob: latin1(numbers.take(DIGEST)),
    size: numbers.upTo("size", MOST_BLOB),
  }));
}

/** An entry of a pack's footer. */
export interface PackEntry {
  offset: number;
  stored: number;
  raw: number;
  isCompressed: boolean;
  flags: number;
  crc: number;
}

/** Reads parts of a pack. `read` returns bytes at a position; `size`: the length of the file. */
export function decodePack(
  what: string,
  { size, read, sha256 }: { size: number; read: (at: number, length: number) => Uint8Array; sha256: Sha256 },
): Map<string, PackEntry> {
  const least = HEADER + TRAILER + 4;
  if (size < least) throw wrong(what, "size", `at least ${least} bytes`);
  const head = read(0, HEADER);
  if (latin1(head.subarray(0, 4)) !== "MVPK") throw wrong(what, "magic", "MVPK");
  if (head[4] !== 1)
    throw new CairnError("newer_version", `${what} is of version ${head[4]}; Cairn reads 1`, {
      details: { field: "version", actual: head[4], expected: 1 },
    });
  if (head[5] === 1)
    throw new CairnError("unsupported", `${what} is encrypted`, { details: { field: "flags", actual: 1 } });
  if (head[5] !== 0) throw wrong(what, "flags", "0");
  const trailer = read(size - TRAILER, TRAILER);
  if (latin1(trailer.subarray(36)) !== "KPVM") throw wrong(what, "trailer", "KPVM");
  const length = new Numbers(trailer, what).u32();
  const start = size - TRAILER - length;
  if (length < 4 || length > 2 ** 30 || start < HEADER) throw wrong(what, "footer_len", "inside the file");
  const footer = read(start, length + 4);
  if (compareBytes(sha256(footer), trailer.subarray(4, 36)) !== 0)
    throw wrong(what, "sha256", "the hash of the footer");
  return entriesOf(new Numbers(footer.subarray(0, length), what), start);
}

function entriesOf(numbers: Numbers, end: number): Map<string, PackEntry> {
  const { what } = numbers;
  const count = numbers.count("entry_count", ENTRY);
  const entries = new Map<string, PackEntry>();
  for (let i = 0; i < count; i++) {
    const id = latin1(numbers.take(DIGEST));
    const offset = numbers.upTo("offset", end);
    const stored = numbers.upTo("stored_len", MOST_STORED);
    const raw = numbers.upTo("raw_len", MOST_BLOB);
    const [flags, crc] = [numbers.u8(), numbers.u32()];
    if (offset < HEADER || offset + stored > end) throw wrong(what, "offset", "inside the data of the pack");
    if (flags > 1) throw wrong(what, "flags", "0 or 1: plain blobs");
    if (flags === 0 && stored !== raw) throw wrong(what, "raw_len", "stored_len, as the blob is not compressed");
    entries.set(id, { offset, stored, raw, isCompressed: flags === 1, flags, crc });
  }
  return entries;
}

/**
 * Returns the base-2 logarithm of the window that a zstd frame needs. A frame may lack the size of its content. Throws
 * `damaged` for another size, a dictionary, and a window that is neither the content nor at most 32 MiB.
 */
export function windowOf(frame: Uint8Array, raw: number, what: string): number {
  const numbers = new Numbers(frame, what);
  if (numbers.u32() !== 0xfd2fb528) throw wrong(what, "magic", "that of a zstd frame");
  const descriptor = numbers.u8();
  const isWhole = (descriptor & 32) !== 0;
  if ((descriptor & 3) !== 0) throw wrong(what, "dictionary", "absent");
  const byte = isWhole ? 0 : numbers.u8();
  const kind = descriptor >> 6;
  const size = [
    () => (isWhole ? numbers.u8() : null),
    () => numbers.u16() + 256,
    () => numbers.u32(),
    () => numbers.upTo("content_size", Number.MAX_SAFE_INTEGER),
  ][kind]!();
  if (size !== null && size !== raw) throw wrong(what, "content_size", `the blob's size, ${raw}`);
  const window = isWhole ? raw : 2 ** (10 + (byte >> 3)) * (1 + (byte & 7) / 8);
  if (!isWhole && window > MOST_WINDOW) throw wrong(what, "window", `at most ${MOST_WINDOW} bytes`);
  return Math.max(10, Math.ceil(Math.log2(Math.max(window, 1))));
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC-32C (Castagnoli) of bytes that follow those with the CRC `before`. */
export function crc32c(bytes: Uint8Array, before = 0): number {
  let crc = ~before;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}
