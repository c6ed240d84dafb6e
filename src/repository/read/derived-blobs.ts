import { sha256 } from "../../crypto/hash.ts";
import { CairnError } from "../../errors.ts";
import { compareBytes } from "../../formats/bytes.ts";
import { NO_FILE, type PageRun } from "../../formats/payloads/sqlite-pages.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { type BlobType, DATA_BLOB, TREE_BLOB } from "../index/blob-table.ts";

/** A database that is stored by pages, and the blobs of the plain file. */
export interface DerivedDatabase {
  /** Ids of the plain file's blobs. */
  content: Uint8Array;
  size: number;
  /** Bytes of each of these blobs but the last. */
  blobBytes: number;
  pageSize: number;
  runs: readonly PageRun[];
  /** The files of pages: ids of their blobs, and the bytes of each blob but the last. */
  files: readonly { content: Uint8Array; blobBytes: number }[];
}

/** Blobs that lie in no pack. Plain data, which can be passed to threads. */
export interface DerivedContent {
  /** Bytes by id, hex. */
  trees: ReadonlyMap<string, Uint8Array>;
  databases: readonly DerivedDatabase[];
  /** Parts of files with further blobs, by id, hex. */
  spilled?: ReadonlyMap<string, () => Uint8Array>;
}

/** The ids of derived blobs, with their lengths. */
export function* derivedIds({
  trees,
  databases,
}: DerivedContent): Generator<{ id: Uint8Array; type: BlobType; length: number }> {
  for (const [id, { length }] of trees) yield { id: Buffer.from(id, "hex"), type: TREE_BLOB, length };
  for (const { content, size, blobBytes } of databases)
    for (let at = 0; at < content.length; at += 32) {
      const length = Math.min(blobBytes, size - (at / 32) * blobBytes);
      yield { id: content.subarray(at, at + 32), type: DATA_BLOB, length };
    }
}

/** Reads blobs with pages of databases. */
interface PageReader {
  readonly index: BlobIndex;
  /** Returns the plain bytes of a blob. Throws `damaged`. */
  read(entry: number): Uint8Array;
}

/** Makes blobs of databases from pages in other blobs. */
export class DerivedBlobs {
  readonly #content: DerivedContent;
  readonly #source: PageReader;
  /** Position in the list of databases, and number of the blob there, by id. */
  #places: Map<string, { database: number; blob: number }> | null = null;
  /** For each database the first page of each run, then the number of pages. */
  readonly #starts = new Map<number, Float64Array>();
  /** The blob of each file of pages that was read last: pages are mostly read in rising order. */
  readonly #last = new Map<string, { blob: number; bytes: Uint8Array }>();

  constructor(content: DerivedContent, source: PageReader) {
    this.#content = content;
    this.#source = source;
  }

  /** Returns a blob's bytes. Throws `damaged` if a blob with its pages is missing or damaged. */
  read(id: Uint8Array, type: BlobType): Uint8Array {
    const name = objectIdOf(id);
    const known = type === TREE_BLOB ? this.#content.trees.get(name) : this.#content.spilled?.get(name)?.();
    if (known !== undefined) return known;
    const place = this.#placesOfBlobs().get(name);
    if (place === undefined) throw new CairnError("internal", `blob ${name.slice(0, 12)} is not derived`);
    const bytes = this.#blob(place.database, place.blob);
    if (compareBytes(sha256(bytes), id) === 0) return bytes;
    throw new CairnError("damaged", `the pages of blob ${name.slice(0, 12)} of a database differ from its id`);
  }

  #placesOfBlobs(): Map<string, { database: number; blob: number }> {
    if (this.#places !== null) return this.#places;
    const places = (this.#places = new Map<string, { database: number; blob: number }>());
    for (const [database, { content }] of this.#content.databases.entries())
      for (let blob = 0; blob * 32 < content.length; blob++)
        places.set(objectIdOf(content.subarray(blob * 32, blob * 32 + 32)), { database, blob });
    return places;
  }

  #blob(number: number, blob: number): Uint8Array {
    const { size, blobBytes, pageSize, runs } = this.#content.databases[number]!;
    const starts = this.#startsOf(number);
    const bytes = Buffer.alloc(Math.min(blobBytes, size - blob * blobBytes));
    let page = (blob * blobBytes) / pageSize;
    const end = page + bytes.length / pageSize;
    for (let run = runAt(starts, page); page < end; run++) {
      const { file, at } = runs[run]!;
      const until = Math.min(end, starts[run + 1]!);
      for (; page < until && file !== NO_FILE; page++) {
        const from = (at + page - starts[run]!) * pageSize;
        const piece = this.#page(number, file - 1, { from, length: pageSize });
        bytes.set(piece, bytes.length - (end - page) * pageSize);
      }
      page = until;
    }
    return bytes;
  }

  #page(number: number, file: number, { from, length }: { from: number; length: number }): Uint8Array {
    const { content, blobBytes } = this.#content.databases[number]!.files[file]!;
    const blob = Math.floor(from / blobBytes);
    const key = `${number} ${file}`;
    let last = this.#last.get(key);
    if (last?.blob !== blob) {
      const entry = this.#source.index.lookup(content, blob * 32, DATA_BLOB);
      if (entry < 0) {
        const name = objectIdOf(content.subarray(blob * 32, blob * 32 + 32));
        throw new CairnError("damaged", `the store has no data blob ${name.slice(0, 12)} with pages of a database`);
      }
      this.#last.set(key, (last = { blob, bytes: this.#source.read(entry) }));
    }
    const at = from - blob * blobBytes;
    return last.bytes.subarray(at, at + length);
  }

  #startsOf(number: number): Float64Array {
    let starts = this.#starts.get(number);
    if (starts !== undefined) return starts;
    const { runs } = this.#content.databases[number]!;
    starts = new Float64Array(runs.length + 1);
    for (const [run, { count }] of runs.entries()) starts[run + 1] = starts[run]! + count;
    this.#starts.set(number, starts);
    return starts;
  }
}

/** The run that has a page. */
function runAt(starts: Float64Array, page: number): number {
  let [low, high] = [0, starts.length - 2];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (starts[middle + 1]! <= page) low = middle + 1;
    else high = middle;
  }
  return low;
}
