import { isUtf8 } from "node:buffer";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import type { ConsistencyLabel } from "../../formats/records/descriptor.ts";
import type { LosslessField } from "../../formats/records/manifest.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { suspectAt } from "../../fs/secret-names.ts";
import { IGNORE_FILE, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { NO_ID } from "../../fs/linux/user-namespace.ts";
import { signedWide, TYPE, wide } from "../../fs/linux/syscalls.ts";
import { linkKey, type LinkGroups, recordExtras } from "./record-node.ts";
import type { CapturedLabel, ScanNotes } from "./task.ts";

export interface EntryCounts {
  files: number;
  directories: number;
  links: number;
  other: number;
}

/** Counts of a scanned tree, and facts that only the manifest can hold. */
export interface ScanSummary {
  entries: EntryCounts;
  /** sum of the sizes of its files */
  bytes: number;
  holes: { path: Uint8Array; holes: [number, number][] }[];
  hashes: { path: Uint8Array; sha256: Uint8Array; size: number }[];
  /** facts that a node cannot hold: raw link targets and attribute names, links of non-files, far times */
  lossless: LosslessField[];
  /**
   * SQLite databases. `isLive`: the log or journal has more; `isUnchecked`: SQLite did not check the database; `said`: the label
   * that an earlier point gave
   */
  databases: { path: Uint8Array; isLive: boolean; isUnchecked: boolean; said?: SaidOfDatabase }[];
  /** files that look like credentials, by their names */
  secrets: { path: Uint8Array; kind: string }[];
  /** entries whose owner or group is not known; at most the first 100 */
  ownerless: Uint8Array[];
}

type SaidOfDatabase = Pick<CapturedLabel, "label" | "reason" | "recovered">;

interface Visited {
  table: ScanTable;
  record: number;
  directory: number;
  path(): Buffer;
}

/**
 * Calls `visit` for every record of the state, with one object that is valid until the next call. `pass` may handle
 * records itself: it returns the first one, up to `end`, that it did not handle.
 */
export function eachRecord(
  table: ScanTable,
  old: ScanTable | null,
  visit: (entry: Visited) => void,
  pass?: (words: Uint32Array, record: number, end: number) => number,
): void {
  const count = table.control[C.DIRECTORIES]!;
  const omitted = omittedDirectories(table);
  const entry: Visited = {
    table,
    record: 0,
    directory: 0,
    path: () => joinPath(table.directoryPath(entry.directory), entry.table.recordName(entry.record)),
  };
  for (let directory = 0; directory < count; directory++) {
    const base = directory * DIRECTORY_WORDS;
    const flags = table.directories[base + D.FLAGS]!;
    if (flags & DIRECTORY_FLAG.OMITTED) continue;
    const from = flags & DIRECTORY_FLAG.SAME ? old! : table;
    const first = table.directories[base + D.FIRST]!;
    const end = first + table.directories[base + D.COUNT]!;
    for (let record = first; record < end; record++) {
      if (pass !== undefined) record = pass(from.records, record, end);
      if (record === end) break;
      if (!isPresent(from, record)) continue;
      entry.table = from;
      entry.record = record;
      entry.directory = directory;
      const isDirectory = from.records[record * RECORD_WORDS + R.MODE]! >>> 12 === TYPE.DIRECTORY;
      if (isDirectory && omitted.size > 0 && omitted.has(entry.path().toString("latin1"))) continue;
      visit(entry);
    }
  }
}

/** Tells if a scanned tree has an entry with a wanted name. */
export function hasFile(
  { table, old }: { table: ScanTable; old: ScanTable | null },
  isWanted: (name: Uint8Array) => boolean,
): boolean {
  let isFound = false;
  eachRecord(table, old, (entry) => {
    isFound ||= isWanted(entry.table.recordName(entry.record));
  });
  return isFound;
}

/** Directories that could not be read, by path in latin1: their entries are not part of the state either. */
function omittedDirectories(table: ScanTable): Set<string> {
  const omitted = new Set<string>();
  for (let directory = 0; directory < table.control[C.DIRECTORIES]!; directory++) {
    const flags = table.directories[directory * DIRECTORY_WORDS + D.FLAGS]!;
    if (flags & DIRECTORY_FLAG.OMITTED) omitted.add(table.directoryPath(directory).toString("latin1"));
    // The entry had vanished, and was found again when its parent was listed again.
    else if (omitted.size > 0) omitted.delete(table.directoryPath(directory).toString("latin1"));
  }
  return omitted;
}

export function summarise(table: ScanTable, old: ScanTable | null, groups: LinkGroups): ScanSummary {
  const summary: ScanSummary = {
    entries: { files: 0, directories: 0, links: 0, other: 0 },
    bytes: 0,
    holes: [],
    hashes: [],
    lossless: [],
    databases: [],
    secrets: [],
    ownerless: [],
  };
  const { entries } = summary;
  const visit = (entry: Visited): void => {
    noteLossless(summary, entry, groups);
    const { table: from, record, path } = entry;
    const base = record * RECORD_WORDS;
    const type = from.records[base + R.MODE]! >>> 12;
    if (isOwnerless(from.records, base) && summary.ownerless.length < MOST_OWNERLESS) summary.ownerless.push(path());
    if (type === TYPE.FILE) {
      entries.files++;
      const size = wide(from.records, base + R.SIZE);
      summary.bytes += size;
      const flags = from.recordFlags(record);
      if (flags & FLAG.DATABASE)
        summary.databases.push({
          path: path(),
          isLive: (flags & FLAG.LIVE) !== 0,
          isUnchecked: (flags & FLAG.UNCHECKED) !== 0,
        });
      const suspect = flags & FLAG.SECRET ? suspectAt(path()) : null;
      if (suspect !== null) summary.secrets.push({ path: path(), kind: suspect.kind });
      if (flags & FLAG.EXTRAS) noteExtras(summary, from, { record, path, size, chunked: (flags & FLAG.CHUNKED) !== 0 });
    } else if (type === TYPE.DIRECTORY) entries.directories++;
    else if (type === TYPE.LINK) entries.links++;
    else entries.other++;
  };
  eachRecord(table, old, visit, (words, first, end) => {
    let record = first;
    let bytes = 0;
    for (let base = first * RECORD_WORDS; record < end && isOrdinaryFile(words, base); base += RECORD_WORDS) {
      bytes += wide(words, base + R.SIZE);
      record++;
    }
    entries.files += record - first;
    summary.bytes += bytes;
    return record;
  });
  return summary;
}

/** True for a file of the state with no facts beyond its node and a time from 1970 to 2106, as nearly every entry is. */
function isOrdinaryFile(words: Uint32Array, base: number): boolean {
  return (
    words[base + R.MODE]! >>> 12 === TYPE.FILE &&
    ((words[base + R.NAME_FLAGS]! >>> 16) & (FLAG.EXTRAS | FLAG.OMITTED | FLAG.DATABASE | FLAG.SECRET)) === 0 &&
    words[base + R.MTIME + 1] === 0 &&
    !isOwnerless(words, base)
  );
}

const MOST_OWNERLESS = 100;

function isOwnerless(words: Uint32Array, base: number): boolean {
  return words[base + R.UID] === NO_ID || words[base + R.GID] === NO_ID;
}

/** Go's times end with the year 9999. */
const LAST_SECOND = 253402300799;
const FIRST_SECOND = -62167219200;

function noteLossless(summary: ScanSummary, entry: Visited, groups: LinkGroups): void {
  const { table, record, path } = entry;
  const base = record * RECORD_WORDS;
  const type = table.records[base + R.MODE]! >>> 12;
  const seconds = signedWide(table.records, base + R.MTIME);
  if (seconds > LAST_SECOND || seconds < FIRST_SECOND) {
    summary.lossless.push({
      path: path(),
      field: "mtime",
      value: Buffer.from(`${seconds}.${table.records[base + R.MTIME_NS]}`),
    });
  }
  if (type !== TYPE.FILE && type !== TYPE.DIRECTORY && table.records[base + R.NLINK]! > 1) {
    const group = groups.get(linkKey(table, record));
    if (group !== undefined) summary.lossless.push({ path: path(), field: "hard_link", value: group.first });
  }
  if ((table.recordFlags(record) & FLAG.EXTRAS) === 0) return;
  const extras = recordExtras(table, record);
  if (extras.target !== undefined && !isUtf8(extras.target))
    summary.lossless.push({ path: path(), field: "linktarget", value: Uint8Array.from(extras.target) });
  extras.xattrs.forEach(({ name }, index) => {
    if (!isUtf8(name))
      summary.lossless.push({ path: path(), field: "xattr_name", index, value: Uint8Array.from(name) });
  });
}

function noteExtras(
  summary: ScanSummary,
  from: ScanTable,
  file: { record: number; path: () => Buffer; size: number; chunked: boolean },
): void {
  const extras = recordExtras(from, file.record);
  if (extras.holes !== undefined) {
    const holes = Buffer.from(extras.holes);
    const list: [number, number][] = [];
    for (let at = 0; at < holes.length; at += 16)
      list.push([Number(holes.readBigUInt64LE(at)), Number(holes.readBigUInt64LE(at + 8))]);
    summary.holes.push({ path: file.path(), holes: list });
  }
  if (!file.chunked) return;
  const at = (file.record * RECORD_WORDS + R.HASH) * 4;
  summary.hashes.push({
    path: file.path(),
    sha256: Uint8Array.from(from.recordBytes.subarray(at, at + 32)),
    size: file.size,
  });
}

export interface ChangeCounts {
  added: number;
  modified: number;
  removed: number;
}

/**
 * Counts differences from the previous table by records. A directory that differs only in its times counts as modified
 * only if no direct entry was added or removed.
 */
export function countChanges(
  table: ScanTable,
  old: ScanTable | null,
  omitted: ScanNotes["omitted"] = [],
): ChangeCounts {
  const changes: ChangeCounts = { added: 0, modified: 0, removed: 0 };
  const unread = new PathSelection(omitted.map(({ path }) => path));
  const count = table.control[C.DIRECTORIES]!;
  const moved = new Set<number>();
  for (let directory = count - 1; directory >= 0; directory--)
    countDirectory({ table, old, directory, changes, moved, unread });
  return changes;
}

function countDirectory(at: {
  table: ScanTable;
  old: ScanTable | null;
  directory: number;
  changes: ChangeCounts;
  moved: Set<number>;
  unread: PathSelection;
}): void {
  const { table, old, directory, changes, moved } = at;
  const base = directory * DIRECTORY_WORDS;
  const flags = table.directories[base + D.FLAGS]!;
  if (flags & (DIRECTORY_FLAG.SAME | DIRECTORY_FLAG.OMITTED)) return;
  if (flags & DIRECTORY_FLAG.ALIGNED) return countAligned(at);
  const present = presentRecords(table, table.directories[base + D.FIRST]!, table.directories[base + D.COUNT]!);
  const oldDirectory = table.directories[base + D.OLD]! - 1;
  const before =
    oldDirectory < 0 || old === null
      ? []
      : presentRecords(
          old,
          old.directories[oldDirectory * DIRECTORY_WORDS + D.FIRST]!,
          old.directories[oldDirectory * DIRECTORY_WORDS + D.COUNT]!,
        );
  let i = 0;
  let j = 0;
  while (i < present.length || j < before.length) {
    const order =
      i === present.length ? 1 : j === before.length ? -1 : compareNames(table, present[i]!, old!, before[j]!);
    if (order === 0) {
      countBoth(at, present[i++]!, before[j++]!);
      continue;
    }
    moved.add(directory);
    if (order < 0) {
      changes.added++;
      i++;
    } else changes.removed += removedAt(at, before[j++]!);
  }
}

/** Number of entries that went with a record of the previous table; 0 if the entry is there, but could not be read. */
function removedAt({ table, old, directory, unread }: Parameters<typeof countDirectory>[0], record: number): number {
  const path = joinPath(table.directoryPath(directory), old!.recordName(record));
  return unread.chosenAt(path) === null ? 1 + below(old!, record) : 0;
}

/**
 * Counts a directory whose records have the same names in the same order as in the previous table, and differ only if
 * the scan touched them.
 */
function countAligned(at: Parameters<typeof countDirectory>[0]): void {
  const { table, old, directory, changes, moved } = at;
  const base = directory * DIRECTORY_WORDS;
  const oldBase = (table.directories[base + D.OLD]! - 1) * DIRECTORY_WORDS;
  const shift = old!.directories[oldBase + D.FIRST]! - table.directories[base + D.FIRST]!;
  const end = table.directories[base + D.FIRST]! + table.directories[base + D.COUNT]!;
  const next = (from: number): number => table.touched.indexOf(1, from);
  for (let record = next(table.directories[base + D.FIRST]!); record >= 0 && record < end; record = next(record + 1)) {
    const is = isPresent(table, record);
    const was = isPresent(old!, record + shift);
    if (is && was) countBoth(at, record, record + shift);
    else if (is || was) {
      moved.add(directory);
      if (is) changes.added++;
      else changes.removed += removedAt(at, record + shift);
    }
  }
}

/** Counts an entry of both tables, and the removed entries below it if it is no longer a directory. */
function countBoth({ table, old, changes, moved }: Parameters<typeof countDirectory>[0], a: number, b: number): void {
  if (!recordDiffers(table, a, old!, b, moved)) return;
  changes.modified++;
  if (table.records[a * RECORD_WORDS + R.MODE]! >>> 12 !== TYPE.DIRECTORY) changes.removed += below(old!, b);
}

/** Raw byte order of two records' names, without a view of either. */
export function compareNames(a: ScanTable, x: number, b: ScanTable, y: number): number {
  const p = a.records[x * RECORD_WORDS]!;
  const q = b.records[y * RECORD_WORDS]!;
  const m = a.records[x * RECORD_WORDS + R.NAME_FLAGS]! & 0xffff;
  const n = b.records[y * RECORD_WORDS + R.NAME_FLAGS]! & 0xffff;
  for (let i = 0; i < m && i < n; i++) {
    const difference = a.names[p + i]! - b.names[q + i]!;
    if (difference !== 0) return difference;
  }
  return m - n;
}

function presentRecords(table: ScanTable, first: number, count: number): number[] {
  const present: number[] = [];
  for (let record = first; record < first + count; record++) if (isPresent(table, record)) present.push(record);
  return present;
}

function isPresent(table: ScanTable, record: number): boolean {
  return table.records[record * RECORD_WORDS + R.MODE] !== 0 && (table.recordFlags(record) & FLAG.OMITTED) === 0;
}

/** Number of entries below a removed directory. */
function below(old: ScanTable, record: number): number {
  const base = record * RECORD_WORDS;
  if (old.records[base + R.MODE]! >>> 12 !== TYPE.DIRECTORY) return 0;
  const directory = old.records[base + R.SUB]! * DIRECTORY_WORDS;
  const children = presentRecords(old, old.directories[directory + D.FIRST]!, old.directories[directory + D.COUNT]!);
  return children.reduce((sum, child) => sum + 1 + below(old, child), 0);
}

function recordDiffers(table: ScanTable, a: number, old: ScanTable, b: number, moved: Set<number>): boolean {
  const x = a * RECORD_WORDS;
  const y = b * RECORD_WORDS;
  const directory = table.records[x + R.MODE]! >>> 12 === TYPE.DIRECTORY;
  if (!directory && wordsDiffer(table.records, x, old.records, y, CONTENT)) return true;
  // Each change changes the change time, but on some systems a change of extended attributes does not.
  if (wordsDiffer(table.records, x, old.records, y, UNTOUCHED)) {
    if (wordsDiffer(table.records, x, old.records, y, METADATA)) return true;
    const hasMoved = directory && moved.has(table.records[x + R.SUB]!);
    if (!hasMoved && wordsDiffer(table.records, x, old.records, y, TIMES)) return true;
  }
  return !sameExtras(table, a, old, b);
}

function wordsDiffer(a: Uint32Array, x: number, b: Uint32Array, y: number, words: Uint8Array): boolean {
  for (let i = 0; i < words.length; i++) if (a[x + words[i]!] !== b[y + words[i]!]) return true;
  return false;
}

const CONTENT = Uint8Array.from([R.SIZE, R.SIZE + 1, ...Array.from({ length: 8 }, (_, i) => R.HASH + i)]);
const UNTOUCHED = Uint8Array.from([R.CTIME_NS, R.CTIME, R.CTIME + 1, R.INO, R.INO + 1]);
const METADATA = Uint8Array.from([R.MODE, R.UID, R.GID, R.RDEV_MAJOR, R.RDEV_MINOR]);
const TIMES = Uint8Array.from([R.MTIME, R.MTIME + 1, R.MTIME_NS]);

/** Holes and chunks follow from the content; targets and attributes are state of their own. */
function sameExtras(table: ScanTable, a: number, old: ScanTable, b: number): boolean {
  const x = recordExtras(table, a);
  const y = recordExtras(old, b);
  if (Buffer.compare(x.target ?? EMPTY, y.target ?? EMPTY) !== 0 || x.xattrs.length !== y.xattrs.length) return false;
  return x.xattrs.every(
    (attribute, i) =>
      Buffer.compare(attribute.name, y.xattrs[i]!.name) === 0 &&
      Buffer.compare(attribute.value, y.xattrs[i]!.value) === 0,
  );
}

const EMPTY = new Uint8Array(0);

/** Omits everything below unreadable directories too: another thread may have read entries there before a rename. */
export function omitBelow(table: ScanTable): void {
  // A directory's number is above its parent's.
  for (let directory = 1; directory < table.control[C.DIRECTORIES]!; directory++) {
    const parent = table.directories[directory * DIRECTORY_WORDS + D.PARENT]!;
    if (table.directories[parent * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.OMITTED)
      table.addDirectoryFlag(directory, DIRECTORY_FLAG.OMITTED);
  }
}

/** Label of a file that looks like credentials. */
export const CREDENTIALS = "credentials";

/** Label of an entry whose owner or group has no id in the user namespace of the save. */
export const OWNER_UNKNOWN = "owner-unknown";
const OWNERLESS = "its owner or group has no id in the user namespace of the save";

/** Label of an ignore file whose rules are not applied. */
export const RULES_NOT_APPLIED = "rules-not-applied";
const LONG = `it has more than ${MAX_IGNORE_FILE_BYTES} bytes, so Cairn does not apply it and saves all files`;

/**
 * Returns labels for databases, entries that were not read whole and at rest, ignore files that are too long, and files
 * with credentials.
 */
export function labelsOf(
  { torn, longRules, captured }: Pick<ScanNotes, "torn" | "longRules" | "captured">,
  { databases, secrets, ownerless }: Pick<ScanSummary, "databases" | "secrets" | "ownerless">,
  still: readonly Uint8Array[] = [],
): ConsistencyLabel[] {
  const wereStill = new Set(still.map(latin1));
  const isTogether = databases.length < 2 || databases.every(({ path }) => wereStill.has(latin1(path)));
  const said = new Map(
    captured.map((each) => [latin1(each.path), each.apart && !isTogether ? notTogether(each) : each]),
  );
  const isTorn = new Set(torn.map(({ path }) => latin1(path)));
  return [
    ...torn.map(({ path, reason, aspects }) => ({
      ...recordPath(path),
      label: "torn-possible",
      reason,
      ...(aspects === undefined ? {} : { aspects: [...aspects] }),
    })),
    ...longRules.map((directory) => ({
      ...recordPath(joinPath(directory, Buffer.from(IGNORE_FILE))),
      label: RULES_NOT_APPLIED,
      reason: LONG,
    })),
    ...databases.flatMap(({ path, isLive, isUnchecked, said: known }) => {
      if (isTorn.has(latin1(path))) return [];
      const byMarks = isLive ? WITH_LOG : isUnchecked ? UNCHECKED : AT_REST;
      const { label, reason, recovered } = said.get(latin1(path)) ?? known ?? byMarks;
      const more = { ...(reason === null ? {} : { reason }), ...(recovered ? { recovered } : {}) };
      return [{ ...recordPath(path), label, ...more }];
    }),
    ...secrets.map(({ path, kind }) => ({ ...recordPath(path), label: CREDENTIALS, reason: kind })),
    ...ownerless.map((path, i) => ({
      ...recordPath(path),
      label: OWNER_UNKNOWN,
      reason: i === MOST_OWNERLESS - 1 ? `${OWNERLESS}; so it may be with further entries` : OWNERLESS,
    })),
  ];
}

const TRANSACTION = "transaction-consistent" as const;
const CRASH = "crash-consistent" as const;
const AT_REST = { label: TRANSACTION, reason: null, recovered: false };
const WITH_LOG = {
  label: CRASH,
  reason: "SQLite did not check it, and will apply the log or journal beside it when a program opens it",
  recovered: false,
};
const UNCHECKED = {
  label: CRASH,
  reason: "it is unchanged since an earlier point, in which SQLite did not check it or found it damaged",
  recovered: false,
};

/** Says that a database's consistent moment differs from the other databases' moments. */
export function notTogether<T extends { label: string; reason: string | null }>(label: T): T {
  return label.label === TRANSACTION && label.reason === null ? { ...label, reason: NOT_TOGETHER } : label;
}

const NOT_TOGETHER = "each consistent, not together: a transaction over several databases may be in only some of them";

/** Reason in the label of a database that was written to during a snapshot: SQLite has not checked it yet. */
export const WRITTEN_TO = "it was written to while the snapshot was made, which has what a crash would have left";

/**
 * Joins labels given before a tree was read with labels from reading it. The later label wins for a database known only
 * from a snapshot, and for one that SQLite finds damaged.
 */
export function withLabels(known: readonly ConsistencyLabel[], read: readonly ConsistencyLabel[]): ConsistencyLabel[] {
  const before = new Map(known.map((label) => [latin1(rawPath(label)), label]));
  for (const label of read) {
    const path = latin1(rawPath(label));
    const was = before.get(path);
    if (was?.["reason"] === WRITTEN_TO) before.set(path, { reason: WRITTEN_TO, ...label });
    else if (was === undefined || (was.label === TRANSACTION && label.label === CRASH)) before.set(path, label);
  }
  return [...before.values()];
}
