import { CairnError } from "../../errors.ts";
import { ByteReader, compareBytes, hex, latin1 } from "../bytes.ts";
import { MOST_BLOB, MOST_PAGES, newer } from "./manifest.ts";

/** Binary objects of a repository. Numbers are little-endian; each object but a pack ends with the SHA-256 of its bytes. */

const DIGEST = 32;
/** Bytes of a page's hash: the first half of its SHA-256. */
export const PAGE_HASH = 16;
const HEADER = 6;
const ENTRY = 61;
const TRAILER = 40;
/** A stored blob may be a little longer than its content. */
const MOST_STORED = MOST_BLOB + MOST_BLOB / 256 + 104;
/** The most bytes of a blob with pages. */
export const MOST_PAGE_BLOB = 2 ** 28;
const MOST_BLOBS = 2 ** 24;

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
  if (version !== 1) throw newer(what, "version", { actual: version, expected: 1 });
  return [magic, numbers];
}

/** Place of a blob in a pack. */
export interface Place {
  pack: string;
  offset: number;
  stored: number;
  flags: number;
}

/** Reads an index and passes each blob's id (hex) and place on. */
export function decodeIndex(bytes: Uint8Array, sha256: Sha256, add: (id: string, place: Place) => void): void {
  const [, numbers] = open(bytes, "index", ["MVIX"], sha256);
  const count = numbers.count("entry_count", 65);
  let before: Uint8Array | null = null;
  for (let i = 0; i < count; i++) {
    const id = numbers.take(DIGEST);
    if (before !== null && compareBytes(before, id) >= 0) throw wrong("index", "blob_id", "sorted");
    before = id;
    add(hex(id), {
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

/** Opens a table of pages: a whole one, or a delta that changes `base`. */
function openTable<T extends { pageSize: number }>(
  bytes: Uint8Array,
  what: string,
  [magics, sha256, base]: [magics: readonly [whole: string, delta: string], sha256: Sha256, base: T | null],
): { numbers: Numbers; pageSize: number; pages: number; before: T | null } {
  const [magic, numbers] = open(bytes, what, magics, sha256);
  const [pageSize, pages] = [numbers.u32(), numbers.upTo("page_count", MOST_PAGES)];
  if (magic === magics[0]) return { numbers, pageSize, pages, before: null };
  if (base === null) throw wrong(what, "magic", `${magics[0]}: deltas without a whole one`);
  if (base.pageSize !== pageSize) throw wrong(what, "page_size", `the page size before, ${base.pageSize}`);
  return { numbers, pageSize, pages, before: base };
}

export interface PageHashes {
  pageSize: number;
  /** `PAGE_HASH` bytes a page */
  hashes: Uint8Array;
}

/** Returns the hashes of all pages. Those of a delta replace hashes of `base`. */
export function decodeHashes(bytes: Uint8Array, sha256: Sha256, base: PageHashes | null): PageHashes {
  const what = "page hashes";
  const { numbers, pageSize, pages, before } = openTable(bytes, what, [["MVHK", "MVHD"], sha256, base]);
  if (before === null) {
    if (numbers.remaining !== pages * PAGE_HASH) throw wrong(what, "page_count", "the number of hashes in the object");
    return { pageSize, hashes: numbers.take(pages * PAGE_HASH) };
  }
  const count = numbers.count("entry_count", 8 + PAGE_HASH);
  const hashes = new Uint8Array(pages * PAGE_HASH);
  hashes.set(before.hashes.subarray(0, hashes.length));
  const changed = new Numbers(numbers.take(count * 8), what);
  for (let i = 0, last = -1; i < count; i++) {
    const page = changed.upTo("pages", pages - 1);
    if (page <= last) throw wrong(what, "pages", "sorted");
    last = page;
    hashes.set(numbers.take(PAGE_HASH), page * PAGE_HASH);
  }
  return { pageSize, hashes };
}

export interface PageMap {
  pageSize: number;
  /** Ids of blobs, hex. */
  blobs: string[];
  /** Of each page the number of its blob, from 1, times `MOST_PAGE_BLOB`, plus its offset there; 0: no run has it. */
  places: Float64Array;
}

/** Returns the place of each page. Runs of a delta replace places of `base`. */
export function decodePageMap(bytes: Uint8Array, sha256: Sha256, base: PageMap | null): PageMap {
  const what = "page map";
  const { numbers, pageSize, pages, before } = openTable(bytes, what, [["MVMK", "MVMD"], sha256, base]);
  const blobs = [...(before?.blobs ?? [])];
  const known = blobs.length;
  for (let left = numbers.u32(); left > 0; left--) blobs.push(hex(numbers.take(DIGEST)));
  if (blobs.length > MOST_BLOBS) throw wrong(what, "blob_count", `at most ${MOST_BLOBS} with the deltas before`);
  const count = numbers.count("run_count", 24);
  const places = new Float64Array(pages);
  places.set(before?.places.subarray(0, pages) ?? []);
  for (let i = 0, end = 0; i < count; i++) {
    const [start, length, blob] = [numbers.upTo("start_page", MOST_PAGES), numbers.u32(), known + numbers.u32() + 1];
    const offset = numbers.upTo("blob_offset", MOST_PAGE_BLOB);
    if (length === 0 || start + length > pages) throw wrong(what, "page_count", `a range of the ${pages} pages`);
    if (start < end) throw wrong(what, "start_page", "sorted: runs overlap");
    if (blob > blobs.length) throw wrong(what, "blob_index", `below ${blobs.length - known}`);
    end = start + length;
    if (offset + length * pageSize >= MOST_PAGE_BLOB) throw wrong(what, "blob_offset", "in a blob of at most 256 MiB");
    for (let page = start, at = offset; page < end; page++, at += pageSize) places[page] = blob * MOST_PAGE_BLOB + at;
  }
  return { pageSize, blobs, places };
}

/** A range of pages whose bytes follow each other in a blob. */
export interface PageRun {
  start: number;
  count: number;
  blob: string;
  offset: number;
}

/** Returns the ranges that the pages of a map form. Throws `damaged` if a page has no place. */
export function runsOf({ pageSize, blobs, places }: PageMap): PageRun[] {
  const runs: PageRun[] = [];
  for (const [page, place] of places.entries()) {
    if (place === 0) throw wrong("page map", "start_page", `${page}: pages are missing`);
    const [blob, offset] = [blobs[Math.floor(place / MOST_PAGE_BLOB) - 1]!, place % MOST_PAGE_BLOB];
    if (page > 0 && place === places[page - 1]! + pageSize) runs.at(-1)!.count++;
    else runs.push({ start: page, count: 1, blob, offset });
  }
  return runs;
}

/** Reads a list of attachments: ids of blobs and their sizes. */
export function decodeAttachments(bytes: Uint8Array, sha256: Sha256): { blob: string; size: number }[] {
  const [, numbers] = open(bytes, "list of attachments", ["MVAL"], sha256);
  const count = numbers.count("entry_count", 40);
  return Array.from({ length: count }, () => ({
    blob: hex(numbers.take(DIGEST)),
    size: numbers.upTo("size", MOST_BLOB),
  }));
}

/** An entry of a pack's footer. */
export interface PackEntry {
  offset: number;
  stored: number;
  raw: number;
  /** 1: a zstd frame; 0: as it is */
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
  if (head[4] !== 1) throw newer(what, "version", { actual: head[4]!, expected: 1 });
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
    const id = hex(numbers.take(DIGEST));
    const offset = numbers.upTo("offset", end);
    const stored = numbers.upTo("stored_len", MOST_STORED);
    const raw = numbers.upTo("raw_len", MOST_BLOB);
    const [flags, crc] = [numbers.u8(), numbers.u32()];
    if (offset < HEADER || offset + stored > end) throw wrong(what, "offset", "inside the data of the pack");
    if (flags > 1) throw wrong(what, "flags", "0 or 1: plain blobs");
    if (flags === 0 && stored !== raw) throw wrong(what, "raw_len", "stored_len, as the blob is not compressed");
    entries.set(id, { offset, stored, raw, flags, crc });
  }
  return entries;
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
