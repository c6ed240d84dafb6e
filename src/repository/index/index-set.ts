import { readdirSync } from "node:fs";
import { dirname } from "node:path";
import { CairnError } from "../../errors.ts";
import {
  decodeIndexColumns,
  IndexColumns,
  IndexWriter,
  markedPacks,
  type PackRange,
} from "../../formats/restic/index-file.ts";
import { EMPTY_PACK_SIZE, sizeInPack, type IndexBlob } from "../../formats/restic/pack-header.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { giveBack } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import type { BlobIndex } from "./blob-index.ts";
import { wordAt } from "./claim-table.ts";
import type { DamagedFile, Repository } from "../repository.ts";

/** This file reads index files in turn, and writes new ones that replace some of them. */

const MAX_INDEX_BYTES = 8 * 1024 * 1024 - 64 * 1024;
/** An upper limit of the JSON bytes of one entry. */
const BYTES_PER_BLOB = 190;

/**
 * A pack as one index file lists it. The blobs stay in columns: one object for each blob of a large index would take
 * longer than all work with them.
 */
export class IndexedPack {
  readonly id: Uint8Array;
  readonly #columns: IndexColumns;
  readonly #range: PackRange;

  constructor(columns: IndexColumns, range: PackRange) {
    this.id = range.id;
    this.#columns = columns;
    this.#range = range;
  }

  get blobCount(): number {
    return this.#range.to - this.#range.from;
  }

  /** Blobs sorted by offset; a new array each time. */
  get blobs(): IndexBlob[] {
    return this.#columns.blobsOf(this.#range).sort((a, b) => a.offset - b.offset);
  }

  /** Bytes of the pack file that has just these blobs, its header included. */
  get fileSize(): number {
    const { lengths, plainLengths } = this.#columns;
    let size = EMPTY_PACK_SIZE;
    for (let at = this.#range.from; at < this.#range.to; at++) size += sizeInPack(lengths[at]!, plainLengths[at]!);
    return size;
  }

  /**
   * True if the blobs follow each other without gaps from offset 0, so that an index written from them has the same
   * offsets.
   */
  get isContiguous(): boolean {
    const { offsets, lengths } = this.#columns;
    let end = 0;
    for (let at = this.#range.from; at < this.#range.to; at++) {
      // The index may list blobs in another order than they lie.
      if (offsets[at] !== end) return isContiguous(this.blobs);
      end += lengths[at]!;
    }
    return true;
  }

  addTo(index: BlobIndex): void {
    index.addColumns(this.#columns, this.#range);
  }
}

export interface IndexFileContent {
  readonly name: string;
  readonly packs: IndexedPack[];
  /**
   * True if the file has members of other writers, such as rustic's `packs_to_delete`. Cairn does not rewrite such a
   * file.
   */
  readonly foreign: boolean;
  /** Names of packs that rustic has marked for removal: listed, but not to be read. */
  readonly marked: readonly string[];
}

/** Loads and decodes an index file. Throws `damaged` or `not_found`. */
export async function loadIndexFile(repository: Repository, name: string): Promise<IndexFileContent> {
  return contentOf(name, await repository.loadUnpacked("index", name));
}

/** Names of the index files in a local repository; empty if the repository is not local. */
export function indexFilesHere({ storage }: Repository): string[] {
  const folder = storage.localPath?.("index", "0".repeat(64));
  return folder === undefined ? [] : readdirSync(dirname(folder)).filter((name) => /^[0-9a-f]{64}$/.test(name));
}

function contentOf(name: string, json: Uint8Array): IndexFileContent {
  const columns = new IndexColumns();
  const { extra } = decodeIndexColumns(json, columns);
  const packs = columns.packs.map((range) => new IndexedPack(columns, range));
  return { name, packs, foreign: Object.keys(extra).length > 0, marked: markedPacks(extra) };
}

/** Calls `each` for every index file in turn. Returns the damaged files. Throws `not_found` if a file vanished. */
export async function eachIndexFile(
  repository: Repository,
  names: Iterable<string>,
  each: (file: IndexFileContent) => void | Promise<void>,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<DamagedFile[]> {
  const pace = newPacer(options.signal);
  const damaged: DamagedFile[] = [];
  for (const { name, json } of repository.loadInTurn("index", names)) {
    await pace();
    let file: IndexFileContent;
    try {
      file = contentOf(name, await json);
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      damaged.push({ name, error });
      continue;
    }
    await each(file);
  }
  return damaged;
}

function isContiguous(blobs: readonly IndexBlob[]): boolean {
  let offset = 0;
  for (const blob of blobs) {
    if (blob.offset !== offset) return false;
    offset += blob.length;
  }
  return true;
}

/**
 * Returns a number that is equal for the same blobs at the same places, in any order. A kill during a rewrite of the
 * index leaves a pack listed twice, and restic before 0.10 lists a pack in two parts.
 */
export function listingKey(blobs: readonly IndexBlob[]): number {
  let low = 0;
  let high = 0;
  for (const { id, type, offset, length, uncompressedLength } of blobs) {
    let mix = Math.imul(offset, 0x9e3779b1) ^ Math.imul(length, 0x85ebca6b) ^ Math.imul(uncompressedLength, 0xc2b2ae35);
    mix ^= type === "tree" ? 0x27d4eb2f : 0;
    low = (low + (wordAt(id, 0) ^ mix)) >>> 0;
    high = (high + ((wordAt(id, 4) ^ Math.imul(mix ^ (mix >>> 15), 0x165667b1)) & 0xfffff)) & 0xfffff;
  }
  return high * 2 ** 32 + low;
}

/**
 * Collects packs into as many index files as they need, and skips a pack that was added with the same blobs before.
 * Saves without flushing.
 */
export class IndexFileWriter {
  readonly names: ObjectId[] = [];
  readonly #repository: Repository;
  readonly #seen = new Set<string>();
  #writer = new IndexWriter();

  constructor(repository: Repository) {
    this.#repository = repository;
  }

  async add(id: Uint8Array, blobs: readonly IndexBlob[]): Promise<void> {
    const key = `${objectIdOf(id)} ${listingKey(blobs)}`;
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    if (this.#writer.blobCount > 0 && this.#writer.byteLength + blobs.length * BYTES_PER_BLOB > MAX_INDEX_BYTES)
      await this.#close();
    this.#writer.addPack(id, blobs);
  }

  async finish(): Promise<ObjectId[]> {
    await this.#close();
    return this.names;
  }

  async #close(): Promise<void> {
    if (this.#writer.packCount === 0) return;
    const json = this.#writer.finish();
    this.#writer = new IndexWriter();
    this.names.push(await this.#repository.saveUnpacked("index", json, { durable: false }));
    giveBack(json);
  }
}
