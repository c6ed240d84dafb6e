import fs from "node:fs";

/**
 * The index files that a stat cache relies on, beside it: ids of content that it knows may have left the store with
 * any of them. The names' 32 bytes back to back; what is missing or odd holds nothing.
 */

const MAX_BYTES = 32 << 20;

function placeOf(statCache: string): string {
  return `${statCache}-indexes`;
}

/** To be written before the stat cache: naming more than it relies on only costs lookups. */
export function writeCacheBasis(statCache: string, indexes: Iterable<string>): void {
  const place = placeOf(statCache);
  const temporary = `${place}.${process.pid}`;
  fs.writeFileSync(temporary, Buffer.concat([...indexes].map((name) => Buffer.from(name, "hex"))), { mode: 0o600 });
  fs.renameSync(temporary, place);
}

/** True when every index file that the cache relies on is still there. */
export function cacheBasisHolds(statCache: string, indexes: ReadonlySet<string>): boolean {
  try {
    const bytes = fs.readFileSync(placeOf(statCache));
    if (bytes.length === 0 || bytes.length % 32 !== 0 || bytes.length > MAX_BYTES) return false;
    for (let at = 0; at < bytes.length; at += 32) if (!indexes.has(bytes.toString("hex", at, at + 32))) return false;
    return true;
  } catch {
    return false;
  }
}
