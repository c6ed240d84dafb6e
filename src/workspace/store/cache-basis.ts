import fs from "node:fs";
import { decodeRecord, encodeRecord } from "../../formats/records/record.ts";
import { readRegular } from "../../fs/regular-file.ts";

/**
 * The index files that a stat cache relies on, in a file beside it: ids of content that it knows may have left the
 * store with any of them. What is missing or odd holds nothing.
 */

const FORMAT = "cairn.cache-basis";
const VERSION = 1;
const MAX_BYTES = 64 << 20;

function placeOf(statCache: string): string {
  return `${statCache}-indexes`;
}

/** Before the stat cache is replaced: one without a basis relies on nothing, which only costs lookups. */
export function dropCacheBasis(statCache: string): void {
  fs.rmSync(placeOf(statCache), { recursive: true, force: true });
}

/** To be written after the stat cache that relies on them. */
export function writeCacheBasis(statCache: string, indexes: Iterable<string>): void {
  const place = placeOf(statCache);
  const temporary = `${place}.${process.pid}`;
  fs.writeFileSync(temporary, encodeRecord({ index_files: [...indexes].toSorted() }, FORMAT, VERSION), { mode: 0o600 });
  fs.renameSync(temporary, place);
}

/** True when every index file that the cache relies on is still there. */
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
