import fs from "node:fs";
import { decodeRecord, encodeRecord } from "../../formats/records/record.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { removeAll } from "../../fs/remove-all.ts";

/**
 * A file beside a stat cache with the names of the index files that the cache relies on. If one of them is gone,
 * content that the cache knows may have left the store. If the file is missing or invalid, the cache is not trusted.
 */

const FORMAT = "cairn.cache-basis";
const VERSION = 1;
const MAX_BYTES = 64 << 20;

function placeOf(statCache: string): string {
  return `${statCache}-indexes`;
}

/** Call this before the stat cache is replaced: a cache without a basis is not trusted, which only costs lookups. */
export function dropCacheBasis(statCache: string): void {
  removeAll(placeOf(statCache));
}

/** Call this after the stat cache that relies on `indexes` is written. */
export function writeCacheBasis(statCache: string, indexes: Iterable<string>): void {
  const place = placeOf(statCache);
  const temporary = `${place}.${process.pid}`;
  fs.writeFileSync(temporary, encodeRecord({ index_files: [...indexes].toSorted() }, FORMAT, VERSION), { mode: 0o600 });
  fs.renameSync(temporary, place);
}

/** True if every index file that the cache relies on still exists. */
export function cacheBasisHolds(statCache: string, indexes: ReadonlySet<string>): boolean {
  try {
    const place = placeOf(statCache);
    if (fs.statSync(place).size > MAX_BYTES) return false;
    const { fields } = decodeRecord(readRegular(place), FORMAT, VERSION);
    const names = fields.texts("index_files");
    return names.length > 0 && names.every((name) => indexes.has(name));
  } catch {
    return false;
  }
}
