import fs from "node:fs";
import path from "node:path";
import { decodeRecord, encodeRecord } from "../../formats/records/record.ts";
import { putDisposable, readDisposable } from "../../fs/disposable-file.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { isOthersPlace } from "../../fs/users.ts";
import { DamagedPacks } from "../../repository/damaged-packs.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import { namesIn } from "../../fs/paths/names-in.ts";
import { objectIdOf } from "../../ids.ts";
import { storePaths } from "./store-paths.ts";
import { packBytes } from "../../repository/packs/pack-bytes.ts";

const SIZE_FORMAT = "cairn.store-size";
const SIZE_VERSION = 2;

/** Facts of a store in a file of the cache, so that the store need not be opened for them. */
export interface StoreSize {
  /** Bytes of all packs. */
  bytes: number;
  /** Names of packs with blobs in the index, 64 hex digits. */
  packs: readonly string[];
}

/** Reads the kept facts of a store; null if there are none, or the store's index files have changed since. */
export function keptStoreSize(control: string): StoreSize | null {
  const { repository, storeSize } = storePaths(control);
  return readDisposable(storeSize, (fd) => {
    const { fields } = decodeRecord(fs.readFileSync(fd), SIZE_FORMAT, SIZE_VERSION);
    const known = fields.texts("index_files");
    const present = new Set(fs.readdirSync(path.join(repository, "index")));
    if (known.length !== present.size || !known.every((name) => present.has(name))) return null;
    return { bytes: fields.integer("bytes"), packs: fields.texts("packs") };
  });
}

/** Returns the facts of a store from its index, and keeps them for {@link keptStoreSize}. */
export function keepStoreSize(control: string, { table, covered }: BlobIndex): StoreSize {
  const paths = storePaths(control);
  const packs = Array.from({ length: table.packCount }, (_, pack) => pack)
    .filter((pack) => table.packRefs[pack] !== 0)
    .map((pack) => objectIdOf(table.packId(pack)));
  const size: StoreSize = { bytes: packBytes(table), packs };
  if (isOthersPlace(control)) return size;
  const temporary = `${paths.storeSize}.${process.pid}`;
  const record = { ...size, index_files: [...covered].toSorted() };
  try {
    makeFolder(paths.cache);
    fs.writeFileSync(temporary, encodeRecord(record, SIZE_FORMAT, SIZE_VERSION), { mode: 0o600 });
    putDisposable(temporary, paths.storeSize);
  } catch {
    // The next call opens the store again.
  }
  return size;
}

/** Counts packs that are missing or noted as damaged; no pack is read. */
export function unsoundPacks(control: string, { packs }: StoreSize): number {
  const paths = storePaths(control);
  const noted = new DamagedPacks(paths.damagedPacks).names();
  const present = new Map<string, ReadonlySet<string>>();
  return packs.filter((name) => {
    const folder = name.slice(0, 2);
    const names = present.get(folder) ?? new Set(namesIn(path.join(paths.repository, "data", folder)));
    present.set(folder, names);
    return !names.has(name) || noted.has(name);
  }).length;
}
