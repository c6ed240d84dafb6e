import { hex, joinPath } from "../../formats/bytes.ts";
import { CairnError } from "../../errors.ts";
import { D, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "../../archive/cache/scan-table.ts";
import { listOrigins, loadOrigins } from "../../archive/cache/origins.ts";
import { loadStatCache } from "../../archive/cache/stat-cache.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { INDEX_CACHE_VERSION, readIndexCache } from "../../repository/index/index-cache.ts";
import type { Inspected } from "./inspected.ts";

/** Decodes binary files that can be removed at any time. */

export const STAT_CACHE_MAGIC = "CAIRNSC";
export const ORIGINS_MAGIC = "CAIRNOR";
const VERSIONS = { "stat cache": 3, "index cache": INDEX_CACHE_VERSION, origins: 1 } as const;
const SAMPLE = 1000;
const HINT = "remove the file: it is a cache, and is made again";
const ORIGINS_HINT = "remove the file: the next seal reads the point's clone instead";

function checkVersion(magic: string, what: keyof typeof VERSIONS): void {
  const version = Number(magic[7]);
  const hint = what === "origins" ? ORIGINS_HINT : HINT;
  const known = VERSIONS[what];
  if (version === known) return;
  if (version > known)
    throw new CairnError("newer_version", `${what}: version ${version}; this program knows ${known}`, { hint });
  throw new CairnError("damaged", `${what}: an old version, which is no longer used`, { hint });
}

/** Shows a stat cache: counts, its tree, and its first entries. Throws `damaged` if its checksum is wrong. */
export function inspectStatCache(path: string, magic: string): Inspected {
  checkVersion(magic, "stat cache");
  const cache = loadStatCache(path);
  if (cache === null) throw new CairnError("damaged", "stat cache: cut off, or its checksum is wrong", { hint: HINT });
  const { table, directories, records } = cache;
  const content = {
    tree: hex(cache.tree),
    index_epoch: hex(cache.epoch),
    directories,
    entries: records,
    sample: sampleOf(table, directories),
    sample_complete: records <= SAMPLE,
  };
  return { format: "stat-cache", version: VERSIONS["stat cache"], content };
}

function sampleOf(table: ScanTable, directories: number): unknown[] {
  const sample: unknown[] = [];
  for (let directory = 0; directory < directories && sample.length < SAMPLE; directory++) {
    const base = directory * DIRECTORY_WORDS;
    const first = table.directories[base + D.FIRST]!;
    const count = Math.min(table.directories[base + D.COUNT]!, SAMPLE - sample.length);
    for (let record = first; record < first + count; record++) sample.push(entryOf(table, directory, record));
  }
  return sample;
}

const KINDS: Record<number, string> = {
  0o010: "fifo",
  0o020: "chardev",
  0o040: "directory",
  0o060: "blockdev",
  0o100: "file",
  0o120: "symlink",
  0o140: "socket",
};

function entryOf(table: ScanTable, directory: number, record: number): unknown {
  const words = table.records;
  const at = record * RECORD_WORDS;
  const parent = table.directoryPath(directory);
  const name = table.recordName(record);
  const mode = words[at + R.MODE]!;
  const flags = table.recordFlags(record);
  const kind = KINDS[mode >>> 9] ?? "unknown";
  const seconds = BigInt.asIntN(64, wide(words, at + R.MTIME));
  return {
    ...displayPath(joinPath(parent, name)),
    kind,
    mode: mode & 0o7777,
    size: Number(wide(words, at + R.SIZE)),
    mtime: `${seconds}.${String(words[at + R.MTIME_NS]!).padStart(9, "0")}`,
    inode: wide(words, at + R.INO).toString(),
    ...(kind === "file" && (flags & (FLAG.OMITTED | FLAG.CHUNKED)) === 0
      ? { sha256: hex(table.recordBytes.subarray((at + R.HASH) * 4, (at + R.HASH) * 4 + 32)) }
      : {}),
    ...((flags & FLAG.YOUNG) === 0 ? {} : { young: true }),
    ...((flags & FLAG.OMITTED) === 0 ? {} : { omitted: true }),
  };
}

function wide(words: Uint32Array, at: number): bigint {
  return BigInt(words[at]!) | (BigInt(words[at + 1]!) << 32n);
}

/** Shows an index cache: counts, and the index files that it covers. Throws `damaged` if its checksum is wrong. */
export function inspectIndexCache(path: string, header: Uint8Array): Inspected {
  checkVersion(Buffer.from(header.subarray(0, 8)).toString("latin1"), "index cache");
  const repository = Buffer.from(header.subarray(48, 112)).toString("latin1");
  const cache = readIndexCache(path, repository);
  if (cache === null) throw new CairnError("damaged", "index cache: cut off, or its checksum is wrong", { hint: HINT });
  const content = {
    repository_id: repository,
    epoch: hex(cache.epoch),
    blobs: cache.table.count,
    packs: cache.table.packCount,
    other_places: cache.others.count,
    index_files: [...cache.covered].sort(),
  };
  return { format: "index-cache", version: VERSIONS["index cache"], content };
}

/** Shows an origins file: counts, and the first records. Throws `damaged` if its checksum is wrong. */
export function inspectOrigins(path: string, magic: string): Inspected {
  checkVersion(magic, "origins");
  const origins = loadOrigins(path);
  if (origins === null)
    throw new CairnError("damaged", "origins: cut off, or its checksum is wrong", { hint: ORIGINS_HINT });
  const sample: unknown[] = [];
  let entries = 0;
  for (const { clone, source, changed, links, size } of listOrigins(origins)) {
    if (entries++ >= SAMPLE) continue;
    const time = `${changed.seconds}.${String(changed.nanoseconds).padStart(9, "0")}`;
    sample.push({ inode: `${clone}`, source: { inode: `${source}`, ctime: time, links, size: Number(size) } });
  }
  const content = { entries, sample, sample_complete: entries <= SAMPLE };
  return { format: "origins", version: VERSIONS.origins, content };
}
