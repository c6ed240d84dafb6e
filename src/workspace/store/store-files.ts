import fs from "node:fs";
import path from "node:path";
import { decodeRecord, encodeRecord } from "../../formats/records/record.ts";
import { putDisposable, readDisposable } from "../../fs/disposable-file.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { readRegular, writeRegular } from "../../fs/regular-file.ts";
import { isOthersPlace } from "../../fs/users.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import { namesIn } from "../../fs/paths/names-in.ts";
import { objectIdOf } from "../../ids.ts";
import { type StorePaths, storePaths } from "./store-paths.ts";
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

const MAX_NOTE_BYTES = 16 * 1024 * 1024;

/** Returns packs that were damaged when read: notes for doctor, which does not read packs. Best effort. */
export function notedPacks({ damagedPacks }: StorePaths): string[] {
  try {
    if (fs.statSync(damagedPacks).size > MAX_NOTE_BYTES) return [];
    const lines = readRegular(damagedPacks).toString("latin1").split("\n");
    return lines.filter((name) => /^[0-9a-f]{64}$/.test(name));
  } catch {
    return [];
  }
}

/** Counts packs that are missing or noted as damaged; no pack is read. */
export function unsoundPacks(control: string, { packs }: StoreSize): number {
  const paths = storePaths(control);
  const noted = new Set(notedPacks(paths));
  const present = new Map<string, ReadonlySet<string>>();
  return packs.filter((name) => {
    const folder = name.slice(0, 2);
    const names = present.get(folder) ?? new Set(namesIn(path.join(paths.repository, "data", folder)));
    present.set(folder, names);
    return !names.has(name) || noted.has(name);
  }).length;
}

/** Notes damaged packs for doctor. `instead`: the notes replace earlier ones. */
export function notePacks(paths: StorePaths, names: readonly string[], instead: boolean): void {
  const { cache, damagedPacks } = paths;
  const before = notedPacks(paths);
  const all = [...new Set([...(instead ? [] : before), ...names])].toSorted();
  if (all.join() === before.toSorted().join()) return;
  try {
    makeFolder(cache);
    if (all.length === 0) fs.rmSync(damagedPacks, { force: true });
    else writeRegular(damagedPacks, `${all.join("\n")}\n`);
  } catch {
    // Another verification finds them again.
  }
}
